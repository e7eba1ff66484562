"""Federated recommenders that FedVLR plugs into."""

from fedvlr_jax.backbones.base import Backbone
from fedvlr_jax.backbones.fcf import FCF
from fedvlr_jax.backbones.fedavg import FEDAVG
from fedvlr_jax.backbones.fedncf import FEDNCF
from fedvlr_jax.backbones.fedrap import FEDRAP
from fedvlr_jax.backbones.linear import equally
from fedvlr_jax.backbones.pfedrec import PFEDREC
from fedvlr_jax.registry import BACKBONES

__all__ = ["Backbone", "equally", "get"]

BACKBONES.own(FEDAVG, FCF, FEDNCF, PFEDREC, FEDRAP)


def get(name: str) -> Backbone:
    """The backbone with flag value `name`: of `fedvlr_jax.names.BACKBONES`, or a plugin's."""
    return BACKBONES[name]
