"""The references at their best settings by validation, and their ranks on the test split."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from fedvlr_jax.analysis import metrics, popularity
from fedvlr_jax.data.types import Dataset
from fedvlr_jax.references import ease, ials, neighbours, vbpr
from fedvlr_jax.references.ranking import held_out_ranks

_NEIGHBOURS = (5, 10, 20, 50, 100, 0)
_PENALTIES = (1.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
_IALS_UNOBSERVED, _IALS_PENALTIES = (0.01, 0.1, 1.0), (0.003, 0.01, 0.03, 0.1)
_IALS_ITERATIONS = 16
_VBPR_RATES, _VBPR_PENALTIES = (1e-3, 1e-2), (1e-3, 1e-2, 1e-1)
_VBPR_EPOCHS, _VBPR_EVALUATIONS = 200, 20
# What is searched, so that results of another search are told from those of this one.
SEARCHED = {
    "neighbours": [*_NEIGHBOURS],
    "EASE": [*_PENALTIES],
    "iALS": [*_IALS_UNOBSERVED, *_IALS_PENALTIES, _IALS_ITERATIONS],
    "VBPR": [*_VBPR_RATES, *_VBPR_PENALTIES, _VBPR_EPOCHS, _VBPR_EVALUATIONS],
}


@dataclass(frozen=True)
class Reference:
    """A centralized recommender on a data set.

    Attributes:
        name: the recommender.
        setting: what validation chose, for people.
        valid: metrics on the validation split at that setting.
        test_ranks: rank of every client's test item, -1 without one.
        test: metrics of those.
    """

    name: str
    setting: str
    valid: dict[str, float | None]
    test_ranks: Int[np.ndarray, " clients"]
    test: dict[str, float | None]


Candidates = Iterator[tuple[str, Float[np.ndarray, "clients items"]]]


def references(
    dataset: Dataset, seed: int, dim: int = 64, epochs: int = _VBPR_EPOCHS
) -> Iterator[Reference]:
    """Popularity, ItemKNN, content-kNN, EASE, iALS and VBPR, one after the other.

    content-kNN is left out where the data set has no features.

    Args:
        dataset: in one process.
        seed: of ties, and of what iALS and VBPR draw.
        dim: width of the factors of iALS and VBPR.
        epochs: of VBPR at most; the best of 20 evaluations of each setting is taken.
    """
    data, catalogue = dataset.interactions, dataset.catalogue
    ranks = {s: popularity.held_out_ranks(data, getattr(data, s), seed) for s in ("valid", "test")}
    found = {s: metrics.from_ranks(ranks[s], data.warm(s)) for s in ranks}
    yield Reference("popularity", "", found["valid"], ranks["test"], found["test"])
    kinds: dict[str, Callable[[], Candidates]] = {
        "ItemKNN": lambda: (
            (f"{k or 'all'} neighbours", neighbours.scores(data, k)) for k in _NEIGHBOURS
        ),
        "content-kNN": lambda: (
            (f"{k or 'all'} neighbours", neighbours.content_scores(data, catalogue, k))
            for k in _NEIGHBOURS
        ),
        "EASE": lambda: ((f"penalty {p:g}", ease.scores(data, p)) for p in _PENALTIES),
        "iALS": lambda: _ials(dataset, dim, seed),
        "VBPR": lambda: _vbpr(dataset, dim, seed, epochs),
    }
    if catalogue.image is None and catalogue.text is None:
        del kinds["content-kNN"]
    for name, candidates in kinds.items():
        yield _best(name, candidates(), dataset, seed)


def _best(name: str, candidates: Candidates, dataset: Dataset, seed: int) -> Reference:
    """The candidate with the best validation score, the first on ties.

    One whose scores are not finite ranks nothing; where all are like that, nobody has a rank.
    """
    data, best = dataset.interactions, None
    for setting, scores in candidates:
        if not np.isfinite(scores).all():
            continue
        ranks = held_out_ranks(scores, data, data.valid, seed)
        valid = metrics.from_ranks(ranks, data.warm("valid"))
        score = metrics.selection_score(valid)
        if best is None or score > best[0]:
            best = score, setting, valid, scores
    if best is None:
        nobody = np.full(data.n_clients, -1)
        nothing = metrics.from_ranks(nobody, data.warm("test"))
        return Reference(name, "not finite at any setting", nothing, nobody, nothing)
    _, setting, valid, scores = best
    ranks = held_out_ranks(scores, data, data.test, seed)
    return Reference(name, setting, valid, ranks, metrics.from_ranks(ranks, data.warm("test")))


def _ials(dataset: Dataset, dim: int, seed: int) -> Candidates:
    for unobserved, penalty in itertools.product(_IALS_UNOBSERVED, _IALS_PENALTIES):
        trained = ials.iterations(
            dataset.interactions, dim=dim, unobserved=unobserved, penalty=penalty, seed=seed
        )
        for number, scores in enumerate(itertools.islice(trained, _IALS_ITERATIONS), 1):
            setting = f"unobserved weight {unobserved:g}, penalty {penalty:g}, iteration {number}"
            yield setting, scores


def _vbpr(dataset: Dataset, dim: int, seed: int, epochs: int) -> Candidates:
    for rate, penalty in itertools.product(_VBPR_RATES, _VBPR_PENALTIES):
        trained = vbpr.epochs(
            dataset.interactions,
            dataset.catalogue,
            dim=dim,
            learning_rate=rate,
            penalty=penalty,
            seed=seed,
        )
        for number, scores in enumerate(itertools.islice(trained, epochs), 1):
            if number % -(-epochs // _VBPR_EVALUATIONS) == 0:
                yield f"rate {rate:g}, penalty {penalty:g}, epoch {number}", scores
