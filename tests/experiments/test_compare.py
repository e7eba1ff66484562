import json

import pytest

from experiments import cli, compare
from tests.experiments import programs
from tests.report.test_compare_page import sweep


def compared(capsys, monkeypatch, *arguments):
    """(exit code, stdout, stderr); run() is given what the program gives it."""
    whole = cli.run
    monkeypatch.setattr(cli, "run", lambda m, v, u: whole(m, v, u, ("RUN_A", "RUN_B")))
    return programs.in_process(compare, capsys, *arguments)


def test_two_sweeps_are_compared_in_print_and_on_a_page(tmp_path, capsys, monkeypatch):
    sweep(tmp_path / "a", "mlp", 0.0)
    sweep(tmp_path / "b", "fedvlr", 15.0, (100, 1000, 5000))
    out = tmp_path / "new" / "page.html"
    code, said, complaint = compared(
        capsys, monkeypatch, tmp_path / "a", tmp_path / "b", f"--out={out}"
    )
    assert (code, complaint) == (0, "")
    assert "--variant: mlp in A, fedvlr in B" in said
    assert "3 runs of B have no counterpart:\n  clients=5000,seed=0\n" in said
    lines = [line for line in said.splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= 100
    assert said.count("+32.19 (") == 2
    page = out.read_text(encoding="utf-8")
    assert "What it changed</h2>" in page
    assert "Accuracy of A and B over clients." in page
    assert "Without a counterpart</h2>" in page
    assert f"{tmp_path}/b/runs/clients=5000,seed=2<" in page


@pytest.mark.parametrize("pair", ["aa", "ab", "ba", "bb"])
def test_what_one_run_does_not_have_is_a_dash(tmp_path, capsys, monkeypatch, pair):
    sweep(tmp_path / "a", "mlp", 0.0, seeds=3)
    sweep(tmp_path / "b", "fedvlr", 15.0, seeds=1)
    out = f"--out={tmp_path / 'page.html'}"
    code, said, _ = compared(capsys, monkeypatch, *(tmp_path / name for name in pair), out)
    assert code == 0
    assert "None" not in said
    assert "nan" not in said
    assert ("--" in said.partition("runs of A")[2]) == (pair != "aa")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "RUN_A is missing, expected RUN_A RUN_B"),
        (("a",), "RUN_B is missing, expected RUN_A RUN_B"),
        (("a", "b", "c"), "c: unexpected argument, expected flags like --out=..."),
        (("a", "nowhere"), "nowhere: no such folder, expected the folder (--out) of"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, capsys, monkeypatch, arguments, words):
    sweep(tmp_path / "a", "mlp", 0.0)
    monkeypatch.chdir(tmp_path)
    code, said, complaint = compared(capsys, monkeypatch, *arguments)
    assert code == 2
    assert said == ""
    assert words in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["inter.csv", "page.html", "x.txt"])
def test_nothing_but_a_page_is_replaced(tmp_path, capsys, monkeypatch, name):
    sweep(tmp_path / "a", "mlp", 0.0)
    (tmp_path / name).write_text("mine")
    code, said, complaint = compared(
        capsys, monkeypatch, tmp_path / "a", tmp_path / "a", f"--out={tmp_path / name}"
    )
    assert (code, said) == (2, "")
    assert "is there already, and this program has not written it" in complaint
    assert (tmp_path / name).read_text() == "mine"


def test_a_setting_with_terminal_escapes_is_shown_and_not_obeyed(tmp_path, capsys, monkeypatch):
    for name in "ab":
        sweep(tmp_path / name, "mlp", 0.0)
        for path in (tmp_path / name).glob("runs/*/config.json"):
            content = json.loads(path.read_text())
            path.write_text(json.dumps(content | {"views": f"{name}\x1b[2J<script>"}))
    out = tmp_path / "page.html"
    code, said, _ = compared(capsys, monkeypatch, tmp_path / "a", tmp_path / "b", f"--out={out}")
    assert code == 0
    assert "--views: a\\x1b[2J<script> in A" in said
    assert "\x1b" not in said
    assert "\x1b[2J" not in out.read_text()  # some releases of plotly.js hold the character itself
    assert "a\\x1b[2J&lt;script&gt;" in out.read_text()
