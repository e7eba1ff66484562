from benchmarks import jobs
from benchmarks.jobs import Failure, Job

SMALL = {"clients": 4, "items": 60, "history_length": 3, "dim": 8}


def test_what_goes_wrong_in_a_process_is_told(tmp_path):
    job = Job("throughput", SMALL, "nobody", 0.1)
    found = jobs.run(job, 60, tmp_path / "logs" / "a.log")
    assert found == Failure("KeyError: 'nobody'")
    assert "Traceback" in (tmp_path / "logs" / "a.log").read_text()


def test_what_takes_too_long_is_ended(tmp_path):
    job = Job("throughput", SMALL, "fedvlr_jax", 0.1)
    assert jobs.run(job, 0.2, tmp_path / "a.log") == Failure("took longer than 0.2 s")
