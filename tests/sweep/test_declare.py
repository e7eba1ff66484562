import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedvlr_jax.errors import UserError
from fedvlr_jax.sweep import declare


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
        others=("seeds",),
    )
    assert found.settings == {"rounds": 30, "views": "sum,mlp"}
    assert found.others == {"seeds": 3}
    assert found.axes == {
        "clients": (100, 1000),
        "server_lr": (1e-4, 1e-3, 1e-2, 1e-1),
        "client_lr": (1e-3, 0.1),
        "modalities": ("image,id", "text,id"),
    }
    assert len(declare.configs(found.settings, found.axes | {"modalities": ("image,id",)})) == 16


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rounds: [3", "not readable as YAML"),
        ("just text", "holds no settings"),
        ("", "holds no settings"),
        ("rounds: 3\nrounds: 4", "rounds stands twice"),
        ("sweep: {clients: [1], clients: [2]}", "clients stands twice"),
        ("colour: 3", "unknown setting colour"),
        ("sweep: [1]", "sweep is no mapping"),
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


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        declare.read(tmp_path / "none.yaml")
