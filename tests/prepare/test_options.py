import pytest

from fedvlr_jax.errors import UserError
from fedvlr_jax.prepare import PrepareConfig
from fedvlr_jax.prepare.options import leaves

CSV = {"source": "csv", "raw": "r", "user_column": "u", "item_column": "i", "time_column": "t"}
BARE = {"source": "csv", "raw": "r"}


def test_named_columns_have_defaults():
    config = PrepareConfig.of(**BARE, columns="user, item,, time")
    assert (config.user_column, config.item_column, config.time_column) == ("user", "item", "time")
    assert config.column_names() == ("user", "item", "", "time")
    assert PrepareConfig.of(**config.flat()) == config
    assert PrepareConfig.of(**CSV, columns="t,i,u").user_column == "u"
    assert PrepareConfig.of(**CSV).column_names() is None


def test_the_shop_has_defaults():
    config = PrepareConfig.of(source="rendered")
    assert (config.clients, config.items, config.preference_concentration) == (2000, 800, 0.3)
    assert PrepareConfig.of(**config.flat()) == config


def test_a_split_by_moments_has_a_share():
    config = PrepareConfig.of(source="rendered", split="global_time")
    assert config.held_out_share == 0.1
    assert PrepareConfig.of(**config.flat()) == config
    assert PrepareConfig.of(source="rendered").held_out_share is None


def test_every_setting_explains_itself():
    for leaf in leaves().values():
        assert leaf.metadata["help"].endswith(".")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "--source: missing, expected one of amazon, ninerec"),
        ({"source": "netflix"}, "--source=netflix: expected one of amazon"),
        ({"source": "amazon"}, "--raw: missing"),
        ({"source": "amazon", "raw": "r", "clients": 5}, "--clients=5: only --source=rendered"),
        ({"source": "amazon", "raw": "r", "user_column": "u"}, "only --source=csv takes it"),
        ({"source": "rendered", "raw": "r"}, "--raw=r: --source=rendered draws everything"),
        ({"source": "rendered", "images": "r"}, "--images=r"),
        ({"source": "rendered", "items": 3}, "--items=3: expected a whole number from 20 to"),
        ({"source": "rendered", "min_user_interactions": 2}, "from 3 to"),
        ({"source": "rendered", "precision": "float16"}, "one of float32, bfloat16"),
        ({"source": "rendered", "clip": ""}, "--clip=: expected"),
        ({"source": "rendered", "split": "random"}, "expected one of leave_one_out, global_time"),
        ({"source": "rendered", "held_out_share": 0.2}, "only --split=global_time takes it"),
        (
            {"source": "rendered", "split": "global_time", "held_out_share": 0.5},
            "between 0 and 0.5",
        ),
        ({"source": "rendered", "colour": 1}, "--colour: unknown setting"),
        ({"source": "mmrec", "raw": "r", "images": "i"}, "brings its own features"),
        (CSV | {"time_column": None}, "--time_column: missing"),
        (CSV | {"title_column": "t"}, "--title_column=t: --item_table is missing"),
        (CSV | {"item_table": "t"}, "--item_table=t: needs --title_column or"),
        (CSV | {"item_table": "t", "image_column": "p"}, "--image_column=p: its paths are below"),
        (CSV | {"item_column": "u"}, "--item_column=u: is also the --user_column"),
        (CSV | {"time_column": "u"}, "--time_column=u: is also the --user_column"),
        (CSV | {"columns": "u,i"}, "--columns=u,i: no column t, which --time_column names"),
        (CSV | {"columns": "u,i,t,u"}, "--columns=u,i,t,u: u appears twice"),
        (BARE | {"columns": ""}, "--columns=: no column user, which --user_column names"),
        (BARE | {"columns": "user,item,when"}, "no column time, which --time_column names"),
        ({"source": "ninerec", "raw": "r", "columns": "a"}, "--columns=a: only --source=csv takes"),
    ],
)
def test_contradictions_are_refused(settings, words):
    with pytest.raises(UserError) as caught:
        PrepareConfig.of(**settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
