import json

import pytest

from fedvlr_jax.record import evaluations
from fedvlr_jax.search.watch import Best, PrunedError, Watched, best_of


def line(number, score, everybodys=1.0):
    return {"round": number, "valid/warm/ndcg@50": score, "valid/ndcg@50": everybodys}


class Heard:
    """A reporter that keeps what it is told; `Reporter` asks for its methods by name."""

    def __init__(self):
        self.calls = []

    def _kept(name):  # noqa: N805 -- no method
        return lambda self, *given: self.calls.append((name, *given))

    note, begin, advance = _kept("note"), _kept("begin"), _kept("advance")
    evaluated, end, wants_stop = _kept("evaluated"), _kept("end"), _kept("wants_stop")


@pytest.fixture
def watched(tmp_path):
    reports = []

    def report(number, score):
        reports.append((number, score))
        return "too bad" if number >= report.until else None

    report.until = 99
    inner = Heard()
    reporter = Watched(inner, tmp_path, report)
    reporter.inner, reporter.reports, reporter.rule = inner, reports, report
    return reporter


def test_the_best_score_is_that_of_warm_clients_and_the_first_of_equals():
    assert best_of([]) is None
    assert best_of([line(1, 3.0), line(2, 5.0), line(3, 5.0), line(4, 4.0)]) == Best(5.0, 2)
    assert best_of([line(1, None, 2.0)]) == Best(2.0, 1)


def test_everything_is_passed_on_and_the_best_so_far_reported(watched):
    watched.note("hello")
    watched.begin(0, 9, "round")
    watched.advance(1)
    for number, score in enumerate((3.0, 2.0, 4.0), 1):
        watched.evaluated(line(number, score))
    watched.end()
    assert [call[0] for call in watched.inner.calls] == [
        *("note", "begin", "advance", "evaluated", "evaluated", "evaluated", "end")
    ]
    assert watched.reports == [(1, 3.0), (2, 3.0), (3, 4.0)]


def test_a_run_ends_where_it_is_not_worth_more(watched):
    watched.rule.until = 2
    watched.begin(0, 9, "round")
    watched.evaluated(line(1, 1.0))
    with pytest.raises(PrunedError, match="too bad"):
        watched.evaluated(line(2, 1.0))
    assert watched.inner.calls[-1] == ("end",)


def test_the_last_round_is_too_late_to_end(watched):
    watched.rule.until = 1
    watched.begin(0, 2, "round")
    watched.evaluated(line(2, 1.0))
    assert watched.reports == [(2, 1.0)]


def test_what_was_evaluated_before_is_reported_first(watched, tmp_path):
    lines = [line(1, 3.0), line(2, 2.0)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    assert evaluations(tmp_path) == lines
    assert evaluations(tmp_path / "none") == []
    watched.begin(5, 10, "item")
    assert watched.reports == []
    watched.begin(2, 9, "round")
    watched.evaluated(line(3, 4.0))
    assert watched.reports == [(1, 3.0), (2, 3.0), (3, 4.0)]
    watched.rule.until = 2
    with pytest.raises(PrunedError):
        watched.begin(2, 9, "round")
