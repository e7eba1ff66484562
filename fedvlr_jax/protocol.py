"""All that crosses between the server and a client's device.

A reader who wants to know what leaves a device reads this file. There is no field for a history,
a router, a head, own item rows, a prediction or view weights. What the fields that do exist can
tell about one client is stated in docs/privacy.md; the server's code receives only a `CohortSum`.
"""

from typing import Any, NamedTuple

from jaxtyping import Array, Float, Int


class Operators(NamedTuple):
    """What a client needs to fuse views by itself: D and gamma, and the frozen features."""

    params: Any
    features: Any


class OwnEquations(NamedTuple):
    """What a client needs to find its own part in ID embeddings that the server has solved for.

    `strength` is an item's weight s_i, 0 for all items where the server has gone back to the
    embeddings of a spectral start, `inverse` that of S + l identity (server/alternating.py),
    `share` is the same for every view that is these embeddings, sums up to 1 and is 0 for others.
    """

    strength: Float[Array, " items"]
    inverse: Float[Array, "dim dim"]
    share: Float[Array, " views"]


class Contributions(NamedTuple):
    """What a client needs to find its own part in ID embeddings.

    Of a spectral start `popularity` is the number of clients that have an item, `inverse` S^-2
    (client/left_out.py) for every column of a view that is these embeddings, 0 for every other
    view. `equations` are there where the server may have solved for the embeddings after it; a real
    server would send one or the other.
    """

    popularity: Float[Array, " items"]
    inverse: Float[Array, "views dim"]
    equations: OwnEquations | None = None


class LeastSquares(NamedTuple):
    """What a client needs to solve its head in closed form (client/least_squares.py).

    `gramian` is F^T F, F being the views of all items with those of an item laid flat. `unobserved`
    is the weight of any item's squared score, relative to that of the whole history, `penalty` the
    weight of the head's squared norm, relative to that of one train item. `contributions` is there
    where views are made of other clients' histories, and of its own.
    """

    gramian: Float[Array, "stacked stacked"]
    unobserved: Float[Array, ""]
    penalty: Float[Array, ""]
    contributions: Contributions | None = None


class Neighbours(NamedTuple):
    """What a client needs to score items by their neighbours in its history (client/experts.py).

    `weights` has in row j what item j of a history adds to the score of every item, 0 for most;
    `share` is how much these scores count beside those of views and head.
    """

    weights: Float[Array, "items items"]
    share: Float[Array, ""]


class Broadcast(NamedTuple):
    """Server to every client of the cohort.

    `views` are the pre-fused F_1..F_G of every item: all rows are sent, because asking for some
    would tell which items the client has. `network` is what the backbone shares beside them (None
    for most), `round` the number of rounds done. `operators` is only there in client mode `local`,
    `least_squares` only where clients solve their heads, `neighbours` only where they rank items by
    these, too; a real server would send these once, as they stay the same. In a warm round `views`
    are the columns V that the server sends, as one view; none where clients upload pairs
    (client/spectral.py); D where they add to items' equations (client/alternating.py).
    """

    views: Float[Array, "items views dim"]
    network: Any
    round: Int[Array, ""]
    operators: Operators | None = None
    least_squares: LeastSquares | None = None
    neighbours: Neighbours | None = None


class Rows(NamedTuple):
    """A gradient of items' rows, row by row: `values[k]` is added to the row of `items[k]`.

    An item may stand in several places, and id `n_items` pads.
    """

    items: Int[Array, " places"]
    values: Float[Array, "places views dim"]


class Terms(NamedTuple):
    """A gradient of items' rows as a sum of rank-one terms, a number per item times a direction.

    Added to the row of `items[k]` is sum_t coefficients[t, k] directions[t]. An item may stand in
    several places, and id `n_items` pads; without `items` place k is item k.
    """

    items: Int[Array, " places"] | None
    coefficients: Float[Array, "terms places"]
    directions: Float[Array, "terms views dim"]


class Squares(NamedTuple):
    """A gradient of all items' rows by one small matrix: F S, F being the views of all items.

    S is sum_t coefficients[t] outer(directions[t], directions[t]); S is what is uploaded.
    """

    coefficients: Float[Array, " terms"]
    directions: Float[Array, "terms stacked"]


class Upload(NamedTuple):
    """One client to the secure aggregation.

    It comes in parts, one per local epoch and a last one, that add up. A real device would add its
    own before it sends anything; the simulation adds them straight to the cohort's sum.

    `gradient` is, in client mode `accumulate`, alpha_u times the gradient of the client's loss with
    respect to items' view rows, summed over its local epochs, and `shared` the same for the
    backbone's network. In client mode `local` they are alpha_u times how far the client moved its
    copies, before minus after: of the rows of D (as one view), and of network and gamma (by these
    names). A part that adds nothing to one of them has None there. In a warm round `gradient` is
    what the client's history adds to X^T X, or to X^T X V and in a last column to how many clients
    have each item, or to its items' equations; there is no other part, and the weight is 1.
    `weight` is alpha_u before normalization over the cohort, `loss` alpha_u times the client's mean
    training loss of the round.
    `squares` is a part of the same gradient that all items have, where clients solve their heads;
    of a compressed upload the matrix S itself.
    """

    gradient: Rows | Terms | None
    shared: Any
    weight: Float[Array, ""]
    loss: Float[Array, ""]
    squares: Squares | Float[Array, "stacked stacked"] | None = None


class CohortSum(NamedTuple):
    """Secure aggregation to the server: the sum of all uploads of the cohort.

    `gradient` is dense over items, all views of one laid flat; everything else is the sum over
    clients of the upload's field. Where uploads can arrive late the simulation stacks one sum for
    every time of arrival. `squares` is the sum of the matrices S (`Squares`), None where there are
    none.
    """

    gradient: Float[Array, "*arrivals items stacked"]
    shared: Any
    weight: Float[Array, "*arrivals"]
    loss: Float[Array, "*arrivals"]
    squares: Float[Array, "*arrivals stacked stacked"] | None = None
