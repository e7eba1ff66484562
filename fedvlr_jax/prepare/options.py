"""The settings of a preparation, checked once, here."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from fedvlr_jax import names
from fedvlr_jax.data.raw.select import GLOBAL_TIME, LEAVE_ONE_OUT, SMALLEST_HISTORY, SPLITS
from fedvlr_jax.errors import UserError
from fedvlr_jax.settings import (
    AT_LEAST_ONE,
    AT_LEAST_ZERO,
    FILE,
    POSITIVE,
    SEED,
    Role,
    at_least,
    checked,
    choice,
    path_setting,
    setting,
)

SOURCES = ("amazon", "ninerec", "movielens", "mmrec", "csv", "rendered")
_CSV_COLUMNS = ("user_column", "item_column", "time_column")
_CSV_ITEMS = ("item_table", "title_column", "image_column", "columns")
_COLUMN_DEFAULTS = dict(zip(_CSV_COLUMNS, ("user", "item", "time"), strict=True))  # of --columns
_HELD_OUT_SHARE = 0.1
_RENDERED_DEFAULTS = {"clients": 2000, "items": 800, "preference_concentration": 0.3}


@dataclass(frozen=True)
class PrepareConfig:
    """What to read, how to filter it, and what to encode it with."""

    source: str | None = choice(
        None, "Format of the raw data. With rendered nothing is read: a shop is generated.", SOURCES
    )
    raw: str | None = path_setting(
        None,
        "Folder of the raw files, which may be compressed (.gz). With --source=csv it may "
        "be the table itself.",
    )
    images: str | None = path_setting(
        None,
        "Folder of the items' pictures. A picture is named after its item (B000123.jpg), "
        "or as --image_column says. Without this flag there are no image features.",
    )
    clip: str = path_setting(
        "openai/clip-vit-base-patch32",
        "Frozen encoder: a local folder or the hub id of a CLIP. random:tiny and "
        "random:vit-b-32 have random weights, for trying things out.",
        (lambda v: v != "", "a folder, a hub id or random:tiny"),
    )
    precision: str = choice(
        "float32",
        "Type of the numbers that the encoder holds and computes with.",
        names.PRECISIONS,
    )
    batch: int = setting(
        64,
        "Number of pictures or texts that are encoded at the same time, over all devices.",
        AT_LEAST_ONE,
        Role.LAYOUT,  # rows of another batch shape may be rounded otherwise
    )
    workers: int = setting(
        0,
        "Number of threads that decode pictures. 0 means one for each core, 16 at most.",
        AT_LEAST_ZERO,
        Role.LAYOUT | Role.RESUMED,
    )
    min_user_interactions: int = setting(
        5,
        "Smallest number of different items of a user, 3 at least. Users with fewer are left out.",
        at_least(SMALLEST_HISTORY),
    )
    min_item_interactions: int = setting(
        0,
        "Smallest number of users of an item. Items with fewer are left out; 0 means that "
        "no item is.",
        AT_LEAST_ZERO,
    )
    split: str = choice(
        LEAVE_ONE_OUT,
        "What is held out. leave_one_out: every user's last interaction for test, and the one "
        "before for validation; global_time: validation and test begin at the same moments for all "
        "users, a user's first interaction in either time is held out, and users without an "
        "earlier one are left out.",
        SPLITS,
    )
    held_out_share: float | None = setting(
        None,
        "Split global_time: share of all interactions, the newest, that are in the time of test; "
        "as many before them are in that of validation; default 0.1.",
        (lambda v: 0 < v < 0.5, "a number between 0 and 0.5"),
    )
    columns: str | None = setting(
        None,
        "Source csv: names of all columns of a table without a header, separated by commas "
        "(user,item,time). The name of a column that is not read may be empty.",
    )
    user_column: str | None = setting(
        None, "Source csv: name of the column with the users' ids; default user with --columns."
    )
    item_column: str | None = setting(
        None, "Source csv: name of the column with the items' ids; default item with --columns."
    )
    time_column: str | None = setting(
        None,
        "Source csv: name of the column with the times, which are numbers or ISO 8601 "
        "dates; default time with --columns.",
    )
    item_table: str | None = path_setting(
        None,
        "Source csv: file with a table of items. It has the column --item_column, too.",
        FILE,
    )
    title_column: str | None = setting(
        None, "Source csv: name of the column in --item_table with the text."
    )
    image_column: str | None = setting(
        None,
        "Source csv: name of the column in --item_table with the picture's path below --images.",
    )
    clients: int | None = setting(
        None, "Source rendered: number of clients of the shop; default 2000.", AT_LEAST_ONE
    )
    items: int | None = setting(
        None, "Source rendered: number of items of the shop; default 800.", at_least(20)
    )
    preference_concentration: float | None = setting(
        None,
        "Source rendered: concentration of the Dirichlet distribution from which every "
        "client gets its preference over what it sees, what it reads and a hidden factor. "
        "With a small one, every client cares about one of them only; default 0.3.",
        POSITIVE,
    )
    seed: int = setting(0, "Seed of the rendered shop and of an encoder's random weights.", SEED)

    @classmethod
    def of(cls, **settings: Any) -> "PrepareConfig":
        """Validated settings.

        Raises:
            UserError: an unknown name, a value out of range, or settings that do not go together.
        """
        known = leaves()
        for name in settings:
            if name not in known:
                raise UserError(f"--{name}: unknown setting; the known ones are {', '.join(known)}")
        values = {name: checked(known[name], value) for name, value in settings.items()}
        return _resolved(cls(**values))

    def column_names(self) -> tuple[str, ...] | None:
        """The names in --columns; None without it."""
        if self.columns is None:
            return None
        return tuple(name.strip() for name in self.columns.split(","))

    def flat(self) -> dict[str, Any]:
        """All settings as one JSON-ready dictionary, named like the flags."""
        return dataclasses.asdict(self)


def leaves() -> dict[str, dataclasses.Field]:
    """Every setting by its flag name."""
    return {leaf.name: leaf for leaf in dataclasses.fields(PrepareConfig)}


def _resolved(config: PrepareConfig) -> PrepareConfig:
    """Fill in the defaults of the source, and refuse settings of other sources."""
    if not config.source:
        raise UserError(f"--source: missing, expected one of {', '.join(SOURCES)}")
    if config.split == GLOBAL_TIME:
        share = _HELD_OUT_SHARE if config.held_out_share is None else config.held_out_share
        config = dataclasses.replace(config, held_out_share=share)
    elif config.held_out_share is not None:
        raise UserError(
            f"--held_out_share={config.held_out_share}: only --split={GLOBAL_TIME} takes it"
        )
    rendered = config.source == "rendered"
    for source, own in (("rendered", _RENDERED_DEFAULTS), ("csv", _CSV_COLUMNS + _CSV_ITEMS)):
        for name in own:
            value = getattr(config, name)
            if value is not None and config.source != source:
                raise UserError(f"--{name}={value}: only --source={source} takes it")
    if rendered:
        for name in ("raw", "images"):
            if getattr(config, name) is not None:
                raise UserError(
                    f"--{name}={getattr(config, name)}: --source=rendered draws everything itself"
                )
        given = {name: getattr(config, name) for name in _RENDERED_DEFAULTS}
        filled = {k: _RENDERED_DEFAULTS[k] if v is None else v for k, v in given.items()}
        return dataclasses.replace(config, **filled)
    if not config.raw:
        raise UserError(f"--raw: missing, expected the folder of the {config.source} files")
    if config.source == "mmrec" and config.images is not None:
        raise UserError(f"--images={config.images}: --source=mmrec brings its own features")
    if config.source == "csv":
        config = _with_columns(config)
        for name in ("title_column", "image_column"):
            if getattr(config, name) and not config.item_table:
                raise UserError(f"--{name}={getattr(config, name)}: --item_table is missing")
        if config.item_table and not (config.title_column or config.image_column):
            raise UserError(
                f"--item_table={config.item_table}: needs --title_column or --image_column"
            )
        if config.image_column and not config.images:
            raise UserError(
                f"--image_column={config.image_column}: its paths are below --images, which is "
                "missing"
            )
    return config


def _with_columns(config: PrepareConfig) -> PrepareConfig:
    """Name the columns of source csv, and refuse names that do not go together."""
    names = config.column_names()
    if names is not None:
        for name in filter(None, names):
            if names.count(name) > 1:
                raise UserError(
                    f"--columns={config.columns}: {name} appears twice, expected it once"
                )
        given = {leaf: getattr(config, leaf) or name for leaf, name in _COLUMN_DEFAULTS.items()}
        config = dataclasses.replace(config, **given)
    places: dict[str, str] = {}
    for leaf in _CSV_COLUMNS:
        name = getattr(config, leaf)
        if not name:
            raise UserError(f"--{leaf}: missing, --source=csv needs the column's name")
        if names is not None and name not in names:
            raise UserError(f"--columns={config.columns}: no column {name}, which --{leaf} names")
        if places.setdefault(name, leaf) != leaf:
            raise UserError(
                f"--{leaf}={name}: is also the --{places[name]}, expected another column"
            )
    return config
