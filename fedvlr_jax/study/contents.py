"""What a study's report says: its tables and figures in order, with what to know to read them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from fedvlr_jax.pages.sections import Figure, Section
from fedvlr_jax.study import figures, panels

_TEXTS: dict[str, tuple[str, str]] = {
    "data": (
        "Data (the paper's table 1)",
        "Leave-one-out by time: every user's last item is the test item, the one before is for "
        "validation. A user is warm if somebody has its test item in train, and cold if nobody "
        "has. What is popular says nothing about a cold item, and a ranking that happens to put "
        "unknown items first wins on cold users without learning anything, so read the warm "
        "columns first.",
    ),
    "accuracy": (
        "Accuracy (the paper's table 2)",
        "Test metrics in percent, mean and standard deviation over seeds, of the round with the "
        "best validation warm NDCG@50. Every combination of backbone and variant had the same "
        "search: all pairs of learning rates, one seed, chosen on validation. Centralized "
        "references see everybody's data.",
    ),
    "significance": (
        "Does personal fusion pay?",
        "Difference in NDCG@50 (points of percent) between fedvlr and mlp over warm test users, "
        "averaged over seeds and paired by user: 95 % bootstrap interval over users, and the "
        "p-value of a sign-flip permutation test.",
    ),
    "history_length": (
        "By history length",
        "Warm test users by their number of train items; mean and standard deviation over seeds. "
        "Numbers are in tables/history_length.csv.",
    ),
    "item_popularity": (
        "By popularity of the test item",
        "Test users by how many have their test item in train; 0 is a cold item. Numbers are in "
        "tables/item_popularity.csv.",
    ),
    "newcomers": (
        "Users who join after training",
        "A share of the users takes no part in training. Afterwards each fits its own router and "
        "head to its history, everything that the server learned held fixed. Accuracy over "
        "newcomers whose test item is in some member's train items, by local epochs of fitting. "
        "Numbers are in tables/newcomers.csv.",
    ),
    "parameters": (
        "Parameters of a client (the paper's table 3)",
        "In thousands. Private numbers never leave the device, received ones are the round's "
        "views and the backbone's network; the paper counts both.",
    ),
    "communication": (
        "Communication",
        "Kilobytes per client and round. In the paper's protocol a client uploads the gradients "
        "of all item embeddings and fusion parameters; here those of the views of the items that "
        "it touched, for histories of 5, 20 and 200 items.",
    ),
    "reliance": (
        "What users rely on (the paper's figure 2)",
        "Shares of image, text and ID in a user's scores under fedvlr: how far the scores move "
        "when a modality is taken out (docs/method.md, Reliance), and accuracy by activity.",
    ),
    "removal": (
        "Each modality removed (the paper's figure 3)",
        "fedvlr trained again without a modality, at the rates chosen with all of them.",
    ),
    "noise": (
        "Noise on gradients (the paper's table 4)",
        "fedvlr trained again with Gaussian noise of this standard deviation on the mean gradient "
        "of everything the server learns, at the rates chosen without. This is the paper's plain "
        "experiment, which gives no noise scale, and it is no guarantee of privacy: for that see "
        "--clip_norm and --noise_multiplier (docs/privacy.md).",
    ),
}


class _Drawn(NamedTuple):
    """A figure: the section it stands in, how it is drawn, and what it shows, in words."""

    section: str
    figure: Callable[..., None]
    alternative: str


# By the name of the table that is drawn.
_DRAWN = {
    "accuracy": _Drawn(
        "accuracy",
        figures.accuracy,
        "Bars of test NDCG@50 of warm users per backbone and variant, references as lines.",
    ),
    "curves": _Drawn(
        "accuracy",
        panels.curves,
        "Validation NDCG@50 over rounds, one panel per backbone, one line per variant.",
    ),
    "history_length": _Drawn(
        "history_length",
        partial(panels.by_group, column="group", label="train items; n: users"),
        "Test NDCG@50 by history length, one panel per backbone, one line per variant.",
    ),
    "item_popularity": _Drawn(
        "item_popularity",
        partial(panels.by_group, column="group", label="users who have the item; n: users"),
        "Test NDCG@50 by popularity of the test item, one panel per backbone, one line per "
        "variant.",
    ),
    "newcomers": _Drawn(
        "newcomers",
        partial(panels.by_group, column="epochs", label="local epochs of fitting"),
        "Test NDCG@50 of newcomers by epochs of fitting, one panel per backbone, one line per "
        "variant.",
    ),
    "reliance": _Drawn(
        "reliance",
        figures.reliance,
        "Distribution over users of the reliance on image, text and ID, and accuracy by activity.",
    ),
    "removal": _Drawn(
        "removal",
        figures.removal,
        "Bars of test NDCG@50 per backbone with nothing, image, text or ID removed.",
    ),
}
# Tables with a row per user, round or group are for figures and for whoever reads the CSV.
_LONG = ("reliance", "curves", "history_length", "item_popularity", "newcomers")


def draw(tables: dict[str, pd.DataFrame], folder: Path) -> None:
    """Draw every figure whose table is there into a folder that is there."""
    for name, drawn in _DRAWN.items():
        if name in tables:
            drawn.figure(tables[name], path=folder / f"{name}.png")


def sections(tables: dict[str, pd.DataFrame], folder: Path) -> list[Section]:
    """The report's sections: those whose tables are there, with the figures in `folder`."""
    found = []
    for name, (title, text) in _TEXTS.items():
        if name not in tables:
            continue
        drawn = tuple(
            Figure(folder / f"{other}.png", drawn.alternative)
            for other, drawn in _DRAWN.items()
            if drawn.section == name and (folder / f"{other}.png").is_file()
        )
        table, best, apart = None if name in _LONG else tables[name], (), None
        if name == "accuracy":
            best, apart = ("warm/hr@50", "warm/ndcg@50"), table["variant"] == "centralized"
        found.append(Section(title, text, table, drawn, best=best, apart=apart))
    return found
