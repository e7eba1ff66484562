"""MovieLens (Harper and Konstan, 2015; grouplens.org/datasets/movielens).

The latest editions: `ratings.csv` (userId, movieId, rating, timestamp) and `movies.csv` (movieId,
title, genres) in UTF-8. The 1M edition: `ratings.dat` and `movies.dat`, cells apart by `::`, no
header, in Latin-1. Every rating is an interaction. An item's text is its title and genres. Posters,
if there are any, are named after the movie: `<movieId>.jpg`.
"""

from collections.abc import Iterator
from pathlib import Path

from fedvlr_jax.data.raw.lines import TextFile, find_one
from fedvlr_jax.data.raw.types import LogBuilder, Raw
from fedvlr_jax.data.text import plain

_RATINGS = ("userId", "movieId", "rating", "timestamp")
_MOVIES = ("movieId", "title", "genres")
_NO_GENRES = "(no genres listed)"


def read(folder: Path) -> Raw:
    """Read ratings as interactions, titles and genres.

    Raises:
        UserError: files missing or malformed, with file and line.
    """
    path = find_one(folder, ("ratings.csv", "ratings.dat"), "MovieLens ratings")
    end = ".dat" if ".dat" in path.suffixes else ".csv"
    builder = LogBuilder()
    ratings = _file(path)
    for line, (user, item, _, time) in _rows(ratings, _RATINGS):
        builder.add(
            ratings.identifier(line, "userId", user),
            ratings.identifier(line, "movieId", item),
            ratings.number(line, "timestamp", time),
        )
    movies = _file(find_one(folder, (f"movies{end}",), "MovieLens titles"))
    titles = {}
    for line, (movie, title, genres) in _rows(movies, _MOVIES):
        item = movies.identifier(line, "movieId", movie)
        known = "" if genres.strip() == _NO_GENRES else genres.strip().replace("|", ", ")
        text = ". ".join(part for part in (plain(title), plain(known)) if part)
        if item in builder and text:
            titles.setdefault(item, text)
    return Raw(
        builder.log(),
        titles,
        files=(ratings.path, movies.path),
        notes=(*ratings.notes, *movies.notes),
    )


def _file(path: Path) -> TextFile:
    return TextFile(path, "latin-1" if ".dat" in path.suffixes else "utf-8")


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
