import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedvlr_jax.fusion.operators import Features, Fusion, named
from fedvlr_jax.names import VIEWS
from tests import oracle

N_ITEMS, DIM = 9, 6


def features(*present):
    rng = np.random.default_rng(0)
    rows = {"image": rng.standard_normal((N_ITEMS, 7)), "text": rng.standard_normal((N_ITEMS, 5))}
    return {name: jnp.asarray(x, jnp.float32) for name, x in rows.items() if name in present}


BOTH = ("image", "text")


@pytest.mark.parametrize(
    ("present", "layer_norm"),
    [(BOTH, True), (BOTH, False), (("image",), True), (("text",), True), ((), True)],
)
def test_operators_follow_their_formulas(present, layer_norm):
    missing = {"image", "text"} - set(present)
    names = tuple(v for v in VIEWS if v.removesuffix("_dominant") not in missing)
    inputs = features(*present)
    fusion = Fusion(named(*names), N_ITEMS, DIM, layer_norm=layer_norm)
    near = np.random.default_rng(1).integers(0, N_ITEMS, (N_ITEMS, 3))
    given = Features(inputs.get("image"), inputs.get("text"), jnp.asarray(near))
    params = jax.jit(fusion.init)(jax.random.key(0), given)
    rng = np.random.default_rng(2)
    params = jax.tree.map(lambda x: x + 0.2 * rng.standard_normal(x.shape, "f4"), params)
    fused = jax.jit(fusion.apply)(params, given)
    assert fused.shape == (N_ITEMS, len(names), DIM)
    expected = jax.jit(lambda p: oracle.fuse(p, inputs, names, near))(params)
    for j in range(len(names)):
        np.testing.assert_allclose(fused[:, j], expected[j], atol=1e-5)


def test_operators_share_nothing_but_the_embeddings():
    fusion = Fusion(named("sum", "mlp", "gate"), N_ITEMS, DIM)
    given = Features(*features("image", "text").values())
    params = fusion.init(jax.random.key(0), given)["params"]
    changed = jax.tree.map(lambda x: x, params)
    changed["view_gate"] = jax.tree.map(lambda x: x + 1, params["view_gate"])
    for modality in ("image", "text", "id"):  # the third of the operators is the last of the maps
        kernel = params[modality]["map"]["kernel"]
        changed[modality]["map"]["kernel"] = kernel.at[:, 2 * DIM :].multiply(2)
        changed[modality]["norm_2"]["bias"] = params[modality]["norm_2"]["bias"] + 1
    before, after = (fusion.apply({"params": p}, given) for p in (params, changed))
    np.testing.assert_array_equal(before[:, :2], after[:, :2])
    assert (before[:, 2] != after[:, 2]).any()


def test_a_modality_view_reads_its_modality_only():
    fusion = Fusion(named("image", "text", "id"), N_ITEMS, DIM)
    given = Features(*features("image", "text").values())
    params = fusion.init(jax.random.key(0), given)
    before = fusion.apply(params, given)
    after = fusion.apply(params, given._replace(image=given.image[::-1]))
    assert (before[:, 0] != after[:, 0]).any()
    np.testing.assert_array_equal(before[:, 1:], after[:, 1:])


def test_rows_after_the_last_item_change_nothing():
    given = Features(*features("image", "text").values())
    longer = Features(*(jnp.pad(rows, ((0, 3), (0, 0))) for rows in given[:2]))
    fusion = Fusion(named("sum", "mlp", "gate", "id"), N_ITEMS, DIM)
    params = jax.jit(fusion.init)(jax.random.key(0), given)
    again = jax.jit(fusion.init)(jax.random.key(0), longer)
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)

    @jax.jit
    def fused_and_gradients(params, given):
        fused, pull_back = jax.vjp(lambda p: fusion.apply(p, given), params)
        return fused, pull_back(fused)

    (expected, gradients), (found, others) = (
        fused_and_gradients(params, rows) for rows in (given, longer)
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)
    for a, b in zip(*map(jax.tree.leaves, (gradients, others)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_modalities_that_are_not_used_are_not_read():
    given = Features(*features("image", "text").values())
    fusion = Fusion(named("sum", "mlp"), N_ITEMS, DIM, used=("text",))
    assert fusion.modalities(given) == ("text",)
    params = fusion.init(jax.random.key(0), given)
    before = fusion.apply(params, given)
    other = {"params": params["params"] | {"item_embedding": jnp.ones((N_ITEMS, DIM))}}
    np.testing.assert_array_equal(before, fusion.apply(other, given))
    np.testing.assert_array_equal(before, fusion.apply(params, given._replace(image=None)))
    assert (before != fusion.apply(params, given._replace(text=given.text[::-1]))).any()


def test_a_modality_taken_out_is_the_same_for_all_items():
    given = Features(*features("image", "text").values())
    fusion = Fusion(named("sum", "image", "id"), N_ITEMS, DIM)
    params = fusion.init(jax.random.key(0), given)
    views, without = fusion.apply(params, given), fusion.apply(params, given, "image")
    np.testing.assert_array_equal(views[:, 2], without[:, 2])
    np.testing.assert_allclose(without[:, 1], jnp.tile(views[:, 1].mean(axis=0), (N_ITEMS, 1)))
