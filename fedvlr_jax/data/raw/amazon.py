"""Amazon reviews: JSON lines of reviews and of product metadata.

2023 edition (Hou et al., arXiv 2403.03952): `<Category>.jsonl` with `user_id`, `parent_asin`,
`timestamp` in milliseconds, and `meta_<Category>.jsonl` with `parent_asin`, `title`. 2018 edition
(Ni et al., EMNLP 2019): `<Category>_5.json` with `reviewerID`, `asin`, `unixReviewTime` in
seconds, and `meta_<Category>.json` with `asin`, `title`. Pictures are named after the item:
`<asin>.jpg`.
"""

from pathlib import Path
from typing import Any

from fedvlr_jax.data.raw.lines import TextFile, find
from fedvlr_jax.data.raw.types import LogBuilder, Raw
from fedvlr_jax.data.text import plain
from fedvlr_jax.errors import UserError

_PATTERNS = ("*.jsonl", "*.json")
_EDITIONS = {
    "2023": ("user_id", "parent_asin", "timestamp"),
    "2018": ("reviewerID", "asin", "unixReviewTime"),
}


def read(folder: Path) -> Raw:
    """Read the reviews and the titles of the products that were reviewed.

    Raises:
        UserError: files missing or malformed, with file and line.
    """
    files = find(folder, _PATTERNS, "Amazon reviews")
    meta = [path for path in files if path.name.startswith("meta")]
    reviews = [path for path in files if path not in meta]
    for found, what in ((reviews, "reviews"), (meta, "meta_* file with the titles")):
        if not found:
            names = ", ".join(path.name for path in files)
            raise UserError(f"--raw={folder}: no {what} there, found only {names}")
    builder, notes, edition = LogBuilder(), [], None
    for path in reviews:
        file = TextFile(path)
        for line, record in file.records():
            edition = edition or _edition(file, line, record)
            user, item, time = (_field(file, line, record, name) for name in _EDITIONS[edition])
            names = _EDITIONS[edition]
            builder.add(
                file.identifier(line, names[0], user),
                file.identifier(line, names[1], item),
                file.number(line, names[2], time),
            )
        notes += file.notes
    titles = {}
    item_name = _EDITIONS[edition or "2023"][1]
    for path in meta:
        file = TextFile(path)
        for line, record in file.records():
            item = file.identifier(line, item_name, _field(file, line, record, item_name))
            title = record.get("title")
            if item in builder and isinstance(title, str) and plain(title):
                titles.setdefault(item, plain(title))
        notes += file.notes
    return Raw(builder.log(), titles, files=(*reviews, *meta), notes=tuple(notes))


def _edition(file: TextFile, line: int, record: dict[str, Any]) -> str:
    for edition, names in _EDITIONS.items():
        if all(name in record for name in names):
            return edition
    expected = " or ".join(f"{', '.join(names)} ({year})" for year, names in _EDITIONS.items())
    raise file.refuse(line, f"fields {', '.join(record)}, expected {expected}")


def _field(file: TextFile, line: int, record: dict[str, Any], name: str) -> Any:
    if name not in record:
        raise file.refuse(line, f"no field {name}, found {', '.join(record)}")
    return record[name]
