"""Simulate federated vision-language recommendation (FedVLR) with all clients on one device mesh.

import fedvlr_jax
result = fedvlr_jax.train(fedvlr_jax.Config.of(clients=1000, rounds=20), out="runs/first")
print(result.summary["test"]["warm/ndcg@50"])
"""

from fedvlr_jax.aggregation import Aggregation
from fedvlr_jax.backbones import Backbone
from fedvlr_jax.config import Config
from fedvlr_jax.errors import PrunedError, Stopped, UserError
from fedvlr_jax.fusion.operators import View
from fedvlr_jax.opened import Run, open_run, open_sweep
from fedvlr_jax.registry import AGGREGATIONS, BACKBONES, VIEWS
from fedvlr_jax.simulation.callbacks import Callback
from fedvlr_jax.simulation.run import Result, train
from fedvlr_jax.version import __version__

register_aggregation = AGGREGATIONS.register
register_backbone = BACKBONES.register
register_view = VIEWS.register

__all__ = [
    "Aggregation",
    "Backbone",
    "Callback",
    "Config",
    "PrunedError",
    "Result",
    "Run",
    "Stopped",
    "UserError",
    "View",
    "__version__",
    "open_run",
    "open_sweep",
    "register_aggregation",
    "register_backbone",
    "register_view",
    "train",
]
