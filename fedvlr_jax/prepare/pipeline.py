"""Prepare a data set: read, select, encode, write. After a kill it continues."""

import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedvlr_jax import files, numerics
from fedvlr_jax.data.layout import TEST, VALID
from fedvlr_jax.data.pictures import PictureFolder
from fedvlr_jax.data.raw import amazon, csv_table, mmrec, movielens, ninerec
from fedvlr_jax.data.raw.log import Raw
from fedvlr_jax.data.raw.select import select, written
from fedvlr_jax.data.shop.source import open_shop
from fedvlr_jax.errors import UserError
from fedvlr_jax.prepare import summary as summaries
from fedvlr_jax.prepare.claim import claimed
from fedvlr_jax.prepare.encoding import Encoding
from fedvlr_jax.prepare.options import PrepareConfig
from fedvlr_jax.prepare.tables import write_tables
from fedvlr_jax.reporter import Reporter, Silent
from fedvlr_jax.settings import FOLDER, argument

_READERS: dict[str, Callable[[Path], Raw]] = {
    "amazon": amazon.read,
    "ninerec": ninerec.read,
    "movielens": movielens.read,
    "mmrec": mmrec.read,
}


@dataclass(frozen=True)
class Prepared:
    """A finished data set: the content of `dataset.json`, and its folder."""

    summary: dict[str, Any]
    out: Path


@numerics.as_written()
def prepare(
    config: PrepareConfig, out: str | Path | None = None, reporter: Reporter | None = None
) -> Prepared:
    """Make a folder in the MMRec layout (docs/data.md) from raw files or a generated shop.

    Args:
        config: from `PrepareConfig.of`.
        out: the folder; `data/<source>` by default. An unfinished preparation there with the same
            settings continues, and a finished one is returned unchanged.
        reporter: told about progress; silent by default.

    Raises:
        UserError: raw files that are missing or malformed, an encoder that cannot be loaded, a
            folder that holds something else.
    """
    if not isinstance(config, PrepareConfig):
        raise UserError(
            f"--config={reprlib.repr(config)}: expected what PrepareConfig.of(...) makes"
        )
    reporter = reporter or Silent()
    out = Path("data") / config.source if out is None else argument("out", Path, FOLDER, out)
    with claimed(out, config.flat()) as finished:
        if finished is not None:
            _refuse_changes(out, finished)
            reporter.note(f"{out}: this data set is finished, nothing to do")
            return Prepared(finished, out)
        summary = _prepare(config, out, reporter)
        files.write_json(out / "dataset.json", summary)
    return Prepared(summary, out)


def _refuse_changes(out: Path, finished: dict[str, Any]) -> None:
    """Refuse a finished data set if one of its raw files has changed since."""
    for made_from in finished["raw_files"]:
        path = Path(made_from["path"])
        if path.is_file() and files.sha256(path) != made_from["sha256"]:
            raise UserError(
                f"--out={out}: {path} has changed since this data set was made from it, expected "
                "another folder"
            )


def _prepare(config: PrepareConfig, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Make all files except dataset.json, and return its content."""
    _check_folders(config)
    encoding = Encoding(config, out, reporter) if _encodes(config) else None
    raw, pictures = _read(config, out)
    for note in raw.notes:
        reporter.note(note)
    chosen = select(
        raw.log,
        config.min_user_interactions,
        config.min_item_interactions,
        config.split,
        config.held_out_share or 0.0,
    )
    reporter.note(
        f"{len(raw.log.user):,} interactions read, {chosen.merged:,} repeats merged; kept "
        f"{len(chosen.user):,} of {len(chosen.user_code):,} users with "
        f"{len(chosen.item_code):,} items"
    )
    if chosen.tied:
        beside = "after" if chosen.moments else "before"
        reporter.note(
            f"{chosen.tied:,} of {len(chosen.user_code):,} users have a validation or test item at "
            f"the same time as the item {beside} it; of equal times, the row that stands later in "
            "the file counts as later"
        )
    if chosen.moments:
        valid, test = map(written, chosen.moments)
        held = [int((chosen.split == label).sum()) for label in (VALID, TEST)]
        reporter.note(
            f"validation begins at {valid} and test at {test}; {held[0]:,} users have a validation "
            f"item and {held[1]:,} a test item; {chosen.untrained:,} users without an earlier "
            f"interaction and {chosen.unused:,} interactions after a held-out one are left out"
        )
    items = [raw.log.items[code] for code in chosen.item_code]
    titles = _titles(raw, items)
    summary = summaries.counts(config, raw, chosen) | {
        "encoder": None,
        "images": None,
        "titles": None,
    }
    where: list[str | None] = [None] * len(items)
    for modality, rows in raw.features.items():
        files.write_array(out / f"{modality}_features.npy", rows[chosen.item_code])
    if encoding is not None and pictures is not None:
        where = _locate(config, raw, pictures, items)
        there = encoding.images(pictures, where)
        summary["images"] = summaries.of_pictures(
            out, pictures, raw.pictures, items, where, there, reporter
        )
        where = [name if ok else None for name, ok in zip(where, there, strict=True)]
    if encoding is not None and titles is not None:
        encoding.texts(titles)
        summary["titles"] = summaries.of_titles(titles, reporter)
    if summary["images"] or summary["titles"]:
        summary["encoder"] = encoding.model.describe()
    if not raw.features and pictures is None:
        reporter.note("no pictures (--images), so no image features")
    if not raw.features and titles is None:
        reporter.note("no titles, so no text features")
    write_tables(out, raw, chosen, items, where)
    return summary


def _check_folders(config: PrepareConfig) -> None:
    """Refuse a wrong folder before the encoder is loaded."""
    if config.raw and not Path(config.raw).exists():
        raise UserError(f"--raw={config.raw}: no such folder")
    if config.item_table and not Path(config.item_table).is_file():
        raise UserError(f"--item_table={config.item_table}: no such file")
    if config.images:
        PictureFolder(Path(config.images))


def _encodes(config: PrepareConfig) -> bool:
    """Whether the source may bring anything to encode."""
    bare_log = config.source == "csv" and not config.images and not config.title_column
    return config.source != "mmrec" and not bare_log


def _read(config: PrepareConfig, out: Path) -> tuple[Raw, PictureFolder | None]:
    """The raw data, and where its pictures are."""
    if config.source == "rendered":
        shop = open_shop(config.clients, config.items, config.preference_concentration, config.seed)
        shop.draw_pictures(out / "images")
        return shop.raw, PictureFolder(out / "images")
    pictures = PictureFolder(Path(config.images)) if config.images else None
    raw = Path(config.raw)
    if config.source == "csv":
        columns = csv_table.Columns(
            config.user_column,
            config.item_column,
            config.time_column,
            config.title_column,
            config.image_column,
            config.column_names(),
        )
        item_table = Path(config.item_table) if config.item_table else None
        return csv_table.read(raw, columns, item_table), pictures
    return _READERS[config.source](raw), pictures


def _titles(raw: Raw, items: list[str]) -> list[str | None] | None:
    if raw.titles is None:
        return None
    titles = [raw.titles.get(item) for item in items]
    return titles if any(titles) else None


def _locate(
    config: PrepareConfig, raw: Raw, pictures: PictureFolder, items: list[str]
) -> list[str | None]:
    where = pictures.locate(raw.pictures, items)
    if not any(where):
        named = next(iter((raw.pictures or {}).values()), f"{items[0]}.jpg")
        raise UserError(
            f"--images={config.images}: none of the {len(items)} items has a picture there, "
            f"expected files like {named}"
        )
    return where
