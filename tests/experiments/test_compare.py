import pytest

from experiments import cli, compare
from tests.experiments import programs
from tests.sweep.test_compare import sweep


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
    assert "3 runs of B have no counterpart" in said
    assert said.count("+32.19 (") == 2
    page = out.read_text(encoding="utf-8")
    assert "What it changed</h2>" in page
    assert "Accuracy of A and B over clients." in page


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "RUN_A is missing, expected RUN_A RUN_B"),
        (("a",), "RUN_B is missing, expected RUN_A RUN_B"),
        (("a", "b", "c"), "c: unexpected argument, expected flags like --out=..."),
        (("a", "nowhere"), "nowhere: holds no finished run"),
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
