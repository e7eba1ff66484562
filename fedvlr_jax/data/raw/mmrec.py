"""MMRec (github.com/enoche/MMRec): a table of interactions with ready-made features.

`<name>.inter` (tabs) or `inter.csv` (commas) with `userID`, `itemID`, `timestamp`, and
`image_feat.npy` / `text_feat.npy` (or `*_features.npy`) with a row per `itemID`. The split that
the table may hold is not used: the data set is split anew by time, leave-one-out.
"""

from pathlib import Path

import numpy as np

from fedvlr_jax.data.features import find_features, refuse_transposed
from fedvlr_jax.data.raw.lines import TextFile, find_one
from fedvlr_jax.data.raw.log import LogBuilder, Raw
from fedvlr_jax.data.text import shown
from fedvlr_jax.errors import UserError

_COLUMNS = ("userID", "itemID", "timestamp")


def read(folder: Path) -> Raw:
    """Read interactions and features.

    Raises:
        UserError: files missing or malformed, with file and line, or an item without a row.
    """
    path = find_one(folder, ("*.inter", "inter.csv"), "MMRec's interactions")
    found = find_features(folder)
    if not found:
        raise UserError(
            f"--raw={folder}: no image_feat.npy or text_feat.npy there, expected at least one"
        )
    n_rows = next(array.shape[0] for array in found.values())
    file, builder = TextFile(path), LogBuilder(_COLUMNS)
    builder.begin(file)
    delimiter = "," if path.name.startswith("inter.csv") else "\t"
    if all(f"{name}:token" in file.top()[0] for name in ("user_id", "item_id")):
        raise file.refuse(
            1,
            "the columns have RecBole's names, expected userID, itemID, timestamp; use "
            "--source=csv --user_column=user_id --item_column=item_id --time_column=timestamp",
        )
    for line, cells in file.table(delimiter, _COLUMNS):
        builder.add(*cells, line)
    log = builder.log()
    for code, item in enumerate(log.items):
        if not (item.isdecimal() and len(item) < 20 and str(int(item)) == item) or (
            int(item) >= n_rows
        ):
            raise builder.refuse(
                int((log.item == code).argmax()),
                f"itemID is {shown(item)}, expected a whole number below the {n_rows} feature rows",
            )
    row_of = np.array(log.items, np.int64)
    refuse_transposed(found, int(row_of.max()) + 1)
    features = {modality: array.read()[row_of] for modality, array in found.items()}
    notes = (*file.notes, *builder.notes)
    read_files = (path, *(array.path for array in found.values()))
    return Raw(log, titles=None, features=features, files=read_files, notes=notes)
