"""What a data set is once it is read or generated: interactions, features, planted truth."""

import dataclasses
import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int32, Int64


@dataclass(frozen=True)
class Interactions:
    """Leave-one-out interactions of every client, in compressed rows (CSR).

    Client u's train items are `items[offsets[u]:offsets[u + 1]]`, ascending. `valid[u]` and
    `test[u]` are its held-out items, -1 where it has none.
    """

    n_items: int
    offsets: Int64[np.ndarray, " bounds"]
    items: Int32[np.ndarray, " interactions"]
    valid: Int32[np.ndarray, " clients"]
    test: Int32[np.ndarray, " clients"]

    @property
    def n_clients(self) -> int:
        """Number of clients U."""
        return len(self.valid)

    @property
    def lengths(self) -> Int64[np.ndarray, " clients"]:
        """Number of train items of each client."""
        return np.diff(self.offsets)

    @property
    def popularity(self) -> Int64[np.ndarray, " items"]:
        """How many clients have each item in their train split."""
        return np.bincount(self.items, minlength=self.n_items)


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
        """SHA-256 over everything a run reads, so that a resumed run can refuse other data."""
        digest = hashlib.sha256()
        for part in (self.interactions, self.catalogue):
            for leaf in dataclasses.fields(part):
                value = getattr(part, leaf.name)
                digest.update(leaf.name.encode())
                if isinstance(value, np.ndarray):
                    digest.update(f"{value.dtype}{value.shape}".encode())
                    digest.update(np.ascontiguousarray(value).data)
                else:
                    digest.update(str(value).encode())
        return digest.hexdigest()


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
