"""The peak of a run's memory is its own, whatever ran before it in the process."""

import numpy as np
import pytest

from fedvlr_jax.simulation import memory

LARGE = 400  # megabytes


@pytest.mark.parametrize("pieces", [1, 7, 50, 400, 5000, 100_000])
def test_what_is_gone_does_not_count(pieces):
    memory.reset_peak()
    before = memory.peak_bytes()
    held = [np.ones(LARGE * 1_000_000 // 8 // pieces) for _ in range(pieces)]
    # Some of it may lie in pages that the process has anyway, between what earlier tests left.
    assert memory.peak_bytes() > before + 0.5e6 * LARGE
    del held
    memory.reset_peak()
    assert memory.peak_bytes() < before + 0.2e6 * LARGE


@pytest.mark.parametrize("small", [1, 20, 60, 150])
def test_a_small_run_after_a_large_one_has_its_own_peak(small):
    def peak(megabytes):
        memory.reset_peak()
        held = [np.ones(12_500) for _ in range(10 * megabytes)]  # 0.1 MB each
        cycle = [held]
        cycle.append(cycle)  # only the garbage collector frees it
        return memory.peak_bytes()

    alone, large, after = peak(small), peak(LARGE), peak(small)
    assert large > alone + 0.5e6 * (LARGE - small)
    assert after == pytest.approx(alone, abs=0.1e6 * LARGE)
