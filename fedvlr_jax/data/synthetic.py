"""A population of any size with planted preferences over image, text and collaborative signal.

Every item has three latent factor vectors. Image and text factors are seen through unit-norm
feature rows of CLIP's width; the collaborative one shows only in who interacts with what. Every
client has a taste in each of the three spaces and a Dirichlet weight over them; it picks items
from a softmax of weighted taste plus Zipf popularity, without replacement, by the Gumbel top-k
trick (Kool et al. 2019, "Stochastic Beams and Where to Find Them"). Order in time is random among
the picked items, so the held-out ones are like the others.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from fedvlr_jax.data.types import Catalogue, Dataset, Interactions, Planted
from fedvlr_jax.names import MODALITIES
from fedvlr_jax.processes import together

FACTORS = 8  # latent width of each modality
_FEATURE_WIDTH = 512  # CLIP ViT-B/32
_FEATURE_NOISE = 0.5  # noise of a feature row, relative to its signal
_TASTE = 2.5  # standard deviation of a client's utility over items, in nats
_ZIPF = 0.6  # exponent of popularity against its rank
_LENGTH_SIGMA = 0.75  # of log history length
_LENGTH_MEAN = 16.0
_LENGTH_MIN, _LENGTH_MAX = 5, 250
_HELD_OUT = 2
# Clients are drawn in blocks of this many, each with its own generator: memory stays bounded and
# the first n clients of a larger population are the population of n clients.
_BLOCK = 500


@dataclass(frozen=True)
class Items:
    """What clients choose from.

    Attributes:
        factors: latent factors of every item in each of `MODALITIES`, of unit variance.
        log_popularity: what is added to everybody's utility, in nats.
    """

    factors: Float32[np.ndarray, "modalities items factors"]
    log_popularity: Float32[np.ndarray, " items"]


def generate(
    n_clients: int, n_items: int, history_length: int, concentration: float, seed: int
) -> Dataset:
    """Draw a population.

    Args:
        n_clients: number of clients.
        n_items: number of items, at least 20.
        history_length: train items of every client; 0 draws log-normal lengths, mean about 16,
            clipped to 5..250 and to half of the items.
        concentration: of the Dirichlet over (image, text, id) preferences.
        seed: of everything drawn.

    Returns:
        The data set; `planted.preference` has shape (clients, 3) in the order of `MODALITIES`.
    """
    rng = np.random.default_rng([seed, 0])
    factors = rng.standard_normal((len(MODALITIES), n_items, FACTORS), np.float32)
    items = Items(factors, zipf(rng, n_items))
    image, text = (_features(rng, factors[m]) for m in range(2))
    interactions, planted = draw_clients(items, n_clients, history_length, concentration, seed)
    return Dataset("synthetic", interactions, Catalogue(image, text), planted)


def zipf(rng: np.random.Generator, n_items: int) -> Float32[np.ndarray, " items"]:
    """Log popularity of items in random order of rank."""
    rank = rng.permutation(n_items) + 1.0
    return (-_ZIPF * np.log(rank)).astype(np.float32)


def draw_clients(
    items: Items, n_clients: int, history_length: int, concentration: float, seed: int
) -> tuple[Interactions, Planted]:
    """Clients with tastes and preferences of their own, and what they pick from the items.

    Where several processes train together, each draws its own clients, whatever their number.

    Args:
        items: at least 20.
        n_clients: number of clients.
        history_length: as in `generate`.
        concentration: as in `generate`.
        seed: of the clients.
    """
    # The block size must not depend on n_clients, or a larger population would not extend a
    # smaller one; the first and the last block of a process are drawn whole and cut.
    own = together.own_clients(n_clients)
    first, n_items = own.start // _BLOCK, len(items.log_popularity)

    def block(number: int) -> tuple[np.ndarray, ...]:
        rng = np.random.default_rng([seed, 1, number])
        return _block(rng, items, history_length, concentration)

    # NumPy lets other threads run while it draws and sorts.
    with ThreadPoolExecutor() as threads:
        blocks = [_nothing(), *threads.map(block, range(first, -(-own.stop // _BLOCK)))]
    here = slice(own.start - first * _BLOCK, own.stop - first * _BLOCK)
    preference, lengths, valid, test, train = map(np.concatenate, zip(*blocks, strict=True))
    bounds = np.concatenate([[0], np.cumsum(lengths)])[[here.start, here.stop]]
    train = train[slice(*bounds)]
    preference, lengths, valid, test = (
        together.concatenated(values[here]) for values in (preference, lengths, valid, test)
    )
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    popularity = together.total(np.bincount(train, minlength=n_items))
    interactions = Interactions(n_items, offsets, train, valid, test, own.start, popularity)
    return interactions, Planted(preference)


def _nothing() -> tuple[np.ndarray, ...]:
    """A block of no clients: a process may have none."""
    none = np.zeros(0, np.int32)
    return np.zeros((0, len(MODALITIES)), np.float32), none.astype(np.int64), none, none, none


def _features(rng: np.random.Generator, factors: np.ndarray) -> np.ndarray:
    """Unit-norm float16 rows that show `factors` through a random map, with noise."""
    mixing = rng.standard_normal((FACTORS, _FEATURE_WIDTH), np.float32)
    signal = factors @ mixing
    noise = rng.standard_normal(signal.shape, np.float32) * _FEATURE_NOISE * signal.std()
    rows = signal + noise
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def _lengths(rng: np.random.Generator, fixed: int, n_items: int) -> np.ndarray:
    if fixed:
        return np.full(_BLOCK, fixed, np.int64)
    mu = np.log(_LENGTH_MEAN) - _LENGTH_SIGMA**2 / 2
    drawn = np.round(rng.lognormal(mu, _LENGTH_SIGMA, _BLOCK)).astype(np.int64)
    return np.clip(drawn, _LENGTH_MIN, min(_LENGTH_MAX, n_items // 2))


def _block(
    rng: np.random.Generator, items: Items, history_length: int, concentration: float
) -> tuple[np.ndarray, ...]:
    """Preferences, lengths, validation and test items, and all train items of one block."""
    n_items = len(items.log_popularity)
    preference = rng.dirichlet([concentration] * len(MODALITIES), _BLOCK).astype(np.float32)
    taste = rng.standard_normal((_BLOCK, len(MODALITIES), FACTORS), np.float32)
    taste *= _TASTE / np.sqrt(FACTORS) * preference[:, :, None]
    utility = np.einsum("umf,mif->ui", taste, items.factors, optimize=True)
    # Minus the log of a standard exponential is a standard Gumbel variable; float32 draws can be
    # exactly 0, hence the floor.
    noise = rng.standard_exponential(utility.shape, np.float32)
    utility += items.log_popularity - np.log(np.maximum(noise, 1e-30))
    lengths = _lengths(rng, history_length, n_items)
    longest = int(lengths.max()) + _HELD_OUT
    top = np.argpartition(-utility, longest - 1, axis=1)[:, :longest]
    scores = np.take_along_axis(utility, top, axis=1)
    picked = np.take_along_axis(top, np.argsort(-scores, axis=1), axis=1)

    # Shuffle each client's first (length + 2) picks: the last two become test and validation.
    place = np.arange(longest)
    when = np.where(place < lengths[:, None] + _HELD_OUT, rng.random(picked.shape), 2.0)
    in_time = np.take_along_axis(picked, np.argsort(when, axis=1), axis=1)
    valid = np.take_along_axis(in_time, lengths[:, None], axis=1)[:, 0]
    test = np.take_along_axis(in_time, lengths[:, None] + 1, axis=1)[:, 0]
    train = np.sort(np.where(place < lengths[:, None], in_time, n_items), axis=1)
    items_in_order = train[place < lengths[:, None]].astype(np.int32)
    return preference, lengths, valid.astype(np.int32), test.astype(np.int32), items_in_order
