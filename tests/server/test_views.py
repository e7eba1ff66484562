import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedvlr_jax.names import VIEWS
from fedvlr_jax.server.views import Features, Fusion
from tests import oracle

N_ITEMS, DIM = 9, 6


def features(*present):
    rng = np.random.default_rng(0)
    rows = {"image": rng.standard_normal((N_ITEMS, 7)), "text": rng.standard_normal((N_ITEMS, 5))}
    return {name: jnp.asarray(x, jnp.float32) for name, x in rows.items() if name in present}


@pytest.mark.parametrize("present", [("image", "text"), ("image",), ("text",), ()])
def test_operators_follow_their_formulas(present):
    names = tuple(v for v in VIEWS if v in ("sum", "mlp", "gate", "id") or v in present)
    inputs = features(*present)
    fusion = Fusion(names, N_ITEMS, DIM)
    given = Features(inputs.get("image"), inputs.get("text"))
    params = fusion.init(jax.random.key(0), given)
    params = jax.tree.map(
        lambda x: x + 0.2 * jax.random.normal(jax.random.key(x.size), x.shape), params
    )
    fused = fusion.apply(params, given)
    assert fused.shape == (N_ITEMS, len(names), DIM)
    expected = oracle.fuse(params, inputs, names)
    for j in range(len(names)):
        np.testing.assert_allclose(fused[:, j], expected[j], atol=1e-5)


def test_operators_share_nothing_but_the_embeddings():
    fusion = Fusion(("sum", "mlp", "gate"), N_ITEMS, DIM)
    given = Features(*features("image", "text").values())
    params = fusion.init(jax.random.key(0), given)["params"]
    assert set(params) == {"item_embedding", "view_sum", "view_mlp", "view_gate"}
    changed = jax.tree.map(lambda x: x, params)
    changed["view_gate"] = jax.tree.map(lambda x: x + 1, params["view_gate"])
    before, after = (fusion.apply({"params": p}, given) for p in (params, changed))
    np.testing.assert_array_equal(before[:, :2], after[:, :2])
    assert (before[:, 2] != after[:, 2]).any()


def test_a_modality_view_reads_its_modality_only():
    fusion = Fusion(("image", "text", "id"), N_ITEMS, DIM)
    given = Features(*features("image", "text").values())
    params = fusion.init(jax.random.key(0), given)
    before = fusion.apply(params, given)
    after = fusion.apply(params, given._replace(image=given.image[::-1]))
    assert (before[:, 0] != after[:, 0]).any()
    np.testing.assert_array_equal(before[:, 1:], after[:, 1:])
