"""The settings of JAX that this package is written for, whatever the environment says."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import jax
import jax.experimental

# jax 0.7 has it among its experiments; later versions have it there no more.
enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64

# What has no context manager of its own is set for the whole process, and set back afterwards.
_WHOLE_PROCESS = {
    "jax_disable_most_optimizations": False,
    "jax_error_checking_behavior_divide": "ignore",
    "jax_error_checking_behavior_nan": "ignore",
    "jax_error_checking_behavior_oob": "ignore",
    "jax_no_execution": False,
    "jax_no_tracing": False,
    "jax_platform_name": "",
    "jax_scan3": False,
    "jax_use_shardy_partitioner": True,
}


@contextmanager
def as_written() -> Iterator[None]:
    """Compute with 32-bit numbers, standard promotion, compiled programs and no debugging aid.

    A run is to give the same numbers on every machine, and half of what it does is written for
    these settings: its arrays have 32 bits, its shapes are broadcast, and its programs move data
    when they say so. `JAX_ENABLE_X64`, `JAX_NUMPY_DTYPE_PROMOTION`, `JAX_DEFAULT_MATMUL_PRECISION`,
    `JAX_DISABLE_JIT` and their like, in the environment or set by the caller, would change results
    or end in an error of JAX's own. The random generator's settings are left as they are: whoever
    chooses one gets other draws, and a run's folder knows which.

    Matrix products are as exact as 32 bits allow, on every platform; a run's own are as its
    `--precision` says (`products`).

    It is a decorator, too; not for generators, whose caller would run in between.
    """
    before = {
        name: value
        for name in _WHOLE_PROCESS
        if (value := jax.config.values.get(name)) is not None and value != _WHOLE_PROCESS[name]
    }
    with ExitStack() as pinned:
        for context in (
            enable_x64(False),
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
            products("highest"),
            jax.debug_nans(False),
            jax.debug_infs(False),
            jax.disable_jit(False),
            jax.transfer_guard("allow"),
        ):
            pinned.enter_context(context)
        for name, value in before.items():
            pinned.callback(jax.config.update, name, value)
            jax.config.update(name, _WHOLE_PROCESS[name])
        yield


def products(precision: str) -> AbstractContextManager[None]:
    """Trace what is inside so that every matrix product states this precision.

    Left to itself a product of 32-bit numbers is one of bfloat16 on a TPU, and of TF32 on a GPU.

    Args:
        precision: one of `names.PRODUCTS`.
    """
    return jax.default_matmul_precision(precision)
