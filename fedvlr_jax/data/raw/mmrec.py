"""MMRec (github.com/enoche/MMRec): a table of interactions with ready-made features.

`<name>.inter` (tabs) or `inter.csv` (commas) with `userID`, `itemID`, `timestamp`, and
`image_feat.npy` / `text_feat.npy` (or `*_features.npy`) with a row per `itemID`. The split that
the table may hold is not used: the data set is split anew by time, leave-one-out.
"""

from pathlib import Path

import numpy as np

from fedvlr_jax.data.features import read_features
from fedvlr_jax.data.raw.lines import TextFile, find_one
from fedvlr_jax.data.raw.types import LogBuilder, Raw
from fedvlr_jax.errors import UserError

_COLUMNS = ("userID", "itemID", "timestamp")


def read(folder: Path) -> Raw:
    """Read interactions and features.

    Raises:
        UserError: files missing or malformed, with file and line, or an item without a row.
    """
    path = find_one(folder, ("*.inter", "inter.csv"), "MMRec's interactions")
    arrays, sources = {}, []
    for modality in ("image", "text"):
        for name in (f"{modality}_feat.npy", f"{modality}_features.npy"):
            rows = read_features(folder / name)
            if rows is not None and modality not in arrays:
                arrays[modality] = rows
                sources.append(folder / name)
    if not arrays:
        raise UserError(
            f"--raw={folder}: no image_feat.npy or text_feat.npy there, expected at least one"
        )
    n_rows = min(len(rows) for rows in arrays.values())
    file, builder = TextFile(path), LogBuilder()
    for line, (user, item, time) in file.table(
        "," if path.name.startswith("inter.csv") else "\t", _COLUMNS
    ):
        if not (item.isdecimal() and len(item) < 20 and int(item) < n_rows):
            raise file.refuse(
                line,
                f"itemID is {item[:40]!r}, expected a whole number below the {n_rows} feature rows",
            )
        builder.add(
            file.identifier(line, "userID", user),
            str(int(item)),
            file.number(line, "timestamp", time),
        )
    log = builder.log()
    row_of = np.array(log.items, np.int64)
    features = {modality: rows[row_of] for modality, rows in arrays.items()}
    return Raw(log, titles=None, features=features, files=(path, *sources), notes=tuple(file.notes))
