"""Compiling for accelerators: what is reported, and what has to hold of the programs."""

import json

import pytest

from benchmarks import accelerators, targets
from fedvlr_jax.errors import UserError
from tests.experiments import programs

ACCELERATORS = ("h100:1", "h100:8", "v5e:2x2", "v5e:16x16", "v6e:2x4")
SMALL = ("--items=60", "--history_length=3", "--dim=8", "--local_epochs=2", "--seconds=0.1")


def read(folder):
    return json.loads((folder / "accelerators.json").read_text())


def test_programs_of_the_devices_here_are_described_and_timed(tmp_path):
    done = programs.run(
        "benchmarks.accelerators",
        *("--targets=cpu:2", "--clients=10", "--chunk=2,3", f"--out={tmp_path}", *SMALL),
        quick=True,
    )
    assert done.returncode == 0, done.stderr
    found = read(tmp_path)["programs"]
    assert [(each["program"], each["chunk"]) for each in found] == [
        (name, chunk) for chunk in (2, 3) for name in ("round", "evaluation")
    ]
    for each in found:
        assert (each["target"], each["clients"], each["items"]) == ("cpu:2", 10, 60)
        assert each["devices"] == 2
        assert 0 < 5 * 4 * 3 * 8 * 8 < each["private_state_bytes"] < each["argument_bytes"]
        assert each["temporary_bytes"] > 0
        assert each["compile_seconds"] > 0
        assert each["seconds"] > 0
        assert each["cycles_per_client_update"] is None, "a CPU's compiler gives none"
        assert isinstance(each["private_state_copies"], int)
        assert {"operation", "times"} == set(each["operations_without_estimate"][0])
    assert all(each["collectives"] > 0 for each in found if each["program"] == "round")
    assert "cpu:2" in (tmp_path / "accelerators.txt").read_text()


def test_what_has_no_compiler_here_is_left_out_in_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(targets.importlib.util, "find_spec", lambda _: None)
    code, said, complaint = programs.in_process(
        accelerators, capsys, "--targets=h100:1,v5e:2x2", f"--out={tmp_path}"
    )
    assert code == 2
    assert 'v5e:2x2: left out, the TPU compiler is not installed here: pip install "jax[tpu]"' in (
        said
    )
    assert "none has a compiler installed here" in complaint
    assert set(read(tmp_path)["unavailable"]) == {"h100:1", "v5e:2x2"}


def test_a_target_that_fails_is_told_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    done = iter([accelerators.Failure("no such chip"), {"programs": []}])
    monkeypatch.setattr(accelerators.jobs, "run", lambda *_: next(done))
    code, said, complaint = programs.in_process(
        accelerators, capsys, "--targets=cpu:1,cpu:2", f"--out={tmp_path}"
    )
    assert code == 2
    assert "cpu:1: no such chip" in said
    assert "cpu:2: compiled" in said
    assert "cpu:1 failed" in complaint


@pytest.mark.parametrize("name", ["h100", "h100:", "h100:2x2", "v5e:4", "v5e:2xtwo", "me:1", ""])
def test_a_target_that_is_none_is_refused(name):
    with pytest.raises(UserError, match=f"--targets={name}: expected names like cpu:1"):
        targets.parsed(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ACCELERATORS)
def test_the_standard_workload_is_one_that_accelerators_want(name, tmp_path):
    if lacking := targets.missing(targets.parsed(name)):
        pytest.skip(lacking)
    done = programs.run(
        "benchmarks.accelerators",
        *(f"--targets={name}", "--clients=100000", f"--out={tmp_path}"),
    )
    assert done.returncode == 0, done.stderr
    found = read(tmp_path)["programs"]
    assert [each["program"] for each in found] == ["round", "evaluation"]
    for each in found:
        # A compiler sets some memory aside whatever the number of clients.
        assert each["temporary_bytes"] <= max(each["private_state_bytes"] / 10, 8e6)
        assert each["private_state_copies"] == 0
        assert each["collectives"] <= 3
        if each["device"].startswith("TPU"):
            assert each["cycles_per_client_update"] > 0
