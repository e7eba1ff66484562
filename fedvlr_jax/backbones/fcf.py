"""FCF, federated collaborative filtering: the head is the user's factor, clients count the same.

Ammad-ud-din et al. 2019 (arXiv 1901.09888), as METHOD "Backbones" states it: FedAvg with equal
weights.
"""

from fedvlr_jax.backbones import linear
from fedvlr_jax.backbones.base import Backbone

FCF = Backbone(
    "fcf",
    linear.init_head,
    linear.score,
    linear.equally,
    linear=linear.parameters,
    of_theta=linear.linear_head,
)
