import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from docs.tools.flags import PROGRAMS
from experiments import cli, preference_recovery, sweep, train
from tests.experiments import programs

NUMBERS = ("x", "", "nan", "inf", "1e999", "9" * 5000, "-1e99", "1:30", "1,5", "[1]", "0x")
# What is expected of a number names its kind and its range.
EXPECTED = re.compile(
    r"a whole number from -?\d+ to \d+"
    r"|a finite number (above|of at least) \d+"
    r"|a number (from \d+ to (below )?[\d.]+|between \d+ and [\d.]+)"
)


def defined(module):
    values = flags.FlagValues()
    importlib.import_module(module).define_flags(values)
    return values


def all_flags(*kinds):
    found = {module: defined(module) for module in PROGRAMS}
    return [
        (module, name)
        for module, values in found.items()
        for name in values
        if values[name].flag_type() in kinds
    ]


def complaint(module, argument, capsys):
    """What a program says of a command line; it must not come to its work."""

    def main(*_):
        raise AssertionError("not refused")

    program = importlib.import_module(module)
    values = defined(module)
    code = 0
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", [module, argument])
            cli.run(main, values, program.USAGE)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(("module", "name"), all_flags("int", "float"))
def test_a_bad_number_is_told_with_its_range(module, name, capsys):
    for value in NUMBERS:
        said = complaint(module, f"--{name}={value}", capsys)
        assert said.startswith(f"error: --{name}={value[:1000]}")
        expected = said.rstrip().rpartition(": expected ")[2]
        assert EXPECTED.fullmatch(expected.partition("; to try several values")[0]), said
        assert said.count("\n") == 1
        assert len(said) < 5000


@pytest.mark.parametrize(("module", "name"), all_flags("int"))
def test_a_number_beyond_its_range_is_told_with_it(module, name, capsys):
    said = complaint(module, f"--{name}=x", capsys)
    smallest, largest = map(int, re.findall(r"from (-?\d+) to (\d+)", said)[0])
    for value in (smallest - 1, largest + 1):
        said = complaint(module, f"--{name}={value}", capsys)
        assert said == (
            f"error: --{name}={value}: expected a whole number from {smallest} to {largest}\n"
        )


@pytest.mark.parametrize(("module", "name"), all_flags("bool"))
@pytest.mark.parametrize("value", ["maybe", "2", "yes", "", "-1"])
def test_a_bad_yes_or_no_is_told(module, name, value, capsys):
    said = complaint(module, f"--{name}={value}", capsys)
    assert said == f"error: --{name}={value}: expected true or false\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has it")
def test_help_that_a_disk_does_not_take_is_told():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "experiments.recommend", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (2, "error: No space left on device\n")


PATHS = ("out", "run", "config")


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, n in all_flags("string") if n in PATHS])
def test_paths_are_somewhere(module, name, capsys, monkeypatch):
    said = complaint(module, f"--{name}=", capsys)
    assert said in {f"error: --{name}=: expected {kind}\n" for kind in ("a folder", "a file")}
    monkeypatch.setenv("HOME", "/home/somebody")
    values = defined(module)
    values(["x", f"--{name}=~/my runs"])
    assert values[name].value == Path("/home/somebody/my runs")


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("--round=3", "--round: unknown flag, expected one that --help names, like --rounds"),
        ("--outt=x", "--outt: unknown flag, expected one that --help names, like --out"),
        ("--zzzz", "--zzzz: unknown flag, expected one that --help names"),
        ("--noquiet=1", "--noquiet=1: takes no value, expected --quiet or --noquiet"),
        ("--noquiet=a b", "--noquiet=a: takes no value, expected --quiet or --noquiet"),
    ],
)
def test_an_unknown_flag_is_told_with_a_near_one(argument, sentence, capsys):
    assert complaint("experiments.train", argument, capsys) == f"error: {sentence}\n"


@pytest.mark.parametrize("module", PROGRAMS)
@pytest.mark.parametrize(
    "argument", ["--flagfile=/dev/zero", "-flagfile=x", "--undefok=x", "--colour=3", "--noout=3"]
)
def test_a_flag_that_is_none_is_told(module, argument, capsys):
    assert complaint(module, argument, capsys).startswith("error: ")


@pytest.mark.parametrize(
    ("module", "argument", "sentence"),
    [
        ("experiments.search", "--trials=0", "a whole number from 1 to 2147483647"),
        ("experiments.sweep", "--together=-1", "a whole number from 0 to 2147483647"),
        ("experiments.sweep", "--max_memory=-1", "a finite number of at least 0"),
        ("experiments.sweep", "--seeds=0", "a whole number from 1 to 10000"),
        ("experiments.paper", "--newcomers=1", "a number from 0 to 0.9"),
        ("experiments.train", "--process_id=-1", "a whole number from 0 to 2147483647"),
        ("experiments.train", "--num_processes=0", "a whole number from 1 to 2147483647"),
        ("experiments.recommend", "--top=0", "a whole number from 1 to 2147483647"),
        ("benchmarks.roofline", "--clients=0", "a whole number from 1 to 2147483647"),
        ("benchmarks.scaling", "--limit=0", "a finite number of at least 1"),
        ("benchmarks.throughput", "--seconds=-1", "a finite number of at least 0"),
    ],
)
def test_ranges(module, argument, sentence, capsys):
    assert complaint(module, argument, capsys) == f"error: {argument}: expected {sentence}\n"


@pytest.mark.parametrize(
    ("module", "argument", "ending"),
    [
        ("experiments.sweep", "server_lr=0.1,0.2", "; to try several values, give --sweep="),
        ("experiments.search", "dim=8,16", "; to try several values, give --search="),
        ("experiments.sweep", "seeds=1,2", None),
        ("experiments.train", "server_lr=0.1,0.2", None),
    ],
)
def test_several_values_of_a_setting_are_told_how_to_give(module, argument, ending, capsys):
    told = complaint(module, f"--{argument}", capsys)
    assert told.startswith("error: ")
    assert told.endswith(f"{ending}{argument}\n") if ending else "to try several" not in told


def test_several_names_are_told_how_to_give(capsys, tmp_path):
    out = f"--out={tmp_path / 'sweep'}"
    _, _, told = programs.in_process(sweep, capsys, "--variant=mlp,id", out)
    assert told.endswith("; to try several values, give --sweep=variant=mlp,id\n")
    _, _, told = programs.in_process(sweep, capsys, "--views=sum,summ", out)
    assert "expected" in told
    assert "to try several" not in told


def test_help_tells_a_program_s_own_default_alone(capsys):
    _, told, _ = programs.in_process(preference_recovery, capsys, "--help")
    assert "--data=synthetic generates. (default 2000)" in told
    assert "--data=synthetic generates; default 1000" not in told


LISTS = {
    "experiments.paper": ("backbones", "variants", "noises", "server_rates", "client_rates"),
    "experiments.preference_recovery": ("concentrations", "server_rates", "client_rates"),
    "benchmarks.throughput": ("clients", "contenders"),
    "benchmarks.scaling": ("axes", "clients"),
    "experiments.sweep": ("clients", "sweep"),
    "experiments.scaling_study": ("clients", "sweep"),
    "experiments.search": ("search",),
}


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, names in LISTS.items() for n in names])
@pytest.mark.parametrize("value", ["x", ",", "1,,2", "-1", "nan", "9" * 5000])
def test_a_bad_list_is_told(module, name, value, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program = importlib.import_module(module)
    code, said, told = programs.in_process(program, capsys, f"--{name}={value}")
    assert (code, said) == (2, "")
    assert told.startswith((f"error: --{name}=", f"error: --sweep={name}="))
    assert ": " in told
    assert "expected" in told
    assert told.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "path",
    ["runs/x", "my runs/x", "a'b", "$(touch x)", "a;b", "a&b", "`x`", "a|b", "*", "~/x", "#x"],
)
def test_a_command_that_is_printed_is_what_a_shell_takes(path):
    line = cli.command("experiments.recommend", f"--run={path}", "--user=0")
    assert shlex.split(line)[-2:] == [f"--run={path}", "--user=0"]
    shell = f"set -- {line}; printf '%s' \"$4\""
    assert subprocess.run(["sh", "-c", shell], capture_output=True, text=True).stdout == (
        f"--run={path}"
    )


def _printing():
    values = flags.FlagValues()
    cli.define_number(values, "rounds", 1, "Rounds.", (lambda v: v > 0, "a number above 0"))
    cli.run(lambda _: print("x" * 100_000), values, "usage: x")


@pytest.mark.parametrize("arguments", [["--help"], ["--rounds=x"], ["--colour"], ["x"], []])
@pytest.mark.parametrize("closed", [("stdout",), ("stderr",), ("stdout", "stderr")])
def test_a_closed_pipe_ends_in_silence(arguments, closed, monkeypatch, tmp_path):
    """The reader is gone before anything is written; nothing is left for Python to tell at exit."""
    for name in ("stdout", "stderr"):
        read, write = os.pipe()
        os.close(read)
        place = write if name in closed else tmp_path / name
        monkeypatch.setattr(sys, name, open(place, "w"))  # noqa: SIM115
    streams = sys.stdout, sys.stderr
    monkeypatch.setattr(sys, "argv", ["x", *arguments])
    code = 0
    try:
        _printing()
    except SystemExit as stop:
        code = stop.code
    told = "stdout" if arguments in (["--help"], []) else "stderr"
    assert code == (1 if told in closed else {"stdout": 0, "stderr": 2}[told])
    for stream in streams:
        stream.close()  # flushes, as Python does at its end
    if "stderr" not in closed and told == "stdout":
        assert (tmp_path / "stderr").read_text() == ""


def test_help_ends_in_silence_where_its_reader_has_gone():
    """As a process, whose end is Python's own."""
    read, write = os.pipe()
    os.close(read)
    found = subprocess.run(
        [sys.executable, "-m", "experiments.recommend", "--help"],
        stdout=write,
        stderr=subprocess.PIPE,
        env=programs.environment(),
        cwd=programs.ROOT,
    )
    os.close(write)
    assert (found.returncode, found.stderr) == (1, b"")


@pytest.mark.parametrize(
    ("name", "value"),
    [("JAX_ENABLE_X64", "maybe"), ("JAX_DEFAULT_PRNG_IMPL", "dice"), ("JAX_LOG_COMPILES", "2")],
)
def test_a_setting_that_jax_refuses_is_told(name, value):
    ended = subprocess.run(
        [sys.executable, "-m", "experiments.train", "--help"],
        cwd=programs.ROOT,
        env=programs.environment() | {name: value},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: the environment has a setting that JAX refuses: ")
    assert ended.stderr.count("\n") == 1


def test_a_cache_that_cannot_be_written_is_a_warning(capsys, tmp_path):
    (tmp_path / "file").touch()
    flags = f"--compilation_cache={tmp_path / 'file' / 'x'}", f"--data={tmp_path / 'none'}"
    code, _, said = programs.in_process(train, capsys, *flags)
    warning, error = said.splitlines()
    assert warning.startswith("warning: compiled programs are not kept for the next start: ")
    assert (code, error.startswith("error: ")) == (2, True), "the program has gone on"
