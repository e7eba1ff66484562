"""Whether clients rely on what they were planted to prefer."""

import numpy as np
from jaxtyping import Float
from scipy import stats

from fedvlr_jax.names import MODALITIES

_FEWEST = 3  # clients of which a correlation tells anything


def correlation(
    preference: Float[np.ndarray, "clients modalities"],
    reliance: Float[np.ndarray, "clients modalities"],
) -> float | None:
    """Spearman's rank correlation of image against text, planted and learned.

    Args:
        preference: planted shares of `MODALITIES`.
        reliance: learned ones, of the same clients.

    Returns:
        The correlation of the differences image - text over clients, from -1 to 1; None where there
        are fewer than three clients, or where one of the differences is the same for all.

    Example:
        >>> preference = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
        >>> reliance = np.array([[0.6, 0.2, 0.2], [0.2, 0.5, 0.3], [0.3, 0.3, 0.4]])
        >>> round(correlation(preference, reliance), 2)
        1.0
    """
    image, text = MODALITIES.index("image"), MODALITIES.index("text")
    planted, learned = (x[:, image] - x[:, text] for x in (preference, reliance))
    if len(planted) < _FEWEST or np.ptp(planted) == 0 or np.ptp(learned) == 0:
        return None
    return float(stats.spearmanr(planted, learned).statistic)
