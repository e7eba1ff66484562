"""Write the three tables of a data set: users, items and interactions."""

from pathlib import Path

import numpy as np
import pandas as pd

from fedvlr_jax import files
from fedvlr_jax.data.raw.log import Raw
from fedvlr_jax.data.raw.select import Selection


def write_tables(
    out: Path, raw: Raw, chosen: Selection, items: list[str], where: list[str | None]
) -> None:
    """Write users.csv, items.csv and inter.csv into `out`.

    Args:
        out: the folder.
        raw: as read.
        chosen: what is kept of it.
        items: original id of every item kept.
        where: path of every item's picture below the picture folder, None without one.
    """
    users = pd.DataFrame(
        {
            "userID": np.arange(len(chosen.user_code)),
            "original_id": [raw.log.users[code] for code in chosen.user_code],
            "interactions": np.bincount(chosen.user),
            **{
                name: [values[code] for code in chosen.user_code]
                for name, values in raw.user_columns.items()
            },
        }
    )
    titles = raw.titles or {}
    catalogue = pd.DataFrame(
        {
            "itemID": np.arange(len(items)),
            "original_id": items,
            "title": [titles.get(item, "") for item in items],
            "image": [name or "" for name in where],
        }
    )
    whole = (chosen.time == np.floor(chosen.time)).all()
    interactions = pd.DataFrame(
        {
            "userID": chosen.user,
            "itemID": chosen.item,
            "timestamp": chosen.time.astype(np.int64) if whole else chosen.time,
            "split_label": chosen.split,
        }
    )
    files.write_table(out / "users.csv", users)
    files.write_table(out / "items.csv", catalogue)
    files.write_table(out / "inter.csv", interactions)
