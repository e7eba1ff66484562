"""Amazon reviews: JSON lines of reviews and of product metadata.

2023 edition (Hou et al., arXiv 2403.03952): `<Category>.jsonl` with `user_id`, `parent_asin`,
`timestamp` in milliseconds, and `meta_<Category>.jsonl` with `parent_asin`, `title`. 2018 edition
(Ni et al., EMNLP 2019): `<Category>_5.json` with `reviewerID`, `asin`, `unixReviewTime` in
seconds, and `meta_<Category>.json` with `asin`, `title`. Pictures are named after the item:
`<asin>.jpg`.
"""

from pathlib import Path
from typing import Any

from fedvlr_jax.data.raw.items import ItemTable
from fedvlr_jax.data.raw.lines import TextFile, find
from fedvlr_jax.data.raw.log import LogBuilder, Raw
from fedvlr_jax.errors import UserError

_PATTERNS = ("*.jsonl", "*.json")
_EDITIONS = {
    "2023": ("user_id", "parent_asin", "timestamp"),
    "2018": ("reviewerID", "asin", "unixReviewTime"),
}
_WANTED = {"title"}.union(*_EDITIONS.values())


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
    builder, notes, names = None, [], ()
    for path in reviews:
        file = TextFile(path)
        for number, (line, record) in enumerate(file.records(_WANTED)):
            if builder is None:
                names = _edition(file, line, record)
                builder = LogBuilder(names)
            if not number:
                builder.begin(file)
            user, item, time = (_field(file, line, record, name) for name in names)
            builder.add(user, item, time, line)
        notes += file.notes
    if builder is None:
        raise UserError(f"{reviews[0]}: no review, expected one in each line")
    log = builder.log()
    goods = ItemTable(log, names[1])
    products = [TextFile(path) for path in meta]
    for file in products:
        for line, record in file.records(_WANTED):
            item = goods.find(file, line, _field(file, line, record, names[1]))
            if item is not None:
                goods.add_title(item, goods.title(file, line, record.get("title")))
        notes += file.notes
    notes += builder.notes + goods.finish(products, reviews[0])
    return Raw(log, goods.titles, files=(*reviews, *meta), notes=tuple(notes))


def _edition(file: TextFile, line: int, record: dict[str, Any]) -> tuple[str, str, str]:
    for names in _EDITIONS.values():
        if all(name in record for name in names):
            return names
    expected = " or ".join(f"{', '.join(names)} ({year})" for year, names in _EDITIONS.items())
    raise file.refuse(line, f"fields {', '.join(record)}, expected {expected}")


def _field(file: TextFile, line: int, record: dict[str, Any], name: str) -> Any:
    if name not in record:
        raise file.refuse(line, f"no field {name}, found {', '.join(record)}")
    value = record[name]
    if isinstance(value, bool):  # Python takes it for 0 or 1
        raise file.refuse(line, f"{name} is {value}, expected an id or a time")
    return value
