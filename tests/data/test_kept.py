import pytest

from fedvlr_jax import data
from fedvlr_jax.config import Config
from fedvlr_jax.errors import UserError
from tests.data.test_layout import write


@pytest.fixture
def loaded(monkeypatch):
    """Every configuration that was loaded, in order."""
    found, load = [], data.load
    monkeypatch.setattr(data, "load", lambda config: found.append(config) or load(config))
    return found


def config(**settings):
    return Config.of(clients=20, items=30, **settings)


def test_what_was_used_last_is_kept(loaded):
    kept = data.DatasetCache()
    first = kept.load(config(seed=0))
    assert kept.load(config(seed=1, variant="id")) is first
    few, many = (config(preference_concentration=c) for c in (0.1, 10.0))
    one, other, again = kept.load_all([few, many, few])
    assert one is again
    assert one is not other
    assert kept.load_all([many]) == [other]
    assert kept.load(few) is not one  # it was let go of
    assert [c.data.preference_concentration for c in loaded] == [0.3, 0.1, 10.0, 0.1]


def test_a_folder_that_needs_no_features_is_not_taken_for_one_that_has_them(tmp_path):
    kept = data.DatasetCache()
    folder = write(tmp_path / "shop", features=())
    plain, fused = (Config.of(data=str(folder), variant=name) for name in ("id", "fedvlr"))
    assert kept.load(plain).catalogue.image is None
    with pytest.raises(UserError, match="features"):
        kept.load(fused)
    write(folder)
    assert kept.load(fused).catalogue.image is not None
