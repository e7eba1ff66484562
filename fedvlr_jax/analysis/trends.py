"""How a quantity changes with the number of clients: laws fitted to the runs of a study.

Costs follow a power law, a N^b, fitted to their logarithms by maximum likelihood. A cost may be
known as an interval only: of a run that did not reach its target it is known that it takes more
than what was spent. Such a run stays in the fit (Tobin 1958), as leaving it out would take away
the largest costs. Accuracy follows a law that saturates, a - b N^-c.

Runs of one number of clients differ by their seeds. Intervals are made of these differences alone,
number by number, so they need not be the same for all. A handful of seeds tells its own spread
badly, and resampling them (the bootstrap) gives intervals that are too narrow: of five, by a tenth
already without that. So spreads have n - 1 in the denominator, and Student's t takes the place of
the normal distribution, with Satterthwaite's degrees of freedom.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import optimize, special, stats

GROWS, FALLS, UNKNOWN = "grows", "falls", "no trend can be told"
_LEVEL = 0.95  # of every interval
_FEWEST = 3  # runs that reached the target
_STEPS = 2000  # of the fit to censored costs at most; it takes some tens
_EXACT = 1e-6  # between logarithms that are the same
# Exponents that a law which saturates may have: below, it could not be told from a logarithm, and
# above, it is flat from the second number of clients on.
_EXPONENTS = np.geomspace(0.05, 3.0, 83)
_DRAWS = 4000
Interval = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """A law at some numbers of clients, and the ends of the 95 % interval there."""

    value: Float[np.ndarray, " points"]
    low: Float[np.ndarray, " points"]
    high: Float[np.ndarray, " points"]


@dataclass(frozen=True)
class PowerLaw:
    """`coefficient` * clients^`exponent`.

    Attributes:
        exponent: the power.
        interval: of the exponent; both ends are NaN where no number of clients has two runs.
        coefficient: the value for one client.
        curve: at the numbers of clients that were asked for.
        bends: the p-value of the means lying on a line of logarithms (the F test of lack of fit),
            None where a run is known as an interval only, or runs of a number do not differ.
    """

    exponent: float
    interval: Interval
    coefficient: float
    curve: Curve
    bends: float | None

    @property
    def verdict(self) -> str:
        """Whether the interval of the exponent tells it from 0."""
        return verdict(self.interval)


@dataclass(frozen=True)
class SaturatingLaw:
    """`limit` - `distance` * clients^-`exponent`.

    Attributes:
        exponent: of the law, between the ends of what is tried.
        interval: of the exponent.
        limit: what is approached.
        distance: of one client from it; below 0 where the quantity falls.
        change: from the smallest number of clients to the largest, on the curve.
        change_interval: of the change.
        curve: at the numbers of clients that were asked for.
    """

    exponent: float
    interval: Interval
    limit: float
    distance: float
    change: float
    change_interval: Interval
    curve: Curve

    @property
    def verdict(self) -> str:
        """Whether the interval of the change tells it from 0."""
        return verdict(self.change_interval)

    @property
    def has_limit(self) -> bool:
        """Whether the exponent is told from the smallest one: below, a limit means nothing."""
        return self.interval[0] > float(_EXPONENTS[1])


def verdict(interval: Interval) -> str:
    """Whether an interval is above 0, below, or neither."""
    low, high = interval
    return GROWS if low > 0 else FALLS if high < 0 else UNKNOWN


def power_law(
    clients: Int[np.ndarray, " runs"],
    low: Float[np.ndarray, " runs"],
    high: Float[np.ndarray, " runs"],
    at: Float[np.ndarray, " points"],
) -> PowerLaw | None:
    """Fit a power law to costs.

    The logarithms of costs are normal around a line of the logarithm of clients. Runs without
    interval give the line of least squares.

    Where a line goes through all costs, or through all intervals that they are known by, runs tell
    nothing of noise: the intervals are then from the least to the most that such a line can have.

    Args:
        clients: of every run.
        low: every run's cost, above 0, or the lower end of what it may be.
        high: the same cost, or the upper end; infinite where the target was not reached.
        at: numbers of clients of the curve.

    Returns:
        None where fewer than three runs, or runs of fewer than two numbers of clients, have an
        upper end.

    Example:
        >>> clients, cost = np.array([10, 10, 100, 100]), np.array([2.0, 3.0, 20.0, 30.0])
        >>> round(power_law(clients, cost, cost, np.array([1000.0])).exponent, 6)
        1.0
    """
    reached = np.isfinite(high)
    if reached.sum() < _FEWEST or len(np.unique(clients[reached])) < 2:
        return None
    middle = np.log(clients).mean()
    x = np.log(clients) - middle
    # What is wanted of a line (value at 0, slope): its slope, then values at 1 and at the points.
    places = np.log(np.concatenate([[1.0], at])) - middle
    wanted = np.array([(0.0, 1.0), *((1.0, place) for place in places)])
    lines = _lines_through(x, np.log(low), np.log(high), wanted)
    if lines is not None:
        values, low_ends, high_ends = lines
    else:
        line, influence, covariance = _censored_line(x, np.log(low), np.log(high))
        values = wanted @ line
        halves = np.array([_half(influence @ direction, clients) for direction in wanted])
        if not (low == high).all():
            # Where few runs have both ends, what they differ by says little of the spread.
            factor = stats.t.ppf((1 + _LEVEL) / 2, max(int(reached.sum()) - 2, 1))
            own = np.einsum("ki,ij,kj->k", wanted, covariance, wanted)
            halves = np.maximum(halves, factor * np.sqrt(np.maximum(own, 0.0)))
        low_ends, high_ends = values - halves, values + halves
    if len(np.unique(clients)) == len(clients):
        low_ends, high_ends = np.full((2, len(values)), np.nan)
    # Ends that no float holds stand at the largest ones.
    costs = [np.exp(np.clip(part[1:], -700, 700)) for part in (values, low_ends, high_ends)]
    return PowerLaw(
        exponent=float(values[0]),
        interval=(float(low_ends[0]), float(high_ends[0])),
        coefficient=float(costs[0][0]),
        curve=Curve(*(part[1:] for part in costs)),
        bends=_lack_of_fit(clients, np.log(low)) if (low == high).all() else None,
    )


def _lines_through(
    x: Float[np.ndarray, " runs"],
    low: Float[np.ndarray, " runs"],
    high: Float[np.ndarray, " runs"],
    wanted: Float[np.ndarray, "k 2"],
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"], Float[np.ndarray, " k"]] | None:
    """What lines through all intervals have: one in their middle, the least, and the most.

    Args:
        x: of the runs.
        low: the ends below.
        high: the ends above, some of them infinite.
        wanted: what of a line, (value at 0, slope), is looked at, the slope first.

    Returns:
        None if there is no such line.
    """
    design = np.stack([np.ones_like(x), x], axis=1)
    above = np.isfinite(high)
    bounds = np.concatenate([high[above], -low]) + _EXACT
    sides = np.concatenate([design[above], -design])

    def least(direction: np.ndarray) -> optimize.OptimizeResult:
        return optimize.linprog(direction, sides, bounds, bounds=(None, None))

    steepest = [least(sign * wanted[0]) for sign in (1, -1)]
    if not all(found.success for found in steepest):
        return None
    middle = wanted @ (steepest[0].x + steepest[1].x) / 2
    ends = [[sign * least(sign * direction).fun for direction in wanted] for sign in (1, -1)]
    # No more digits than the bounds have.
    values, lower, upper = np.round(np.array([middle, *ends]), 5) + 0.0
    return values, lower, upper


def _censored_line(
    x: Float[np.ndarray, " runs"], low: Float[np.ndarray, " runs"], high: Float[np.ndarray, " runs"]
) -> tuple[Float[np.ndarray, " 2"], Float[np.ndarray, "runs 2"], Float[np.ndarray, "2 2"]]:
    """The line of maximum likelihood, (value at 0, slope).

    By expectation and maximization: what is known as an interval takes its expected value, then
    the line is that of least squares, and so on.

    Returns:
        The line, every run's influence on it, and its covariance by the likelihood's curvature.
    """
    design = np.stack([np.ones_like(x), x], axis=1)
    solve = np.linalg.pinv(design)
    line = solve @ low
    spread = max(float(np.std(low - design @ line)), 1e-3)
    for _ in range(_STEPS):
        mean, variance = _within(low, high, design @ line, spread)
        expected = design @ line + spread * mean
        before, line = line, solve @ expected
        squares = (expected - design @ line) ** 2 + spread**2 * variance
        spread = max(float(np.sqrt(squares.mean())), 1e-6)
        if np.abs(line - before).max() < 1e-10:
            break
    theta = np.array([*line, np.log(spread)])

    def scores(theta: np.ndarray) -> np.ndarray:
        """The gradient of every run's logarithmic likelihood."""
        mean, variance = _within(low, high, design @ theta[:2], np.exp(theta[2]))
        of_line = design * (mean / np.exp(theta[2]))[:, None]
        return np.concatenate([of_line, (mean**2 + variance - 1)[:, None]], axis=1)

    steps = 1e-5 * np.eye(3) * np.exp(theta[2])
    curvature = np.stack(
        [(scores(theta + s) - scores(theta - s)).sum(0) / (2 * s.max()) for s in steps]
    )
    inverse = -np.linalg.pinv((curvature + curvature.T) / 2)
    covariance = inverse[:2, :2] * len(x) / max(len(x) - 2, 1)
    return line, (scores(theta) @ inverse)[:, :2], covariance


def _within(
    low: Float[np.ndarray, " runs"],
    high: Float[np.ndarray, " runs"],
    mean: Float[np.ndarray, " runs"],
    spread: float,
) -> tuple[Float[np.ndarray, " runs"], Float[np.ndarray, " runs"]]:
    """Mean and variance of a standard normal number that lies in each of some intervals.

    Args:
        low: the ends below; an interval may be one number.
        high: the ends above, some of them infinite.
        mean: of the normal distribution.
        spread: its standard deviation.
    """
    first, last = (low - mean) / spread, (high - mean) / spread
    means, variances = first.copy(), np.zeros_like(first)
    open_ = high > low
    # Of the two tails, the lower one has digits left where the other is next to 1.
    flip = first[open_] > 0
    a = np.where(flip, -last[open_], first[open_])
    b = np.where(flip, -first[open_], last[open_])
    logs = special.log_ndtr(b)
    mass = logs + np.log1p(-np.exp(np.minimum(special.log_ndtr(a) - logs, -1e-12)))
    at_a, at_b = (np.exp(-(z**2) / 2 - np.log(2 * np.pi) / 2 - mass) for z in (a, b))
    m = at_a - at_b
    ends = [np.where(np.isfinite(z), z, 0.0) * d for z, d in ((a, at_a), (b, at_b))]
    means[open_] = np.where(flip, -m, m)
    variances[open_] = np.clip(1 + ends[0] - ends[1] - m**2, 0.0, 1.0)
    return means, variances


def _half(influence: Float[np.ndarray, " runs"], clients: Int[np.ndarray, " runs"]) -> float:
    """Half of the interval of a sum of influences.

    The variance is that of resampling seeds within each number of clients, with n - 1 for n. Where
    the runs of one number are farther from the law than from one another, that distance counts: a
    law that does not hold gets a wider interval.
    """
    variances, freedoms = [], []
    for number in np.unique(clients):
        own = influence[clients == number]
        n = len(own)
        around_law = float((own**2).sum())
        around_mean = n * float(own.var(ddof=1)) if n > 1 else 0.0
        variances.append(max(around_law, around_mean))
        freedoms.append(max(n - 1, 1))
    total = sum(variances)
    if total <= 0:
        return 0.0
    freedom = total**2 / sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
    return float(stats.t.ppf((1 + _LEVEL) / 2, freedom) * np.sqrt(total))


def _lack_of_fit(clients: Int[np.ndarray, " runs"], y: Float[np.ndarray, " runs"]) -> float | None:
    """The p-value of the means of each number of clients lying on a line (F test)."""
    numbers = np.unique(clients)
    means = np.array([y[clients == number].mean() for number in numbers])
    counts = np.array([(clients == number).sum() for number in numbers])
    within = sum(((y[clients == n] - m) ** 2).sum() for n, m in zip(numbers, means, strict=True))
    freedom, others = len(numbers) - 2, len(y) - len(numbers)
    if freedom < 1 or others < 1 or within <= _EXACT**2 * len(y):
        return None
    line = np.polyfit(np.log(numbers), means, 1, w=np.sqrt(counts))
    between = (counts * (means - np.polyval(line, np.log(numbers))) ** 2).sum()
    return float(stats.f.sf(between / freedom / (within / others), freedom, others))


def saturating_law(
    clients: Int[np.ndarray, " runs"],
    scores: Float[np.ndarray, " runs"],
    errors: Float[np.ndarray, " runs"],
    at: Float[np.ndarray, " points"],
    same_users: bool = False,
    seed: int = 0,
) -> SaturatingLaw | None:
    """Fit a law that saturates to mean scores, weighted by how well each is known.

    For every exponent that is tried, limit and distance are those of least squares. Intervals are
    percentiles over draws of the means of all numbers of clients (a parametric bootstrap), from
    Student's t for as many runs as there are. A mean varies with seeds by what runs differ by. This
    holds what their users make them differ by, if every run has users of its own; a few runs that
    happen to be alike are not believed to differ by less than that. If all runs of a number of
    clients have the same users, what users differ by comes on top.

    Args:
        clients: of every run.
        scores: mean over a run's users.
        errors: standard error of that mean, over users.
        at: numbers of clients of the curve.
        same_users: whether runs of one number of clients have the same users.
        seed: of the draws.

    Returns:
        None for fewer than three numbers of clients, of which no law with three parameters is told,
        or where no number has two runs.
    """
    numbers = np.unique(clients)
    if len(numbers) < 3 or len(numbers) == len(clients):
        return None
    rng = np.random.default_rng(seed)
    parts = [_mean(scores[clients == n], errors[clients == n], same_users) for n in numbers]
    means, variances, freedoms = (np.array(part) for part in zip(*parts, strict=True))
    deviations = np.sqrt(variances)
    drawn = means + deviations * rng.standard_t(freedoms, (_DRAWS, len(numbers)))
    weights = 1 / np.maximum(deviations, max(1e-3 * float(deviations.max()), 1e-9))
    ends = np.array([numbers[0], numbers[-1]], float)
    everywhere = np.concatenate([ends, at])
    shape = numbers.astype(float), weights, everywhere
    (exponent,), (limit,), (distance,), (curve,) = _saturating(means[None], *shape)
    exponents, _, _, curves = _saturating(drawn, *shape)
    low, high = (float(end) for end in _percentiles(exponents))
    low_curve, high_curve = _percentiles(curves[:, 2:])
    change_ends = _percentiles(curves[:, 1] - curves[:, 0])
    return SaturatingLaw(
        exponent=float(exponent),
        interval=(low, high),
        limit=float(limit),
        distance=float(distance),
        change=float(curve[1] - curve[0]),
        change_interval=(float(change_ends[0]), float(change_ends[1])),
        curve=Curve(curve[2:], low_curve, high_curve),
    )


def _mean(
    scores: Float[np.ndarray, " runs"], errors: Float[np.ndarray, " runs"], same_users: bool
) -> tuple[float, float, float]:
    """The mean of runs, its variance, and that variance's degrees of freedom."""
    n = len(scores)
    of_users = float((errors**2).mean())
    of_runs = float(scores.var(ddof=1)) if n > 1 else 0.0
    many = 1e6  # users tell their own variance
    if same_users:
        variance = of_runs / n + of_users
        freedom = variance**2 / (of_runs / n) ** 2 * max(n - 1, 1) if of_runs else many
    else:
        variance = max(of_runs, of_users) / n
        freedom = n - 1 if of_runs > of_users else many
    return float(scores.mean()), variance, float(min(freedom, many))


def _percentiles(draws: Float[np.ndarray, "draws *shape"]) -> Float[np.ndarray, "2 *shape"]:
    return np.percentile(draws, [50 * (1 - _LEVEL), 50 * (1 + _LEVEL)], axis=0)


def _saturating(
    means: Float[np.ndarray, "draws sizes"],
    numbers: Float[np.ndarray, " sizes"],
    weights: Float[np.ndarray, " sizes"],
    at: Float[np.ndarray, " points"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Float[np.ndarray, "draws points"]]:
    """Exponent, limit, distance and curve of every row of means."""
    coefficients, losses = [], []
    for exponent in _EXPONENTS:
        design = np.stack([np.ones_like(numbers), -(numbers**-exponent)], axis=1) * weights[:, None]
        solved = np.linalg.pinv(design) @ (means * weights).T
        coefficients.append(solved)
        losses.append((((means * weights).T - design @ solved) ** 2).sum(axis=0))
    best = np.argmin(np.stack(losses), axis=0)
    exponents = _EXPONENTS[best]
    limit, distance = np.moveaxis(np.stack(coefficients)[best, :, np.arange(len(best))], 1, 0)
    curve = limit[:, None] - distance[:, None] * at[None] ** -exponents[:, None]
    return exponents, limit, distance, curve


def mean_error(values: Float[np.ndarray, " users"], known: Bool[np.ndarray, " users"]) -> float:
    """The standard error of the mean over users that are known, 0 for fewer than two."""
    own = values[known]
    return float(own.std(ddof=1) / np.sqrt(len(own))) if len(own) > 1 else 0.0
