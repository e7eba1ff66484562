"""Rounds in turns, timed, and what is said of them."""

from benchmarks import clocks


def test_rounds_of_every_kind_are_timed_in_turns(tmp_path):
    found = clocks.measure(clients=20, rounds=1)
    assert found["cohort"] == 2
    for part in ("clock", "steps"):
        for row in found[part].values():
            assert row["round_seconds"] > 0
            assert row["updates_per_second"] > 0
    with_clock, without = (
        found["clock"][f"all clients, {devices}"]["round_seconds"]
        for devices in ("phones", "no devices")
    )
    assert found["clock_overhead"] == with_clock / without - 1
    assert len(found["buffer_to_cohort"]) == 3
    told = clocks.summary({"machine": clocks.machine.describe()} | found)
    clocks.report.show(told, tmp_path, "clocks.txt")
    text = (tmp_path / "clocks.txt").read_text()
    assert "20 clients, a cohort or buffer of 2" in text
    assert "buffer, twice as many train: " in text
