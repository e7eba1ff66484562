"""The types of a data set: interactions, features, planted preferences."""

import functools
import hashlib
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, Int64, UInt64

from fedvlr_jax.processes import together

_CLIENTS_AT_ONCE = 100_000


@dataclass(frozen=True)
class Interactions:
    """Leave-one-out interactions of every client, in compressed rows (CSR).

    Client u's train items are `items[offsets[u]:offsets[u + 1]]`, ascending. `valid[u]` and
    `test[u]` are its held-out items, -1 where it has none.

    Where several processes train together, `items` holds those of one block of clients, from
    `first` on, and `counted` is the popularity over all processes; everything else is everybody's.
    Of clients that join after training, `counted` is the popularity among those who trained.
    """

    n_items: int
    offsets: Int64[np.ndarray, " bounds"]
    items: Int32[np.ndarray, " interactions"]
    valid: Int32[np.ndarray, " clients"]
    test: Int32[np.ndarray, " clients"]
    first: int = 0
    counted: Int64[np.ndarray, " items"] | None = None

    @property
    def n_clients(self) -> int:
        """Number of clients U."""
        return len(self.valid)

    @property
    def lengths(self) -> Int64[np.ndarray, " clients"]:
        """Number of train items of each client."""
        return np.diff(self.offsets)

    @property
    def held_out(self) -> tuple[Int32[np.ndarray, " clients"], Int32[np.ndarray, " clients"]]:
        """Validation and test items."""
        return self.valid, self.test

    @property
    def own(self) -> range:
        """The clients whose train items are here."""
        past = int(np.searchsorted(self.offsets, self.offsets[self.first] + len(self.items)))
        return range(self.first, min(past, self.n_clients))

    @functools.cached_property
    def popularity(self) -> Int64[np.ndarray, " items"]:
        """How many of the clients that train have each item in their train split."""
        if self.counted is not None:
            return self.counted
        return np.bincount(self.items, minlength=self.n_items)

    def warm(self, split: str) -> Bool[np.ndarray, " clients"]:
        """Clients whose held-out item in "valid" or "test" is a train item of some client."""
        target = getattr(self, split)
        return (target >= 0) & (self.popularity[target] > 0)

    def only(self, clients: range) -> "Interactions":
        """With the train items of these clients only."""
        first, past = self.offsets[[clients.start, clients.stop]]
        return replace(
            self,
            items=self.items[first:past].copy(),
            first=clients.start,
            counted=self.popularity,
        )

    def starts(self, clients: Int[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Where the train items of some of the `own` clients begin in `items`."""
        return self.offsets[clients] - self.offsets[self.first]


@dataclass(frozen=True)
class Catalogue:
    """Frozen vision-language features of the items, rows by item id; either may be missing."""

    image: Float[np.ndarray, "items image_width"] | None
    text: Float[np.ndarray, "items text_width"] | None


@dataclass(frozen=True)
class Planted:
    """What a generated population was made from, kept for analysis and never trained on.

    `preference[u]` are client u's weights of image, text and collaborative ID, summing to 1.
    """

    preference: Float[np.ndarray, "clients 3"]


@dataclass(frozen=True)
class Dataset:
    """A named data set: interactions, catalogue and, for a generated one, the planted truth.

    `notes` are sentences that a user should see about how the files were read.
    """

    name: str
    interactions: Interactions
    catalogue: Catalogue
    planted: Planted | None = None
    notes: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """SHA-256 over everything a run reads, so that a resumed run can refuse other data.

        It does not depend on the number of processes, which all have to ask for it.
        """
        digest = hashlib.sha256()
        data, catalogue = self.interactions, self.catalogue
        values = {
            "n_items": data.n_items,
            "offsets": data.offsets,
            "pairs": together.total(_mixed_pairs(data)),
            "valid": data.valid,
            "test": data.test,
            "image": catalogue.image,
            "text": catalogue.text,
        }
        for name, value in values.items():
            digest.update(name.encode())
            if isinstance(value, np.ndarray):
                digest.update(f"{value.dtype}{value.shape}".encode())
                digest.update(np.ascontiguousarray(value).data)
            else:
                digest.update(str(value).encode())
        return digest.hexdigest()


def _mixed_pairs(data: Interactions) -> UInt64[np.ndarray, "1"]:
    """The sum over train pairs of a scrambled (client, item), which can be added up over parts.

    Scrambled by the finalizer of SplitMix64 (Steele, Lea and Flood 2014).
    """
    total = np.zeros(1, np.uint64)
    own = data.own
    for start in range(own.start, own.stop, _CLIENTS_AT_ONCE):
        clients = np.arange(start, min(start + _CLIENTS_AT_ONCE, own.stop))
        first, past = data.offsets[[clients[0], clients[-1] + 1]] - data.offsets[data.first]
        x = np.repeat(clients, data.lengths[clients]).astype(np.uint64) << np.uint64(32)
        x |= data.items[first:past].astype(np.uint64)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        total += (x ^ (x >> np.uint64(31))).sum(dtype=np.uint64)
    return total


def from_pairs(
    users: Int64[np.ndarray, " interactions"],
    items: Int64[np.ndarray, " interactions"],
    valid: Int32[np.ndarray, " clients"],
    test: Int32[np.ndarray, " clients"],
    n_items: int,
) -> Interactions:
    """Pack train pairs (user, item), in any order, into `Interactions`."""
    order = np.lexsort((items, users))
    counts = np.bincount(users, minlength=len(valid))
    return Interactions(
        n_items=n_items,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        items=items[order].astype(np.int32),
        valid=valid,
        test=test,
    )
