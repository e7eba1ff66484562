"""MovieLens (Harper and Konstan, 2015; grouplens.org/datasets/movielens).

The latest editions: `ratings.csv` (userId, movieId, rating, timestamp) and `movies.csv` (movieId,
title, genres). The 1M and 10M editions: `ratings.dat` and `movies.dat`, cells apart by `::`, no
header. All are in UTF-8 but 1M, which is in Latin-1. Every rating is an interaction. An item's text
is its title and genres. Posters, if there are any, are named after the movie: `<movieId>.jpg`.
"""

from collections.abc import Iterator
from pathlib import Path

from fedvlr_jax.data.raw.items import ItemTable
from fedvlr_jax.data.raw.lines import TextFile, find_one
from fedvlr_jax.data.raw.log import LogBuilder, Raw
from fedvlr_jax.data.text import readable

_RATINGS = ("userId", "movieId", "rating", "timestamp")
_MOVIES = ("movieId", "title", "genres")
_FALLBACK = "latin-1"
_NO_GENRES = "(no genres listed)"


def read(folder: Path) -> Raw:
    """Read ratings as interactions, titles and genres.

    Raises:
        UserError: files missing or malformed, with file and line.
    """
    path = find_one(folder, ("ratings.csv", "ratings.dat"), "MovieLens ratings")
    end = ".dat" if ".dat" in path.suffixes else ".csv"
    builder = LogBuilder(("userId", "movieId", "timestamp"))
    ratings = TextFile(path, _FALLBACK)
    builder.begin(ratings)
    for line, (user, item, _, time) in _rows(ratings, _RATINGS):
        builder.add(user, item, time, line)
    log = builder.log()
    movies = TextFile(find_one(folder, (f"movies{end}",), "MovieLens titles"), _FALLBACK)
    items = ItemTable(log, "movieId")
    for line, (movie, title, genres) in _rows(movies, _MOVIES):
        item = items.find(movies, line, movie)
        if item is not None:
            named = "" if genres.strip() == _NO_GENRES else readable(genres.replace("|", ", "))[0]
            parts = (items.title(movies, line, title), named)
            items.add_title(item, ". ".join(filter(None, parts)))
    notes = (*ratings.notes, *movies.notes, *builder.notes, *items.finish([movies], path))
    return Raw(log, items.titles, files=(path, movies.path), notes=notes)


def _rows(file: TextFile, names: tuple[str, ...]) -> Iterator[tuple[int, list[str]]]:
    if ".dat" not in file.path.suffixes:
        yield from file.table(",", names)
        return
    for line, text in enumerate(file.lines(), 1):
        if text.isspace():
            continue
        cells = text.rstrip("\r\n").split("::")
        if len(cells) != len(names):
            expected = "::".join(names)
            raise file.refuse(line, f"{len(cells)} cells, expected {expected}")
        yield line, cells
