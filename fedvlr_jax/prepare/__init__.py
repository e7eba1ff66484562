"""From published files, or a generated shop, to a folder that `fedvlr_jax.train` reads."""

from fedvlr_jax.prepare.options import PrepareConfig
from fedvlr_jax.prepare.pipeline import Prepared, prepare

__all__ = ["PrepareConfig", "Prepared", "prepare"]
