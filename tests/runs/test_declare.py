import inspect
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax.config import Config
from fedvlr_jax.errors import UserError
from fedvlr_jax.runs import declare
from fedvlr_jax.settings import ANY, SEEDS


def test_axes_are_lists_and_ranges():
    lines = ("clients=100,1000", "variant=fedvlr,mlp", "server_lr=log:1e-4:1e-1:4", "seed=0")
    assert declare.axes(lines) == {
        "clients": (100, 1000),
        "variant": ("fedvlr", "mlp"),
        "server_lr": (1e-4, 1e-3, 1e-2, 1e-1),
        "seed": (0,),
    }
    assert declare.axes(["clients=log:100:10000:3"]) == {"clients": (100, 1000, 10000)}
    assert declare.axes(["dropout=lin:0:0.5:3"]) == {"dropout": (0, 0.25, 0.5)}
    assert declare.axes(["views=sum,mlp|image"]) == {"views": ("sum,mlp", "image")}


@given(first=st.floats(1e-6, 1e3), factor=st.floats(1.5, 1e4), number=st.integers(2, 9))
def test_ranges_ascend_from_end_to_end(first, factor, number):
    (points,) = declare.axes([f"server_lr=log:{first!r}:{first * factor!r}:{number}"]).values()
    assert len(points) == number
    assert list(points) == sorted(points)
    assert points[0] == pytest.approx(first, rel=1e-5)
    assert points[-1] == pytest.approx(first * factor, rel=1e-5)


def test_all_combinations_are_run_the_last_axis_fastest():
    axes = {"variant": ("mlp", "id"), "seed": (0, 1, 2)}
    found = declare.configs({"rounds": 3}, axes)
    assert [(c.method.variant, c.schedule.seed) for c in found] == [
        (v, s) for v in ("mlp", "id") for s in range(3)
    ]
    assert {c.schedule.rounds for c in found} == {3}
    names = [declare.run_name(c, axes) for c in found]
    assert names[1] == "variant=mlp,seed=1"
    assert len(set(names)) == 6
    assert declare.run_name(found[0], {}) == "run"


@pytest.mark.parametrize(
    ("lines", "words", "right"),
    [
        (["colour=1"], "unknown setting colour", "--sweep="),
        (["server_lrr=1"], "unknown setting server_lrr", "--sweep=server_lr=0.01,0.1"),
        (["=1"], "unknown setting", "--sweep="),
        (["clients"], "has no values", "--sweep=clients=100,1000"),
        (["clients="], "has no values", "--sweep=clients=100,1000"),
        (["clients=10,,20"], "expected whole numbers", "--sweep=clients=100,1000"),
        (["variant=mlp,"], "a value is empty", "--sweep=variant=fedvlr,mlp"),
        (["clients=10,x"], "expected whole numbers", "--sweep=clients=100,1000"),
        (["clients=10,10"], "named twice", "--sweep=clients=100,1000"),
        (["clients=10", "clients=20"], "swept twice", "--sweep=clients=100,1000"),
        (
            ["server_lr=log:1e-1:1e-4:4"],
            "goes backwards",
            "--sweep=server_lr=log:1e-4:1e-1:4",
        ),
        (["server_lr=log:1:1:4"], "goes nowhere", "--sweep=server_lr=log:1e-4:1e-1:4"),
        (["server_lr=log:0:1:4"], "above 0", "--sweep=server_lr=log:1e-4:1e-1:4"),
        (["server_lr=log:1:2"], "first:last:number", "--sweep=server_lr=log:1e-4:1e-1:4"),
        (["server_lr=lin:1:2:1"], "at least 2 points", "--sweep=server_lr=lin:1e-4:1e-1:4"),
        (["clients=log:1:3:9"], "named twice", "--sweep=clients=100,1000"),
    ],
)
def test_a_bad_line_gets_a_sentence_with_a_right_one(lines, words, right):
    with pytest.raises(UserError) as caught:
        declare.axes(lines)
    sentence = str(caught.value)
    assert sentence.startswith(f"--sweep={lines[-1]}: ")
    assert words in sentence
    assert right in sentence
    # The line that is shown is a right one.
    shown = sentence.rpartition("--sweep=")[2]
    assert declare.axes([shown])


@pytest.mark.parametrize(
    "axes",
    [
        {"data": ("a/b", "a_b")},
        {"data": ("a,b", "a+b")},
        {"data": ("~/x", os.path.expanduser("~/x"))},
        {"preference_concentration": (None, 0.3)},
        {"views": ("sum,mlp", "sum, mlp")},
        {"modalities": (("image", "id"), "image,id")},
    ],
)
@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_no_run_takes_the_name_of_another(axes, seeds):
    with pytest.raises(UserError, match=r"^--sweep: two runs have the name .*, expected values"):
        declare.runs({}, {**axes, "seed": seeds})


@given(
    values=st.lists(st.text("a/_,+\u00e9\u6570 .", min_size=1, max_size=9), min_size=2, unique=True)
)
def test_every_run_is_there_or_told(values):
    names = {declare.run_name(Config.of(data=value), ["data"]) for value in values}
    if len(names) == len(values):
        found = declare.runs({}, {"data": tuple(values)})
        assert [config.data.data for config in found.values()] == values
    else:
        with pytest.raises(UserError, match="two runs have the name"):
            declare.runs({}, {"data": tuple(values)})


@pytest.mark.parametrize("letter", ["x", "\u00e9", "\u6570", "\U0001f600", "a\u0301"])
@pytest.mark.parametrize("length", [5, 90, 200, 5000])
def test_a_name_of_a_run_is_one_of_a_file(letter, length):
    texts = [letter * length, letter * length + "z"]
    names = [declare.run_name(Config.of(data=text), ["data"]) for text in texts]
    assert len(set(names)) == 2
    assert all(len(name.encode()) < 255 for name in names)
    if length == 5:
        assert names[0] == f"data={texts[0]}"


@pytest.mark.parametrize("style", ["|", ">", "|-", ">-"])
def test_a_block_of_text_has_no_line_end(tmp_path, style):
    found = declare.read(written(tmp_path, f"data: {style}\n  data/KU\nrounds: 3\n"))
    assert found.settings == {"data": "data/KU", "rounds": 3}


@pytest.mark.parametrize("values", ["mlp", 3, None, 0.5, iter([1]), True, object(), 3j, lambda: 3])
def test_values_from_python_are_in_a_list(values):
    with pytest.raises(UserError, match=r"^--sweep=seed: .*: expected a list of values, found"):
        inspect.unwrap(declare.configs)({}, {"seed": values})


@pytest.mark.parametrize("lines", [None, 3, [1], [None], [b"dim=1"], [["dim=1"]], b"dim=1", {}])
def test_lines_from_python_are_texts(lines):
    with pytest.raises(UserError, match=r"^--sweep=.*: expected lines like --sweep=server_lr="):
        inspect.unwrap(declare.axes)(lines)


def test_spaces_beside_commas_are_nothing():
    assert declare.axes(["variant=mlp, id", "dim=8, 16", "views=sum | mlp"]) == {
        "variant": ("mlp", "id"),
        "dim": (8, 16),
        "views": ("sum", "mlp"),
    }


def test_one_line_alone_is_a_line():
    assert declare.axes("clients=1,2") == {"clients": (1, 2)}


def test_what_is_set_is_not_swept():
    with pytest.raises(UserError, match="--rounds=3: rounds is swept as well"):
        declare.configs({"rounds": 3}, {"rounds": (1, 2)})


def written(folder, text):
    path = folder / "sweep.yaml"
    path.write_text(text)
    return path


def test_a_file_declares_the_same(tmp_path):
    found = declare.read(
        written(
            tmp_path,
            """
            rounds: 30
            views: [sum, mlp]
            seeds: 3
            sweep:
              clients: [100, 1000]
              server_lr: log:1e-4:1e-1:4
              client_lr: [1e-3, 0.1]
              modalities: [[image, id], "text,id"]
            """,
        ),
        others={"seeds": (int, SEEDS)},
    )
    assert found.settings == {"rounds": 30, "views": "sum,mlp"}
    assert found.others == {"seeds": 3}
    assert found.axes == {
        "clients": (100, 1000),
        "server_lr": (1e-4, 1e-3, 1e-2, 1e-1),
        "client_lr": (1e-3, 0.1),
        "modalities": ("image,id", "text,id"),
    }
    assert (
        len(
            declare.configs(
                found.settings | {"client_solver": "sgd"},
                found.axes | {"modalities": ("image,id",)},
            )
        )
        == 16
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rounds: [3", "not readable as YAML"),
        ("just text", "holds no settings"),
        ("", "holds no settings"),
        ("rounds: 3\nrounds: 4", "rounds appears twice"),
        ("sweep: {clients: [1], clients: [2]}", "clients appears twice"),
        ("colour: 3", "unknown setting colour"),
        ("sweep: [1]", "line 1: sweep is not a mapping"),
        ("sweep: {colour: [1]}", "unknown setting colour"),
        ("sweep: {clients: []}", "has no list of values"),
        ("sweep: {clients: 3}", "has no list of values"),
        ("sweep: {clients: [3, 3]}", "named twice"),
        ("rounds: 3\nsweep: {rounds: [1, 2]}", "is set and swept"),
    ],
)
def test_a_bad_file_gets_a_sentence(tmp_path, text, words):
    path = written(tmp_path, text)
    with pytest.raises(UserError) as caught:
        declare.read(path)
    assert str(caught.value).startswith(f"--config={path}: ")
    assert words in str(caught.value)
    assert "expected" in str(caught.value)


SPELLINGS = ["1e-3", "1E-3", "1.e-3", "+1.e-3", "0.001", ".001", "1_0e-4", "'1e-3'", "!!float 1e-3"]


@pytest.mark.parametrize("text", SPELLINGS)
@pytest.mark.parametrize("form", ["server_lr: {}", "sweep: {{server_lr: [{}]}}"])
def test_a_number_in_a_file_is_what_python_reads(tmp_path, text, form):
    found = declare.read(written(tmp_path, form.format(text)))
    assert {**found.settings, **found.axes} in ({"server_lr": 1e-3}, {"server_lr": (1e-3,)})


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e3", 1000), ("1E5", 100_000), ("50.0", 50), ("0123", 123), ("1_000", 1000), ("0x20", 32)],
)
def test_a_whole_number_in_a_file_is_what_python_reads(tmp_path, text, value):
    found = declare.read(written(tmp_path, f"clients: {text}\nsweep: {{items: [{text}, 99]}}"))
    assert found.settings == {"clients": value}
    assert found.axes == {"items": (value, 99)}


@pytest.mark.parametrize(
    "text", ["no", "on", "yes", "true", "2024", "2024-01-31", "0123", "1:30", "1e3", "nan", ".inf"]
)
def test_a_text_in_a_file_stays_what_it_is(tmp_path, text):
    found = declare.read(written(tmp_path, f"data: {text}\nout: {text}"), {"out": (str, ANY)})
    assert found.settings == {"data": text}
    assert found.others == {"out": text}


def test_nothing_in_a_file_is_the_default(tmp_path):
    found = declare.read(written(tmp_path, "clients: null\nviews: ~\nsweep:"))
    assert found.settings == {"clients": None, "views": None}
    assert declare.configs(found.settings, {})[0].data.clients == 1000


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: &a [1]", "line 1: unknown setting a"),
        (
            "rounds: 3\nserver_lr: abc",
            "line 2: server_lr=abc: expected a finite number of",
        ),
        ("rounds: 3\n\nclients: 1:30", "line 3: clients=1:30: expected a whole number from 1 to"),
        ("rounds: no", "line 1: rounds=no: expected a whole number from 1 to"),
        ("rounds: 2024-01-31", "line 1: rounds=2024-01-31: expected a whole number from 1 to"),
        ("rounds: 1.5", "line 1: rounds=1.5: expected a whole number from 1 to"),
        ("rounds:", "line 1: rounds=: expected a whole number from 1 to"),
        ("rounds: [3]", "line 1: rounds is a list, expected one value"),
        ("rounds: {a: 3}", "line 1: rounds is a mapping, expected one value"),
        ("clients: .inf", "line 1: clients=.inf: expected a whole number"),
        ("variant: no", "line 1: variant=no: expected one of fedvlr, mlp"),
        ("seeds: 1.5", "line 1: seeds=1.5: expected a whole number from 1 to 10000"),
        ("seeds: 20000000", "line 1: seeds=20000000: expected a whole number from 1 to 10000"),
        ("sweep:\n  dim: [8, x]", "line 2: sweep: dim=x: expected a whole number from 1 to"),
        ("sweep:\n  dim: [8, [9]]", "line 2: sweep: dim is a list, expected one value"),
        ("sweep:\n  dim: 8:9", "line 2: sweep: dim has no list of values, expected lines"),
        ("sweep:\n  dropout: lin:0:1:500000000", "line 2: sweep: dropout: expected lin:first"),
        ("[" * 20_000, "line 1: not readable as YAML (nested deeper than 4 levels)"),
        ("{a: " * 20_000, "line 1: not readable as YAML (nested deeper than 4 levels)"),
        ("- " * 20_000, "line 1: not readable as YAML (nested deeper than 4 levels)"),
        ("views: " + "[" * 20_000 + "]" * 20_000, "line 1: not readable as YAML (nested deeper"),
        ("rounds: " + "9" * 5000, "line 1: rounds=999"),
        ("server_lr: 1" + "0" * 5000, "line 1: server_lr=100"),
        ("sweep: {dim: [" + "9" * 5000 + "]}", "line 1: sweep: dim=999"),
        ("views: &a [*a]", "line 1: not readable as YAML (an alias contains itself)"),
        ("rounds: *a", "line 1: not readable as YAML (found undefined alias"),
        ("views: !!python/object/apply:os.system [ls]\nrounds: x", "line 2: rounds=x"),
        ("a: 1\n---\nb: 2", "line 2: not readable as YAML"),
        ("rounds: 'a\x01'", "line 1: not readable as YAML (the character U+0001 is not allowed)"),
        ("rounds: 3\nseed: \0", "line 2: not readable as YAML (the character U+0000"),
        ("rounds: 3\nseed: 1\nrounds: 4", "line 3: rounds appears twice"),
        ("sweep:\n  dim: [8]\n  dim: [9]", "line 3: dim appears twice"),
        ("rounds: 3\n[a, b]: 3", "line 2: the name of a setting is a list, expected one value"),
        ("rounds: 3\n---\nseed: 3", "line 2: not readable as YAML (found another document)"),
        (
            "roundz: 3",
            "line 1: unknown setting roundz, expected one that --help names, like rounds",
        ),
        ("- rounds: 3", "line 1: holds no settings"),
        ("#" * 300_000, "has 300,000 bytes, expected at most 262,144"),
    ],
)
def test_a_bad_value_in_a_file_is_told_with_its_line(tmp_path, text, sentence):
    path = written(tmp_path, text)
    begun = time.monotonic()
    with pytest.raises(UserError) as caught:
        declare.read(path, {"seeds": (int, SEEDS)})
    assert time.monotonic() - begun < 5
    assert str(caught.value).startswith(f"--config={path}: {sentence}")
    assert len(str(caught.value)) < 5000


@pytest.mark.parametrize("width", [2, 9, 30])
@pytest.mark.parametrize("levels", [2, 3, 4, 12])
def test_aliases_do_not_grow(tmp_path, width, levels):
    lines = ["a0: &a0 [" + ",".join("x" * width) + "]"]
    for k in range(levels):
        lines.append(f"a{k + 1}: &a{k + 1} [{','.join([f'*a{k}'] * width)}]")
    with pytest.raises(UserError, match=r"(holds more than 20,000 values|unknown setting a0)"):
        declare.read(written(tmp_path, "\n".join(lines)))


def test_an_alias_is_its_value(tmp_path):
    found = declare.read(
        written(tmp_path, "sweep: {server_lr: &rates [1e-3, 1e-2], client_lr: *rates}")
    )
    assert found.axes == {"server_lr": (1e-3, 1e-2), "client_lr": (1e-3, 1e-2)}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["dropout=lin:0:1:500000000"], "at most 10,000"),
        (["server_lr=log:1e-9:1:10001"], "at most 10,000"),
        (["clients=lin:20:500000020:500000000"], "at most 10,000"),
        (["dropout=lin:0:1:" + "9" * 5000], "at most 10,000"),
        (["server_lr=lin:0:0.5:200", "client_lr=lin:0:0.5:51"], "10,200 runs (200 server_lr x 51"),
        ([f"{name}=lin:0:0.5:10000" for name in ("server_lr", "client_lr", "own_lr")], "runs"),
        (["clients=" + "9" * 5000], "expected whole numbers"),
        (["server_lr=lin:-1.7e308:1.7e308:3"], "less far apart"),
        (["clients=lin:0:1e300:3"], "expected a whole number from 1 to"),
        (["server_lr=lin:0:1e999:3"], "first:last:number"),
    ],
)
def test_a_sweep_is_not_larger_than_can_be_done(lines, words):
    begun = time.monotonic()
    with pytest.raises(UserError) as caught:
        declare.configs({}, declare.axes(lines))
    assert words in str(caught.value)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "large", "no text"])
def test_what_is_no_small_plain_file_is_not_read(tmp_path, kind):
    path = tmp_path / "sweep.yaml"
    {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "large": lambda: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 1 << 40),
        "no text": lambda: path.write_bytes(b"rounds: \xff\xfe"),
    }[kind]()
    with pytest.raises(UserError, match=f"^--config={path}: .*expected"):
        declare.read(path)


def test_a_contradiction_is_told_with_the_line_of_what_is_wrong(tmp_path):
    found = declare.read(written(tmp_path, "rounds: 3\ncohort: 9\nclients: 5"))
    with pytest.raises(UserError) as caught:
        declare.configs(found.settings, found.axes)
    assert str(found.placed(caught.value)) == (
        f"--config={tmp_path}/sweep.yaml: line 2: --cohort=9: expected at most the 5 clients there "
        "are"
    )


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        declare.read(tmp_path / "none.yaml")
