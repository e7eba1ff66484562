"""The generated shop: what is drawn and written is what clients pick by."""

import numpy as np
import pytest
from PIL import Image

from fedvlr_jax.data.shop.draw import SIDE, draw
from fedvlr_jax.data.shop.goods import READ, SEEN, draw_goods, factors
from fedvlr_jax.data.shop.source import open_shop


def picture(seed=0, **changes):
    attributes = {name: values[0] for name, values in SEEN.items()} | changes
    return np.asarray(draw(np.random.default_rng(seed), **attributes), float)


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in SEEN.items() for v in vs[1:]])
def test_every_value_of_every_attribute_is_seen(name, value):
    plain, changed = picture(), picture(**{name: value})
    assert plain.shape == (SIDE, SIDE, 3)
    assert (np.abs(plain - changed).max(axis=2) > 16).mean() > 0.02
    np.testing.assert_array_equal(changed, picture(**{name: value}))


def test_titles_tell_what_is_read_and_nothing_that_is_seen():
    goods = draw_goods(np.random.default_rng(0), 200)
    for item in range(200):
        title = goods.title(item).lower()
        for name, values in READ.items():
            assert values[goods.read[name][item]].lower() in title
        assert not any(value in title.split() for values in SEEN.values() for value in values)


def test_factors_add_up_over_attributes():
    rng = np.random.default_rng(0)
    goods = draw_goods(rng, 300)
    found = factors(rng, goods.seen)
    assert found.std() == pytest.approx(1, abs=1e-5)
    # Explained to the last digit by one vector per value.
    columns = [np.eye(len(SEEN[name]))[values] for name, values in goods.seen.items()]
    design = np.concatenate(columns, axis=1)
    fitted = design @ np.linalg.lstsq(design, found, rcond=None)[0]
    np.testing.assert_allclose(fitted, found, atol=1e-4)


def test_clients_come_back_to_what_they_like():
    shop = open_shop(300, 200, 0.1, seed=0)
    log = shop.raw.log
    preference = np.array(
        [shop.raw.user_columns[f"preference_{name}"] for name in ("image", "text", "id")]
    ).T
    np.testing.assert_allclose(preference.sum(axis=1), 1, atol=1e-3)
    # Clients who look at pictures agree in colour with themselves more than others do.
    colour = shop.goods.seen["colour"][log.item]
    agreement = []
    for client in range(300):
        counts = np.bincount(colour[log.user == client], minlength=8)
        n = counts.sum()
        agreement.append((counts * (counts - 1)).sum() / (n * (n - 1)))
    agreement = np.array(agreement)
    looks, reads = preference[:, 0] > 0.9, preference[:, 0] < 0.1
    assert agreement[looks].mean() > agreement[reads].mean() + 0.05


def test_a_shop_is_its_seed(tmp_path):
    first, second = (open_shop(40, 30, 0.3, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.raw.log.item, second.raw.log.item)
    np.testing.assert_array_equal(first.raw.log.time, second.raw.log.time)
    assert first.raw.titles == second.raw.titles
    assert open_shop(40, 30, 0.3, seed=4).raw.titles != first.raw.titles
    first.draw_pictures(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(first.raw.pictures.values())
    with Image.open(tmp_path / names[0]) as drawn:
        assert drawn.size == (SIDE, SIDE)
    # What is there is not drawn again.
    (tmp_path / names[0]).write_bytes(b"kept")
    (tmp_path / names[1]).unlink()
    second.draw_pictures(tmp_path)
    assert (tmp_path / names[0]).read_bytes() == b"kept"
    assert (tmp_path / names[1]).stat().st_size > 1000


def test_every_client_has_its_last_two_held_out():
    log = open_shop(60, 40, 0.3, seed=0).raw.log
    assert (np.diff(log.user) >= 0).all()
    assert (np.diff(log.time)[np.diff(log.user) == 0] > 0).all()
    pairs = np.unique(np.stack([log.user, log.item]), axis=1)
    assert pairs.shape[1] == len(log.user)
    assert np.bincount(log.user).min() >= 7
