"""NineRec (Zhang et al., arXiv 2309.07705; github.com/westlake-repl/NineRec).

`<name>_pair.csv` without a header: item, user, timestamp. `<name>_item.csv` without a header: item,
Chinese title, English title (which is taken where there is one: CLIP reads English). Pictures are
named after the item: `<item>.jpg`.
"""

from pathlib import Path

from fedvlr_jax.data.raw.lines import TextFile, find_one
from fedvlr_jax.data.raw.types import LogBuilder, Raw
from fedvlr_jax.data.text import plain


def read(folder: Path) -> Raw:
    """Read the interactions and the titles.

    Raises:
        UserError: files missing or malformed, with file and line.
    """
    pairs = TextFile(find_one(folder, ("*_pair.csv",), "NineRec's interactions"))
    builder = LogBuilder()
    for line, row in pairs.rows(","):
        if len(row) != 3:
            raise pairs.refuse(line, f"{len(row)} cells, expected item, user, timestamp")
        item, user, time = row
        if line == 1 and time.strip() == "timestamp":
            names = [name.strip() for name in row]
            raise pairs.refuse(
                line, f"a header ({', '.join(names)}), expected item, user, timestamp without one"
            )
        builder.add(
            pairs.identifier(line, "the user", user),
            pairs.identifier(line, "the item", item),
            pairs.number(line, "the timestamp", time),
        )
    items = TextFile(find_one(folder, ("*_item.csv",), "NineRec's titles"))
    titles = {}
    for line, row in items.rows(","):
        if len(row) not in (2, 3):
            raise items.refuse(line, f"{len(row)} cells, expected item, title, English title")
        item = items.identifier(line, "the item", row[0])
        title = next((plain(text) for text in reversed(row[1:]) if plain(text)), "")
        if item in builder and title:
            titles.setdefault(item, title)
    return Raw(
        builder.log(),
        titles,
        files=(pairs.path, items.path),
        notes=(*pairs.notes, *items.notes),
    )
