"""Federated recommenders that FedVLR plugs into."""

from fedvlr_jax.backbones.base import Backbone
from fedvlr_jax.backbones.fedavg import FEDAVG

__all__ = ["Backbone", "get"]

_BY_NAME = {backbone.name: backbone for backbone in (FEDAVG,)}


def get(name: str) -> Backbone:
    """The backbone with flag value `name`, one of `fedvlr_jax.names.BACKBONES`."""
    return _BY_NAME[name]
