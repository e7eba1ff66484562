"""What becomes of a cohort's uploads on their way to the server's optimizer (METHOD "One round").

The package's own is their weighted mean. A plugin (`fedvlr_jax.register_aggregation`) may change
what one client hands over, before the sum, and the mean of the cohort, after it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from fedvlr_jax.errors import UserError
from fedvlr_jax.registry import AGGREGATIONS


class ClientGradient(NamedTuple):
    """All that one client hands over in a round, without its weight.

    `rows` are those of the items that it has touched, each once, others zero; in client mode
    `accumulate` of the views, in `local` of D. `shared` is of the backbone's network, in mode
    `local` of gamma, too; None where there is nothing. See `protocol.Upload`.
    """

    rows: Float[Array, "places views dim"]
    shared: Any


@dataclass(frozen=True)
class Aggregation:
    """How a cohort's uploads become the gradient that the server's optimizer steps along.

    Its functions are traced by JAX, and give a tree of the shapes that they got. None changes
    nothing.

    Attributes:
        name: its flag value.
        of_client: (`ClientGradient`) -> the same, on every client alone, before it is weighted and
            added to the others'. Clipping (`--clip_norm`) comes after it.
        of_mean: (mean gradient of what the server learns, `aggregate.Shared`) -> the same, on the
            server, after noise and before the optimizer.
    """

    name: str
    of_client: Callable[[ClientGradient], ClientGradient] | None = None
    of_mean: Callable[[Any], Any] | None = None

    def applied(self, function: Callable | None, gradient: Any) -> Any:
        """What one of its functions makes of a gradient.

        Raises:
            UserError: another tree, or arrays of other shapes or types.
        """
        if function is None:
            return gradient
        changed = function(gradient)
        given, made = (
            jax.tree.map(lambda x: f"{jnp.result_type(x)}{jnp.shape(x)}", tree)
            for tree in (gradient, changed)
        )
        if (type(given), given) != (type(made), made):
            raise UserError(
                f"--aggregation={self.name}: its function gives {made}, expected a tree of the "
                f"same shapes as it got, {given}"
            )
        return changed


MEAN = Aggregation("mean")
AGGREGATIONS.own(MEAN)
