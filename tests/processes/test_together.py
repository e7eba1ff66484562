"""A single process asks itself; test_training.py has several."""

import numpy as np

from fedvlr_jax.processes import together


def test_a_single_process_is_all_there_is():
    rows = np.arange(3, dtype=np.int64) << 40
    assert together.count() == 1
    assert together.is_first()
    assert together.own_clients(7) == range(7)
    np.testing.assert_array_equal(together.concatenated(rows), rows)
    np.testing.assert_array_equal(together.total(rows), rows)
    assert together.first_says(lambda: True)
    assert not together.first_says(lambda: False)
    together.check_same("settings", "anything")
    together.wait("nobody")
