"""Pictures of what is hard to draw."""

import pytest

from fedvlr_jax.report import drawing
from fedvlr_jax.report.chart import Axis, Chart, Panel, Series


@pytest.mark.parametrize("number", [1e-3, 0.1, 0.3, 1.0, 50.0, 1000.0])
def test_a_single_number_with_its_interval_is_in_sight(number):
    """Matplotlib warns of some of them."""
    series = Series("NDCG@50", [number], [2.0], interval=([1.5], [2.5]))
    panel = Panel(Axis("clients", log=True), Axis("%"), [series])
    drawn = drawing.figure(Chart("NDCG@50 over clients", [panel]))
    drawn.canvas.draw()
    (axis,) = drawn.axes
    low, high = axis.get_xlim()
    assert low < number < high
    assert axis.get_ylim()[0] < 1.5
