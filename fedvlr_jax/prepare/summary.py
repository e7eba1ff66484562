"""The content of dataset.json."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from fedvlr_jax import files
from fedvlr_jax.data.layout import TEST, VALID
from fedvlr_jax.data.pictures import PictureError, PictureFolder, quiet_decoders
from fedvlr_jax.data.raw.log import Raw
from fedvlr_jax.data.raw.select import GLOBAL_TIME, LEAVE_ONE_OUT, Selection
from fedvlr_jax.errors import UserError
from fedvlr_jax.prepare.encoding import NO_TITLE
from fedvlr_jax.prepare.options import PrepareConfig
from fedvlr_jax.reporter import Reporter
from fedvlr_jax.version import __version__

_TOLD = 5  # unusable pictures that are named in a note
_LISTED = 100  # and in dataset.json
_SPLITS = {
    LEAVE_ONE_OUT: "leave-one-out by time: last interaction test, the one before validation",
    GLOBAL_TIME: "by moments that all users share: before validation begins train, a user's first "
    "interaction from then on validation, its first one after test begins test",
}


def counts(config: PrepareConfig, raw: Raw, chosen: Selection) -> dict[str, Any]:
    """Source, settings and filters, and how much was read and kept."""
    log = raw.log
    return {
        "version": __version__,
        "source": config.source,
        "settings": config.flat(),
        "read": {
            "interactions": len(log.user),
            "users": len(log.users),
            "items": len(log.items),
        },
        "filters": {
            "merged_repeats": chosen.merged,
            "min_user_interactions": config.min_user_interactions,
            "min_item_interactions": config.min_item_interactions,
        },
        "kept": {
            "interactions": len(chosen.user),
            "users": len(chosen.user_code),
            "items": len(chosen.item_code),
            "train": int((chosen.split < VALID).sum()),
            "valid": int((chosen.split == VALID).sum()),
            "test": int((chosen.split == TEST).sum()),
        },
        "users_split_by_file_order": chosen.tied,
        "split": _SPLITS[config.split],
        "split_moments": chosen.moments
        and dict(zip(("valid", "test"), chosen.moments, strict=True)),
        "left_out_by_split": {"users": chosen.untrained, "interactions": chosen.unused},
        "raw_files": [
            {"path": str(path.resolve()), "sha256": files.sha256(path)} for path in raw.files
        ],
        "notes": list(raw.notes),
    }


def of_pictures(
    out: Path,
    pictures: PictureFolder,
    named: Mapping[str, str] | None,
    items: list[str],
    where: list[str | None],
    there: Bool[np.ndarray, " items"],
    reporter: Reporter,
) -> dict[str, Any]:
    """Counts of pictures that are missing or cannot be used, by reason, and the first ones."""
    named = named or {}
    with quiet_decoders():
        refused = [
            {"item": items[item], "picture": where[item], "reason": _reason(pictures, where[item])}
            for item in np.flatnonzero(~there)
            if where[item] is not None
        ]
    if not there.any():
        raise UserError(
            f"--images={pictures.folder}: none of the {len(refused)} pictures can be used, the "
            f"first is {refused[0]['picture']}: {refused[0]['reason']}"
        )
    missing = sum(name is None for name in where)
    gone = [
        named[item] for item, name in zip(items, where, strict=True) if not name and item in named
    ]
    if gone:
        reporter.note(
            f"{len(gone):,} pictures that are named are not there, the first is {gone[0]}"
        )
    for one in refused[:_TOLD]:
        reporter.note(f"{one['picture']}: {one['reason']}; it counts as missing")
    if len(refused) > _TOLD:
        reporter.note(f"and {len(refused) - _TOLD} more pictures that are of no use")
    replaced = missing + len(refused)
    if replaced:
        reporter.note(
            f"{replaced:,} of {len(items):,} items ({100 * replaced / len(items):.1f} %) have no "
            "usable picture and get the mean image feature"
        )
    inside = pictures.folder.resolve().is_relative_to(out.resolve())
    return {
        "folder": str(pictures.folder.relative_to(out) if inside else pictures.folder.resolve()),
        "missing": missing,
        "unusable": len(refused),
        "missing_share": replaced / len(items),
        "reasons": {"no such file": len(gone), "none named": missing - len(gone)}
        | Counter(one["reason"].split(" (")[0] for one in refused),
        "first_unusable": refused[:_LISTED],
    }


def _reason(pictures: PictureFolder, name: str) -> str:
    """Why a picture cannot be used."""
    try:
        pictures.open(name)
    except PictureError as error:
        return str(error)
    return "could not be read when its turn came"


def of_titles(titles: list[str | None], reporter: Reporter) -> dict[str, Any]:
    """Count of titles that are missing."""
    missing = sum(not title for title in titles)
    if missing:
        reporter.note(
            f"{missing:,} of {len(titles):,} items ({100 * missing / len(titles):.1f} %) have no "
            f'title and get the text "{NO_TITLE}"'
        )
    return {"missing": missing, "missing_share": missing / len(titles)}
