"""What Weights & Biases and MLflow have on disk, read back, where they are installed."""

import json
import os
import struct
import time

import pytest

from fedvlr_jax.reporter import Silent
from fedvlr_jax.trackers.tracked import Tracked

SETTINGS = {"dim": 4, "rounds": 4, "views": None, "data": "synthetic", "server_lr": 0.5}
SUMMARY = {"rounds_done": 4, "best_round": 2, "test": {"hr@50": 3.5, "cold/hr@50": None}}
_BLOCK, _HEAD = 32_768, 7  # of a log in the format of LevelDB, which wandb writes


def told(out, name):
    """A run that is stopped after two evaluations, and gone on with from the first one."""
    out.mkdir()
    (out / "config.json").write_text(json.dumps(SETTINGS))
    lines = [
        {"round": k, "train_loss": None, "valid/hr@50": 1.5 * k, "valid/warm/ndcg@50": 2.0}
        for k in (1, 2, 3)
    ]
    for known, new in ((0, lines[:2]), (1, lines[1:])):
        kept = Tracked(Silent(), out, [name])
        for number, line in enumerate(new, 1 + known):
            text = "".join(json.dumps(one) + "\n" for one in lines[:number])
            (out / "metrics.jsonl").write_text(text)
            kept.evaluated(line)
        if new[-1]["round"] == 3:
            kept.finish(SUMMARY)
        kept.close()


def _records(path):
    """The records of a file of wandb's: parts with checksum, length and kind, in blocks."""
    content, place, data = path.read_bytes(), _HEAD, b""
    while place + _HEAD <= len(content):
        left = _BLOCK - place % _BLOCK
        if left < _HEAD:
            place += left
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + _HEAD])
        if place + _HEAD + length > len(content):
            return  # it is being written
        data += content[place + _HEAD : place + _HEAD + length]
        place += _HEAD + length
        if kind in (1, 4):  # whole, or the last part
            yield data
            data = b""


def test_wandb_has_settings_steps_and_results(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="pip install 'fedvlr_jax[wandb]'")
    from wandb.proto import wandb_internal_pb2

    # What else could be asked for: it stays offline.
    monkeypatch.setenv("WANDB_MODE", "online")
    told(tmp_path / "run", "wandb")
    folder, records, deadline = tmp_path / "run" / "wandb", [], time.monotonic() + 60
    # Its own process may still be writing what it was told.
    while sum(kind == "exit" for kind, _ in records) < 2 and time.monotonic() < deadline:
        found = [
            one for path in sorted(folder.glob("offline-run-*/*.wandb")) for one in _records(path)
        ]
        parsed = map(wandb_internal_pb2.Record.FromString, found)
        records = [(record.WhichOneof("record_type"), record) for record in parsed]
    steps, summary, config, ids = [], {}, {}, set()
    for kind, record in records:
        if kind == "run":
            ids.add(record.run.run_id)
            config |= {x.key: json.loads(x.value_json) for x in record.run.config.update}
        for item in record.history.item if kind == "history" else ():
            if [item.key, *item.nested_key][-1] == "valid/hr@50":
                steps.append((record.history.step.num, json.loads(item.value_json)))
        for item in record.summary.update if kind == "summary" else ():
            summary["".join([item.key, *item.nested_key])] = json.loads(item.value_json)
    assert steps == [(1, 1.5), (2, 3.0), (3, 4.5)]
    assert len(ids) == 1
    assert {name: config[name] for name in SETTINGS} == SETTINGS
    assert summary["test/hr@50"] == 3.5
    assert summary["best_round"] == 2
    assert "test/cold/hr@50" not in summary


# MLflow's models of its tables are older than the newest SQLAlchemy.
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
def test_mlflow_has_settings_steps_and_results(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="pip install 'fedvlr_jax[mlflow]'")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://nowhere.invalid")
    told(tmp_path / "run", "mlflow")
    client = MlflowClient(f"sqlite:///{tmp_path / 'run' / 'mlflow' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("fedvlr_jax")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "run"
    assert run.data.params == {k: str(v) for k, v in SETTINGS.items() if k != "rounds"}
    assert run.data.tags["rounds"] == "4"
    history = client.get_metric_history(run.info.run_id, "valid/hr_50")
    assert [(one.step, one.value) for one in history] == [(1, 1.5), (2, 3.0), (3, 4.5)]
    (result,) = client.get_metric_history(run.info.run_id, "test/hr_50")
    assert (result.step, result.value) == (4, 3.5)
    assert run.data.metrics["best_round"] == 2
    assert os.listdir(tmp_path) == ["run"]
