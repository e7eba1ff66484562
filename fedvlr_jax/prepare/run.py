"""A whole preparation: read, select, encode, write. Killed, it goes on where it stopped."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool
from PIL import Image

from fedvlr_jax import files
from fedvlr_jax.data.folder import TEST, VALID
from fedvlr_jax.data.pictures import PictureError, PictureFolder, quiet_decoders
from fedvlr_jax.data.raw import amazon, mmrec, movielens, ninerec, table
from fedvlr_jax.data.raw.select import Selection, select
from fedvlr_jax.data.raw.types import Raw
from fedvlr_jax.data.shop.source import open_shop
from fedvlr_jax.errors import UserError
from fedvlr_jax.prepare.config import PrepareConfig
from fedvlr_jax.prepare.folder import claimed
from fedvlr_jax.report import Reporter, Silent
from fedvlr_jax.server import clip
from fedvlr_jax.server.encode import Encoder, Timing
from fedvlr_jax.server.rows import RowStore
from fedvlr_jax.version import __version__

NO_TITLE = "The title is missing."
_TOLD = 5  # unusable pictures that are named in a note
_LISTED = 100  # and in dataset.json
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


def prepare(
    config: PrepareConfig, out: str | Path | None = None, reporter: Reporter | None = None
) -> Prepared:
    """Make a folder in the MMRec layout (docs/data.md) from raw files or a generated shop.

    Args:
        config: from `PrepareConfig.of`.
        out: the folder; `data/<source>` by default. One that holds an unfinished preparation with
            the same settings is gone on with, a finished one is returned as it is.
        reporter: told about progress; silent by default.

    Raises:
        UserError: raw files that are missing or malformed, an encoder that cannot be loaded, a
            folder that holds something else.
    """
    reporter = reporter or Silent()
    out = Path("data") / config.source if out is None else Path(out)
    with claimed(out, config.flat()) as finished:
        if finished is not None:
            reporter.note(f"{out}: this data set is finished, nothing to do")
            return Prepared(finished, out)
        summary, stores = _prepare(config, out, reporter)
        files.write_json(out / "dataset.json", summary)
        for store in stores:
            store.remove()
    return Prepared(summary, out)


def _prepare(
    config: PrepareConfig, out: Path, reporter: Reporter
) -> tuple[dict[str, Any], list[RowStore]]:
    """Everything but dataset.json, which is returned, with the stores that are now done with."""
    _check_folders(config)
    encoding = _Encoding(config, out, reporter) if _encodes(config) else None
    raw, pictures = _read(config, out)
    for note in raw.notes:
        reporter.note(note)
    chosen = select(raw.log, config.min_user_interactions, config.min_item_interactions)
    reporter.note(
        f"{len(raw.log.user):,} interactions read, {chosen.merged:,} repeats merged; kept "
        f"{len(chosen.user):,} of {len(chosen.user_code):,} users with "
        f"{len(chosen.item_code):,} items"
    )
    items = [raw.log.items[code] for code in chosen.item_code]
    titles = _titles(raw, items)
    summary = _counts(config, raw, chosen) | {"encoder": None, "images": None, "titles": None}
    where: list[str | None] = [None] * len(items)
    stores: list[RowStore] = []
    for modality, rows in raw.features.items():
        files.write_array(out / f"{modality}_features.npy", rows[chosen.item_code])
    if encoding is not None and pictures is not None:
        where = _locate(config, raw, pictures, items)
        store, there = encoding.images(pictures, where)
        stores.append(store)
        summary["images"] = _pictures_summary(out, pictures, items, where, there, reporter)
        where = [name if ok else None for name, ok in zip(where, there, strict=True)]
    if encoding is not None and titles is not None:
        stores.append(encoding.texts(titles))
        summary["titles"] = _titles_summary(titles, reporter)
    if stores:
        summary["encoder"] = encoding.model.describe()
    if not raw.features and pictures is None:
        reporter.note("no pictures (--images), so no image features")
    if not raw.features and titles is None:
        reporter.note("no titles, so no text features")
    _write_tables(out, raw, chosen, items, where)
    return summary, stores


def _check_folders(config: PrepareConfig) -> None:
    """A mistyped folder should not wait for the encoder to be loaded."""
    if config.raw and not Path(config.raw).exists():
        raise UserError(f"--raw={config.raw}: no such folder")
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
        columns = table.Columns(
            config.user_column,
            config.item_column,
            config.time_column,
            config.title_column,
            config.image_column,
        )
        item_table = Path(config.item_table) if config.item_table else None
        return table.read(raw, columns, item_table), pictures
    return _READERS[config.source](raw), pictures


def _titles(raw: Raw, items: list[str]) -> list[str | None] | None:
    if raw.titles is None:
        return None
    titles = [raw.titles.get(item) for item in items]
    return titles if any(titles) else None


def _locate(
    config: PrepareConfig, raw: Raw, pictures: PictureFolder | None, items: list[str]
) -> list[str | None]:
    if pictures is None:
        return [None] * len(items)
    where = pictures.locate(raw.pictures, items)
    if not any(where):
        raise UserError(
            f"--images={config.images}: none of the {len(items)} items has a picture there, "
            f"expected files like {items[0]}.jpg"
        )
    return where


class _Encoding:
    """The encoder of a preparation, loaded once, and how its rows get on disk."""

    def __init__(self, config: PrepareConfig, out: Path, reporter: Reporter) -> None:
        self.model = clip.load(config.clip, config.precision, config.seed)
        self._config, self._out, self._reporter = config, out, reporter
        if not self.model.pretrained:
            reporter.note(
                f"warning: --clip={config.clip} has random weights; the features carry no "
                "pretrained knowledge and serve dry runs only"
            )

    def images(
        self, pictures: PictureFolder, where: list[str | None]
    ) -> tuple[RowStore, Bool[np.ndarray, " items"]]:
        """Write image_features.npy; which items have a picture that could be read."""

        def load(item: int) -> np.ndarray | None:
            name = where[item]
            try:
                return None if name is None else self.model.pixels(pictures.open(name))
            except PictureError:
                return None

        blank = self.model.pixels(Image.new("RGB", (16, 16)))
        with quiet_decoders():
            return self._encode(
                "image", self.model.embed_images, load, blank, pictures.states(where)
            )

    def texts(self, titles: list[str | None]) -> RowStore:
        """Write text_features.npy."""
        texts = [title or NO_TITLE for title in titles]
        store, _ = self._encode(
            "text",
            self.model.embed_texts,
            lambda item: self.model.tokens(texts[item]),
            self.model.tokens(""),
            texts,
        )
        return store

    def _encode(
        self,
        modality: str,
        embed: Callable,
        load: Callable[[int], np.ndarray | None],
        blank: np.ndarray,
        identity: list,
    ) -> tuple[RowStore, Bool[np.ndarray, " items"]]:
        """Encode what is not on disk yet; `identity` names every input."""
        key = hashlib.sha256(json.dumps(self.model.describe(), sort_keys=True).encode())
        for one in identity:
            key.update(repr(one).encode())
        store = RowStore(self._out / f"{modality}_features.npy", self.model.width, key.hexdigest())
        encoder = Encoder(embed, self.model.params, blank, self._config.batch, self._config.workers)
        done, count, timing = store.done, len(identity), Timing()
        if done:
            self._reporter.note(f"going on after {modality} {done:,}")
        self._reporter.begin(done, count, modality)
        for rows in encoder.rows(load, done, count, timing):
            store.append(rows)
            self._reporter.advance(store.done)
        self._reporter.end()
        if count > done:
            self._reporter.note(
                f"encoded {count - done:,} {modality}s, {(count - done) / timing.total:,.1f} a "
                f"second, devices waiting {100 * timing.idle / timing.total:.1f} % of the time"
            )
        return store, store.finish()


def _pictures_summary(
    out: Path,
    pictures: PictureFolder,
    items: list[str],
    where: list[str | None],
    there: Bool[np.ndarray, " items"],
    reporter: Reporter,
) -> dict[str, Any]:
    """Counts of pictures that are missing or of no use, by reason, and the first of them."""
    refused = []
    for item in np.flatnonzero(~there):
        if where[item] is not None:
            try:
                pictures.open(where[item])
                reason = "was unreadable"
            except PictureError as error:
                reason = str(error)
            refused.append({"item": items[item], "picture": where[item], "reason": reason})
    missing = sum(name is None for name in where)
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
        "reasons": dict(Counter(one["reason"].split(" (")[0] for one in refused)),
        "first_unusable": refused[:_LISTED],
    }


def _titles_summary(titles: list[str | None], reporter: Reporter) -> dict[str, Any]:
    missing = sum(not title for title in titles)
    if missing:
        reporter.note(
            f"{missing:,} of {len(titles):,} items ({100 * missing / len(titles):.1f} %) have no "
            f'title and get the text "{NO_TITLE}"'
        )
    return {"missing": missing, "missing_share": missing / len(titles)}


def _counts(config: PrepareConfig, raw: Raw, chosen: Selection) -> dict[str, Any]:
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
        "split": "leave-one-out by time: last interaction test, the one before validation",
        "notes": list(raw.notes),
    }


def _write_tables(
    out: Path, raw: Raw, chosen: Selection, items: list[str], where: list[str | None]
) -> None:
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
