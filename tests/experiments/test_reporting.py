"""What is printed of an evaluation."""

import pytest

from experiments.reporting import Progress

NUMBERS = {f"valid/{group}{name}@50": 12.5 for group in ("", "warm/") for name in ("hr", "ndcg")}


@pytest.mark.parametrize(
    ("loss", "trained", "uploads", "said"),
    [
        (0.5, 3, 3, "loss 0.5000"),
        (0.0, 3, 3, "loss 0.0000"),  # a loss that is 0 is one
        (0.5, 0, 3, "loss 0.5000"),  # of uploads that were late in the round before
        (None, 0, 0, "no client trained"),
        (None, 3, 0, "no upload arrived"),
        (None, 3, 3, "warm round"),
    ],
)
def test_a_round_without_a_loss_says_why(loss, trained, uploads, said, capsys):
    line = {"round": 7, "train_loss": loss, "clients_trained": trained, "seconds": 1.0} | NUMBERS
    line["uploads_counted"] = uploads
    Progress().evaluated(line)
    assert capsys.readouterr().out.startswith(f"round    7  {said}  valid HR@50 12.50")
