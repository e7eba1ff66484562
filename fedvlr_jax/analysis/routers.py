"""What the personal routers learned: how the clients weigh the views."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_COLLAPSED = 0.9


@dataclass(frozen=True)
class RouterSummary:
    """Mean and spread (standard deviation over clients) of each view's weight, by view name."""

    mean: dict[str, float]
    spread: dict[str, float]

    @property
    def collapsed(self) -> bool:
        """Whether the clients put more than 90 % of their weight on the same view."""
        return len(self.mean) > 1 and max(self.mean.values()) > _COLLAPSED

    def sentence(self) -> str:
        """One line for a person."""
        text = "routers: " + ", ".join(
            f"{view} {mean:.2f} (sd {self.spread[view]:.2f})" for view, mean in self.mean.items()
        )
        if self.collapsed:
            top = max(self.mean, key=self.mean.get)
            text += f" -- warning: collapsed onto the view '{top}'; a lower --router_lr may help"
        return text


def summarize(views: tuple[str, ...], weights: Float[np.ndarray, "clients views"]) -> RouterSummary:
    """Mean and spread of the view weights over clients.

    Example:
        >>> weights = np.array([[0.75, 0.25], [0.25, 0.75]])
        >>> summarize(("image", "text"), weights).sentence()
        'routers: image 0.50 (sd 0.25), text 0.50 (sd 0.25)'
    """

    def by_view(numbers: Float[np.ndarray, " views"]) -> dict[str, float]:
        return {v: round(float(x), 4) for v, x in zip(views, numbers, strict=True)}

    return RouterSummary(by_view(weights.mean(axis=0)), by_view(weights.std(axis=0)))
