"""Progress for people: a bar on a terminal, plain lines elsewhere."""

import sys

from tqdm import tqdm


class Progress:
    """A `fedvlr_jax` reporter that prints; `label` stands before every line."""

    def __init__(self, label: str = "") -> None:
        self._label = label and f"{label}: "
        self._bar: tqdm | None = None

    def note(self, sentence: str) -> None:
        """Print a sentence."""
        self._print(sentence)

    def begin(self, done: int, rounds: int) -> None:
        """Open the bar, on a terminal."""
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=rounds, initial=done, unit="round", desc=self._label, dynamic_ncols=True
            )

    def advance(self, number: int) -> None:
        """Move the bar to round `number`."""
        if self._bar is not None:
            self._bar.update(number - self._bar.n)

    def evaluated(self, line: dict) -> None:
        """Print loss and validation metrics of one evaluation."""
        self._print(
            f"round {line['round']:>4}  loss {line['train_loss']:.4f}  valid "
            f"HR@50 {_percent(line['valid/hr@50'])}  NDCG@50 {_percent(line['valid/ndcg@50'])}  "
            f"warm HR@50 {_percent(line['valid/warm/hr@50'])}  "
            f"NDCG@50 {_percent(line['valid/warm/ndcg@50'])}  {line['seconds']:.1f} s"
        )

    def end(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _print(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(self._label + text)
        else:
            print(self._label + text, flush=True)


def _percent(value: float | None) -> str:
    return "   --" if value is None else f"{value:5.2f}"
