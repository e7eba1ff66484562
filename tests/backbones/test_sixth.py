"""docs/extending.md shows a sixth backbone; this is that code, trained both ways."""

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedvlr_jax.client.autodiff import AUTODIFF
from fedvlr_jax.client.closed_form import CLOSED_FORM
from fedvlr_jax.client.model import ClientData, ClientModel
from fedvlr_jax.client.update import LocalTraining
from fedvlr_jax.client.ways import choose
from tests.client.alone import new_state, rates, sent, table, whole_round
from tests.undone import undone

DOCS = Path(__file__).parents[2] / "docs" / "extending.md"


def documented():
    code = re.search(r"```python\n(.*?FedMF.*?)```", DOCS.read_text(), re.DOTALL)[1]
    names = {"__name__": "documented"}
    with undone():
        exec(compile(code, str(DOCS), "exec"), names)
    return names["FEDMF"]


def test_the_documented_backbone_trains():
    model = ClientModel(documented(), n_views=2, dim=4, routed=True)
    training = LocalTraining(model, epochs=2, negatives=2, optimizer="sgd")
    assert choose(training) is CLOSED_FORM
    bent = dataclasses.replace(model, backbone=dataclasses.replace(model.backbone, linear=None))
    rng = np.random.default_rng(0)
    data = ClientData(jnp.int32(3), jnp.array([1, 4, 6, 10]))
    arguments = sent(rng.standard_normal((10, 2, 4))), new_state(model), data, rates(0.5, 0.5)
    key = jax.random.key(0)
    found = whole_round(CLOSED_FORM, training, *arguments, key)
    bent = dataclasses.replace(training, model=bent)
    expected = whole_round(AUTODIFF, bent, *arguments, key)
    (state, upload), (expected_state, expected_upload) = found, expected
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(expected_state), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_allclose(table(upload, 10), table(expected_upload, 10), atol=1e-5)
    assert float(upload.loss) == pytest.approx(float(expected_upload.loss), abs=1e-5)
    assert float(found[1].loss) > 0
