"""FedAvg: shared item embeddings, a private linear head, means weighted by train samples.

McMahan et al. 2017 (arXiv 1602.05629), as METHOD "Backbones" states it for recommendation:
s = theta_u . x_i + b_u.
"""

from fedvlr_jax.backbones import linear
from fedvlr_jax.backbones.base import Backbone

FEDAVG = Backbone(
    "fedavg",
    linear.init_head,
    linear.score,
    linear.by_samples,
    linear=linear.parameters,
    of_theta=linear.linear_head,
)
