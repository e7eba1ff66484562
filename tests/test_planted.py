"""Does the router learn what is there? METHOD "When does personal fusion pay?"."""

import json

import numpy as np
import pytest
from scipy.stats import spearmanr

import fedvlr_jax
from fedvlr_jax import data as data_sets
from tests.experiments import programs

POPULATION = {"clients": 1500, "items": 400, "preference_concentration": 0.3}
TRAINING = {"client_solver": "sgd", "rounds": 25, "server_lr": 0.03, "client_lr": 0.1, "devices": 1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """`id` and modality-pure `fedvlr` on one planted population, chosen on validation."""
    out = tmp_path_factory.mktemp("planted")
    settings = POPULATION | TRAINING | {"views": "image,text,id", "router_lr": 0.1}
    flags = [f"--{name}={value}" for name, value in settings.items()]
    # A process of its own is compiled as a user's is.
    done = programs.run("experiments.sweep", *flags, "--sweep=variant=id,fedvlr", f"--out={out}")
    assert done.returncode == 0, done.stderr
    dataset = data_sets.load(fedvlr_jax.Config.of(**POPULATION))
    places = {v: next((out / "runs").glob(f"*variant={v},*")) for v in ("id", "fedvlr")}
    return dataset, places


@pytest.mark.slow
def test_personal_fusion_beats_id_embeddings(runs):
    _, found = runs
    summaries = {v: json.loads((run / "summary.json").read_text()) for v, run in found.items()}
    score = {v: summary["test"]["warm/ndcg@50"] for v, summary in summaries.items()}
    popularity = summaries["id"]["popularity"]["test"]["warm/ndcg@50"]
    assert score["fedvlr"] > 1.15 * score["id"]
    assert score["id"] > popularity


@pytest.mark.slow
def test_routers_recover_the_planted_preferences(runs):
    dataset, found = runs
    with np.load(found["fedvlr"] / "per_user.npz") as archive:
        weights, length = archive["view_weights"], archive["history_length"]
    planted = dataset.planted.preference
    long = length >= 20
    assert long.sum() > 200
    correlation = spearmanr(
        (weights[:, 0] - weights[:, 1])[long], (planted[:, 0] - planted[:, 1])[long]
    ).statistic
    assert correlation > 0.75
    # And they are personal: clients differ from one another.
    assert weights.std(axis=0).min() > 0.05
