"""A stand-in for training: scores that follow a formula, rounds that go on where they were."""

import json
import math

from fedvlr_jax.errors import PrunedError
from fedvlr_jax.record import evaluations
from fedvlr_jax.simulation.run import Result

ROUNDS = 4


def score(config, number):
    """Best at a server rate of 0.01 and width 16; rounds help."""
    method = config.method
    away = (math.log10(method.server_lr) + 2) ** 2 + (method.dim != 16)
    return 50 - 10 * away + number + config.schedule.seed


class KilledError(BaseException):
    """The process ends here, in the middle of something."""


class Training:
    """Takes the place of `train_together`, for runs that are alone.

    Attributes:
        begun: folders that were worked in, in order.
        rounds: how many rounds were trained in all.
        die: the evaluation, counted over all runs, after which the process is killed, and whether
            that is before anybody hears of it.
        fail: takes a configuration and gives an error or None.
        wait: called as a run begins.
        jax: what summaries say it is trained with.
    """

    def __init__(self, die=None, fail=lambda _: None, wait=lambda: None, jax=None):
        self.begun, self.rounds, self.die, self.fail, self.wait = [], 0, die, fail, wait
        self.jax = jax

    def __call__(self, configs, outs, reporters, datasets, callbacks):
        (config,), (out,), (reporter,), (dataset,), (own,) = (
            *(configs, outs, reporters, datasets, callbacks),
        )
        assert dataset is not None
        return [self._alone(config, out, reporter, own[0].judge if own else None)]

    def _alone(self, config, out, reporter, prune):
        self.begun.append(out.name)
        self.wait()
        if failure := self.fail(config):
            raise failure
        out.mkdir(parents=True, exist_ok=True)
        lines = evaluations(out)
        if not (out / "summary.json").exists():
            reporter.begin(len(lines), ROUNDS, "round")
            if lines and prune and len(lines) < ROUNDS and (reason := prune(lines)):
                return PrunedError(reason)
            for number in range(len(lines) + 1, ROUNDS + 1):
                value = score(config, number)
                line = {"round": number, "seconds": 1.0 * number, "valid/warm/ndcg@50": value}
                with open(out / "metrics.jsonl", "a") as file:
                    file.write(json.dumps(line) + "\n")
                self.rounds += 1
                if self.die == (self.rounds, "unheard"):
                    raise KilledError
                lines.append(line)
                reporter.evaluated(line)
                reason = prune(lines) if prune and number < ROUNDS else None
                if self.die == (self.rounds, "heard"):
                    raise KilledError
                if reason:
                    return PrunedError(reason)
            reporter.end()
        summary = {
            "valid": {"warm/ndcg@50": score(config, ROUNDS)},
            "rounds_done": ROUNDS,
            "jax": self.jax,
            "test": {f"warm/{m}@{k}": float(k) for m in ("hr", "ndcg") for k in (10, 50)},
        }
        (out / "summary.json").write_text(json.dumps(summary))
        return Result(summary, out)
