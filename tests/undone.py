"""Plugins of one test that the next one does not find."""

import contextlib
import sys

from fedvlr_jax import plugins
from fedvlr_jax.registry import AGGREGATIONS, BACKBONES, VIEWS


@contextlib.contextmanager
def undone():
    """Forget afterwards what is registered and imported meanwhile."""
    kept = [sys.path, plugins._loaded]
    kept += [d for r in (AGGREGATIONS, BACKBONES, VIEWS) for d in (r, r._owners)]
    before = [type(x).copy(x) for x in kept]
    modules = set(sys.modules)
    try:
        yield
    finally:
        for name in set(sys.modules) - modules:
            if "fedvlr_plugins" in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]
        for now, old in zip(kept, before, strict=True):
            now.clear()
            (now.extend if isinstance(now, list) else now.update)(old)
