"""One small shop's history, written in the exact format in which each source is published."""

import csv
import gzip
import json

import numpy as np

# (user, item, time); not in the order of time, one user and item twice, another one twice.
EVENTS = [
    (1, "f", 106), (1, "a", 101), (1, "b", 102), (1, "c", 103), (1, "d", 104), (1, "e", 105),
    (2, "a", 201), (2, "b", 202), (2, "c", 203), (2, "d", 204), (2, "e", 205),
    (3, "a", 301), (3, "b", 302), (3, "c", 303), (3, "d", 304), (3, "a", 305),
    (4, "c", 401), (4, "d", 402), (4, "e", 403), (4, "f", 404), (4, "g", 405),
    (1, "a", 107),
]  # fmt: skip
# After merging, users with fewer than 5 items dropped (user 3): what is kept.
KEPT = {"interactions": 16, "users": 3, "items": 7, "train": 10, "valid": 3, "test": 3}
MERGED = 2
# With items of fewer than 2 users dropped as well: g goes, so user 4 has 4, so f has 1 user.
KEPT_BOTH = {"interactions": 10, "users": 2, "items": 5, "train": 6, "valid": 2, "test": 2}
# The split that time gives: user -> (validation, test).
HELD_OUT = {1: ("e", "f"), 2: ("d", "e"), 4: ("f", "g")}
TITLES = {k: f"Thing number {k}, «{k}»" for k in "abcdef"}  # g has none


def _write(path, text, gz=False, encoding="utf-8"):
    data = text.encode(encoding)
    if gz:
        path = path.with_name(path.name + ".gz")
        data = gzip.compress(data)
    path.write_bytes(data)
    return path


def _lines(records):
    return "".join(json.dumps(record) + "\n" for record in records)


def amazon_2023(folder, gz=False):
    reviews = [
        {
            "rating": 5.0, "title": "Good", "text": "Nice\nthing", "images": [],
            "asin": f"V{item}", "parent_asin": f"B00{item}", "user_id": f"AE{user}",
            "timestamp": time * 1000, "helpful_vote": 0, "verified_purchase": True,
        }
        for user, item, time in EVENTS
    ]  # fmt: skip
    meta = [
        {
            "main_category": "All Beauty", "title": TITLES.get(item, ""), "average_rating": 4.8,
            "rating_number": 10, "features": [], "description": [], "price": None,
            "images": [{"thumb": "x", "large": "y", "variant": "MAIN", "hi_res": None}],
            "videos": [], "store": "S", "categories": [], "details": {},
            "parent_asin": f"B00{item}", "bought_together": None,
        }
        for item in "abcdefgh"
    ]  # fmt: skip
    _write(folder / "All_Beauty.jsonl", _lines(reviews), gz)
    _write(folder / "meta_All_Beauty.jsonl", _lines(meta), gz)
    return "AE{}", "B00{}"


def amazon_2018(folder, gz=False):
    reviews = [
        {
            "overall": 5.0, "verified": True, "reviewTime": "09 1, 2016", "reviewerID": f"A{user}",
            "asin": f"000{item}", "style": {"Size:": " 9"}, "reviewerName": "N", "reviewText": "T",
            "summary": "S", "unixReviewTime": time,
        }
        for user, item, time in EVENTS
    ]  # fmt: skip
    meta = [
        {"category": [], "title": title, "image": [], "brand": "", "asin": f"000{item}"}
        for item, title in TITLES.items()
    ]
    _write(folder / "All_Beauty_5.json", _lines(reviews), gz)
    _write(folder / "meta_All_Beauty.json", _lines(meta), gz)
    return "A{}", "000{}"


def ninerec(folder, gz=False):
    pairs = "".join(f"v{item},{user},{time}000\n" for user, item, time in EVENTS)
    items = "".join(f'v{item},标题 {item},"{title}"\n' for item, title in TITLES.items())
    _write(folder / "KU_pair.csv", pairs, gz)
    _write(folder / "KU_item.csv", items, gz)
    return "{}", "v{}"


def _number(item):
    return 100 + ord(item) - ord("a")


def movielens_small(folder, gz=False):
    ratings = "".join(f"{user},{_number(item)},4.5,{time}\n" for user, item, time in EVENTS)
    movies = "".join(f'{_number(item)},"{title}",Comedy|Drama\n' for item, title in TITLES.items())
    _write(folder / "ratings.csv", "userId,movieId,rating,timestamp\n" + ratings, gz)
    _write(
        folder / "movies.csv",
        f"movieId,title,genres\n{movies}{_number('g')},,(no genres listed)\n",
        gz,
    )
    return "{}", lambda item: str(_number(item))


def movielens_1m(folder, gz=False):
    ratings = "".join(f"{user}::{_number(item)}::5::{time}\n" for user, item, time in EVENTS)
    movies = "".join(f"{_number(item)}::{title}::Comedy|Drama\n" for item, title in TITLES.items())
    _write(folder / "ratings.dat", ratings, gz, "latin-1")
    _write(folder / "movies.dat", movies, gz, "latin-1")
    return "{}", lambda item: str(_number(item))


def mmrec(folder, gz=False):
    header = "userID\titemID\trating\ttimestamp\tx_label\n"
    rows = "".join(
        f"{user}\t{_number(item) - 100}\t1.0\t{time}\t{k % 3}\n"
        for k, (user, item, time) in enumerate(EVENTS)
    )
    _write(folder / "baby.inter", header + rows, gz)
    rng = np.random.default_rng(0)
    np.save(folder / "image_feat.npy", rng.random((8, 6)))
    np.save(folder / "text_feat.npy", rng.random((8, 5)).astype("f4"))
    return "{}", lambda item: str(_number(item) - 100)


def table(folder, gz=False):
    path = folder / "orders.tsv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["when", "buyer", "what", "note"])
        for user, item, time in EVENTS:
            when = f"2026-01-{time // 100:02d}T10:{time % 100:02d}:00+01:00"
            writer.writerow([when, f"u{user}", f"i{item}", 'said "yes"\nand left'])
    if gz:
        _write(path, path.read_text(encoding="utf-8"), gz)
        path.unlink()
    with open(folder / "goods.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["what", "name", "photo"])
        writer.writerows([f"i{item}", title, f"{item}/front.png"] for item, title in TITLES.items())
    return "u{}", "i{}"


SOURCES = {
    "amazon_2023": ("amazon", amazon_2023),
    "amazon_2018": ("amazon", amazon_2018),
    "ninerec": ("ninerec", ninerec),
    "movielens_small": ("movielens", movielens_small),
    "movielens_1m": ("movielens", movielens_1m),
    "mmrec": ("mmrec", mmrec),
    "csv": ("csv", table),
}
COLUMNS = {"user_column": "buyer", "item_column": "what", "time_column": "when"}


def name_of(pattern, key):
    return pattern(key) if callable(pattern) else pattern.format(key)
