"""The generated shop as a source: a log, titles, and a folder of pictures."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedvlr_jax.data.raw.log import Log, Raw
from fedvlr_jax.data.shop.draw import draw
from fedvlr_jax.data.shop.goods import SEEN, Goods, draw_goods, factors
from fedvlr_jax.data.synthetic import FACTORS, Items, draw_clients, zipf
from fedvlr_jax.names import MODALITIES

_OPENING = 1_700_000_000.0  # when the shop opens, seconds since 1970
_DAY = 86_400.0
_STREAM = 7  # keeps the shop's draws apart from a synthetic population's with the same seed


@dataclass(frozen=True)
class Shop:
    """Goods, and how their pictures are called."""

    goods: Goods
    raw: Raw
    seed: int

    def draw_pictures(self, folder: Path) -> None:
        """Write every item's picture into `folder`, those that are there left alone."""
        folder.mkdir(parents=True, exist_ok=True)
        for item, name in enumerate(self.raw.pictures.values()):
            if (folder / name).exists():
                continue
            rng = np.random.default_rng([self.seed, _STREAM, 2, item])
            attributes = {key: values[self.goods.seen[key][item]] for key, values in SEEN.items()}
            temporary = folder / f".tmp-{name}"
            draw(rng, **attributes).save(temporary, "JPEG", quality=92)
            temporary.replace(folder / name)


def open_shop(n_clients: int, n_items: int, concentration: float, seed: int) -> Shop:
    """Stock a shop and let clients pick, as in `data/synthetic.py`.

    A client's utility weighs taste in what is seen (shape, colour, pattern, texture), in what is
    read (kind, material, quality, purpose, brand) and in a hidden factor by a preference of its
    own; the preferences become columns of users.csv.

    Args:
        n_clients: number of clients.
        n_items: number of items, at least 20.
        concentration: of the Dirichlet over the three.
        seed: of everything drawn.
    """
    rng = np.random.default_rng([seed, _STREAM])
    goods = draw_goods(rng, n_items)
    hidden = rng.standard_normal((n_items, FACTORS), np.float32)
    items = Items(
        np.stack([factors(rng, goods.seen), factors(rng, goods.read), hidden]), zipf(rng, n_items)
    )
    drawn, planted = draw_clients(items, n_clients, 0, concentration, seed)
    # A client's train items in random order, then the two that are held out, a day apart.
    lengths = drawn.lengths
    train_user = np.repeat(np.arange(n_clients), lengths)
    shuffled = np.lexsort((rng.random(len(train_user)), train_user))
    place = np.arange(len(train_user)) - drawn.offsets[train_user]
    user = np.concatenate([train_user, np.arange(n_clients), np.arange(n_clients)])
    item = np.concatenate([drawn.items[shuffled], drawn.valid, drawn.test])
    day = np.concatenate([place, lengths, lengths + 1])
    time = np.floor(_OPENING + _DAY * (rng.uniform(0, 100, n_clients)[user] + day))
    order = np.lexsort((time, user))
    names = [f"item{k:05d}" for k in range(n_items)]
    log = Log(
        users=[f"client{k:06d}" for k in range(n_clients)],
        items=names,
        user=user[order].astype(np.int64),
        item=item[order].astype(np.int64),
        time=time[order],
    )
    preferences = {
        f"preference_{name}": planted.preference[:, m].astype(float).round(4).tolist()
        for m, name in enumerate(MODALITIES)
    }
    raw = Raw(
        log=log,
        titles={name: goods.title(k) for k, name in enumerate(names)},
        pictures={name: f"{name}.jpg" for name in names},
        user_columns=preferences,
    )
    return Shop(goods, raw, seed)
