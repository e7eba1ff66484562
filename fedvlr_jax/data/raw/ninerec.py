"""NineRec (Zhang et al., arXiv 2309.07705; github.com/westlake-repl/NineRec).

`<name>_pair.csv` without a header: item, user, timestamp. `<name>_item.csv` without a header: item,
Chinese title, English title (which is taken where there is one: CLIP reads English), and perhaps
more columns, which are not read. Pictures are named after the item: `<item>.jpg`.
"""

from pathlib import Path

from fedvlr_jax.data.raw.items import ItemTable
from fedvlr_jax.data.raw.lines import TextFile, find_one
from fedvlr_jax.data.raw.log import LogBuilder, Raw


def read(folder: Path) -> Raw:
    """Read the interactions and the titles.

    Raises:
        UserError: files missing or malformed, with file and line.
    """
    pairs = TextFile(find_one(folder, ("*_pair.csv",), "NineRec's interactions"))
    builder = LogBuilder()
    builder.begin(pairs)
    for line, row in pairs.rows(","):
        if len(row) != 3:
            raise pairs.refuse(line, f"{len(row)} cells, expected item, user, timestamp")
        item, user, time = row
        if line == 1 and time.strip() == "timestamp":
            names = [name.strip() for name in row]
            raise pairs.refuse(
                line, f"a header ({', '.join(names)}), expected item, user, timestamp without one"
            )
        builder.add(user, item, time, line)
    log = builder.log()
    texts = TextFile(find_one(folder, ("*_item.csv",), "NineRec's titles"))
    items, most = ItemTable(log), 0
    for line, row in texts.rows(","):
        most = most or max(len(row), 3)
        if not 2 <= len(row) <= most:
            raise texts.refuse(
                line,
                f"{len(row)} cells, expected item, title, English title, and no more than the "
                f"{most} of the first line",
            )
        item = items.find(texts, line, row[0])
        if item is not None:
            titles = (items.title(texts, line, text) for text in reversed(row[1:3]))
            items.add_title(item, next(filter(None, titles), ""))
    notes = (*pairs.notes, *texts.notes, *builder.notes, *items.finish([texts], pairs.path))
    return Raw(log, items.titles, files=(pairs.path, texts.path), notes=notes)
