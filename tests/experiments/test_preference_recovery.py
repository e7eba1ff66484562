import pandas as pd
import pytest

from experiments import preference_recovery
from tests.experiments import programs

SMALL = (
    "--client_solver=sgd",
    *("--clients=40", "--items=40", "--dim=8", "--local_epochs=1", "--negatives=1", "--rounds=2"),
    *("--eval_every=1", "--devices=1", "--buckets=1", "--server_rates=0.1", "--client_rates=0.1"),
    "--seeds=2",
)


def test_every_concentration_is_told_and_drawn(tmp_path, capsys):
    out = tmp_path / "recovery"
    arguments = (*SMALL, "--concentrations=0.1,10", "--history_length=6", f"--out={out}")
    code, said, complaint = programs.in_process(preference_recovery, capsys, *arguments)
    assert (code, complaint) == (0, "")
    assert "report" not in said
    table = pd.read_csv(out / "tables" / "recovery.csv")
    assert table.groupby("concentration")["clients"].max().to_dict() == {0.1: 40, 10.0: 40}
    assert table.query("history == 'all'")["spearman removal"].between(-1, 1).all()
    accuracy = pd.read_csv(out / "tables" / "accuracy.csv")
    assert accuracy["variant"].tolist() == ["fedvlr", "mlp"] * 2
    assert (out / "figures" / "recovery.png").stat().st_size > 10_000
    assert len(list(out.rglob("summary.json"))) == 2 * 2 * 2


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--concentrations=0", "--concentrations=0: expected different numbers above 0"),
        ("--concentrations=", "--concentrations=: expected different numbers above 0"),
        ("--data=data/KU", "--data: unknown flag"),
    ],
)
def test_mistakes_are_one_sentence_and_write_nothing(tmp_path, capsys, flag, sentence):
    out = tmp_path / "recovery"
    code, _, complaint = programs.in_process(
        preference_recovery, capsys, *SMALL, flag, f"--out={out}"
    )
    assert code == 2
    assert sentence in complaint
    assert not out.exists()
