import numpy as np

from fedvlr_jax.analysis import routers


def test_mean_and_spread_are_reported():
    weights = np.array([[0.2, 0.8], [0.6, 0.4]])
    found = routers.summarize(("sum", "gate"), weights)
    assert found.mean == {"sum": 0.4, "gate": 0.6}
    assert found.spread == {"sum": 0.2, "gate": 0.2}
    assert not found.collapsed
    assert found.sentence() == "routers: sum 0.40 (sd 0.20), gate 0.60 (sd 0.20)"


def test_a_collapse_is_called_one():
    found = routers.summarize(("sum", "gate"), np.array([[0.97, 0.03], [0.99, 0.01]]))
    assert found.collapsed
    assert "collapsed onto the view 'sum'" in found.sentence()
    assert not routers.summarize(("mlp",), np.ones((3, 1))).collapsed
