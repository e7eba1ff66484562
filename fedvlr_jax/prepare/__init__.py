"""From published files, or a generated shop, to a folder that `fedvlr_jax.train` reads."""

from fedvlr_jax.prepare.config import PrepareConfig
from fedvlr_jax.prepare.run import Prepared, prepare

__all__ = ["PrepareConfig", "Prepared", "prepare"]
