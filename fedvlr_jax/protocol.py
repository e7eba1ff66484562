"""All that crosses between the server and a client's device.

A reader who wants to know what leaves a device reads this file. There is no field for a history,
a router, a head, a prediction or view weights. What the fields that do exist can tell about one
client is stated in docs/privacy.md; the server's code receives only a `CohortSum`.
"""

from typing import NamedTuple

from jaxtyping import Array, Float, Int


class Broadcast(NamedTuple):
    """Server to every client of the cohort: the pre-fused views F_1..F_G of every item.

    All rows are sent, because asking for some would tell which items the client has.
    """

    views: Float[Array, "items views dim"]


class Upload(NamedTuple):
    """One client to the secure aggregation.

    It comes in parts, one per local epoch and a last one, that add up. A real device would add its
    own before it sends anything; the simulation adds them straight to the cohort's sum.

    `gradient[k]` is alpha_u times the gradient of the client's loss with respect to view rows
    `items[k]`, summed over its local epochs; an item may stand in several places, and id `n_items`
    pads. `weight` is alpha_u before normalization over the cohort, `loss` alpha_u times the
    client's mean training loss of the round.
    """

    items: Int[Array, " rows"]
    gradient: Float[Array, "rows views dim"]
    weight: Float[Array, ""]
    loss: Float[Array, ""]


class CohortSum(NamedTuple):
    """Secure aggregation to the server: the sum of all uploads of the cohort.

    `gradient` is sum_u alpha_u dL_u/dF (dense over items), `loss` sum_u alpha_u loss_u, `weight`
    sum_u alpha_u.
    """

    gradient: Float[Array, "items views dim"]
    weight: Float[Array, ""]
    loss: Float[Array, ""]
