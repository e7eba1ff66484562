"""Laws over the number of clients: against slow oracles, and as right as their intervals say."""

import numpy as np
import pytest
from scipy import optimize, stats

from fedvlr_jax.analysis import trends

SIZES = (100, 316, 1000, 3162, 10000, 31623)
FAR = np.array([316230.0])


def planted(rng, exponent, sizes=SIZES, seeds=5, spread=0.15):
    """Costs of a study with noise like that of real runs."""
    clients = np.repeat(sizes, seeds)
    return clients, 3 * clients**exponent * np.exp(rng.normal(0, spread, len(clients)))


def fitted(clients, low, high=None, at=FAR):
    return trends.power_law(clients, low, low if high is None else high, at)


def holds(interval, number):
    return interval[0] <= number <= interval[1]


@pytest.mark.parametrize("exponent", [0.0, 0.6])
def test_a_planted_slope_is_in_its_interval(exponent):
    rng = np.random.default_rng(0)
    laws = [fitted(*planted(rng, exponent)) for _ in range(20)]
    held = sum(holds(law.interval, exponent) for law in laws)
    assert 17 <= held <= 20
    ahead = sum(law.curve.low[0] <= 3 * FAR[0] ** exponent <= law.curve.high[0] for law in laws)
    assert 17 <= ahead <= 20
    right = {0.0: trends.UNKNOWN, 0.6: trends.GROWS}[exponent]
    assert sum(law.verdict == right for law in laws) >= 17
    if exponent:
        # As wide as a slope of 30 runs is: an interval that holds everything would hold this, too.
        assert all(law.interval[1] - law.interval[0] < 0.2 for law in laws)


@pytest.mark.parametrize("exponent", [0.0, 0.2])
def test_censored_runs_neither_hide_a_slope_nor_make_one(exponent):
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(20):
        clients, cost = planted(rng, exponent)
        most = np.quantile(cost, 0.6)
        low, high = np.minimum(cost, most), np.where(cost > most, np.inf, cost)
        held += holds(fitted(clients, low, high).interval, exponent)
    assert 17 <= held <= 20


def test_costs_between_evaluations_hold_the_slope():
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(20):
        clients, cost = planted(rng, 0.2, spread=0.3)
        high = np.ceil(cost / 5) * 5
        held += holds(fitted(clients, high - 4, high).interval, 0.2)
    assert 17 <= held <= 20


def test_without_censoring_it_is_the_line_of_least_squares():
    clients, cost = planted(np.random.default_rng(3), 0.4)
    law = fitted(clients, cost)
    line = stats.linregress(np.log(clients), np.log(cost))
    assert law.exponent == pytest.approx(line.slope)
    assert law.coefficient == pytest.approx(np.exp(line.intercept))
    assert law.curve.value[0] == pytest.approx(np.exp(line.intercept) * FAR[0] ** line.slope)
    # Other degrees of freedom, and other numbers' spreads, but about as wide.
    half = stats.t.ppf(0.975, len(clients) - 2) * line.stderr
    assert (law.interval[1] - law.interval[0]) / 2 == pytest.approx(half, rel=0.5)


def test_a_censored_fit_maximizes_the_likelihood():
    clients, cost = planted(np.random.default_rng(4), 0.3)
    most = np.quantile(cost, 0.7)
    lost = cost > most
    high = np.where(lost, np.inf, cost)
    between = (np.arange(len(cost)) % 4 == 0) & ~lost
    low = np.where(between, 0.7 * cost, np.minimum(cost, most))

    def loss(theta):
        """A run at a time."""
        total = 0.0
        for n, a, b in zip(clients, np.log(low), np.log(high), strict=True):
            normal = theta[0] + theta[1] * np.log(n / 1000), np.exp(theta[2])
            mass = stats.norm.cdf(b, *normal) - stats.norm.cdf(a, *normal)
            total -= stats.norm.logpdf(a, *normal) if a == b else np.log(mass)
        return total

    best = optimize.minimize(loss, [np.log(3), 0.0, -1.0], method="Nelder-Mead", tol=1e-9)
    law = fitted(clients, low, high, np.array([1000.0]))
    assert law.exponent == pytest.approx(best.x[1], abs=1e-4)
    assert law.curve.value[0] == pytest.approx(np.exp(best.x[0]), rel=1e-4)
    assert law.bends is None


def test_the_interval_of_a_slope_is_that_of_resampled_seeds():
    clients, cost = planted(np.random.default_rng(5), 0.4, sizes=(100, 1000, 10000), seeds=40)
    rng, x = np.random.default_rng(6), np.log(clients)
    slopes = []
    for _ in range(2000):
        rows = np.concatenate(
            [rng.choice(np.flatnonzero(clients == n), 40) for n in np.unique(clients)]
        )
        slopes.append(np.polyfit(x[rows], np.log(cost)[rows], 1)[0])
    low, high = np.percentile(slopes, [2.5, 97.5])
    law = fitted(clients, cost)
    assert law.interval[1] - law.interval[0] == pytest.approx(high - low, rel=0.15)


@pytest.mark.parametrize("rounds", [[3, 3, 3], [1, 1, 1]])
def test_equal_costs_have_no_trend_and_a_point_as_interval(rounds):
    clients = np.repeat((100, 1000, 10000), 2)
    law = fitted(clients, np.repeat(rounds, 2).astype(float))
    assert (law.exponent, law.interval) == (0.0, (0.0, 0.0))
    assert law.verdict == trends.UNKNOWN
    ends = law.curve.value[0], law.curve.low[0], law.curve.high[0]
    assert ends == pytest.approx((rounds[0],) * 3, rel=1e-4)


def test_equal_costs_between_evaluations_allow_some_slope():
    clients = np.repeat((100, 1000), 3)
    law = fitted(clients, np.full(6, 1.0), np.full(6, 5.0), np.array([1000.0]))
    # From 5 rounds at 100 clients to 1 at 1,000, or the other way round.
    assert law.interval == pytest.approx((-np.log10(5), np.log10(5)), abs=1e-5)
    assert (law.curve.low[0], law.curve.high[0]) == pytest.approx((1, 5), rel=1e-5)
    assert law.verdict == trends.UNKNOWN


def test_ties_that_are_on_no_line_are_uncertain():
    clients = np.repeat((100, 1000, 10000), 3)
    low, high = fitted(clients, np.repeat([1.0, 3, 3], 3)).interval
    assert high - low > 0.1


def test_a_curve_that_bends_is_told():
    clients, noise = planted(np.random.default_rng(7), 0.0, spread=0.05)
    assert fitted(clients, noise * (1 + clients / 1000)).bends < 1e-3
    assert fitted(clients, noise * clients).bends > 0.01


def test_a_law_needs_runs_that_reached_the_target():
    clients = np.repeat((100, 1000), 3)
    cost, never = np.full(6, 30.0), np.full(6, np.inf)
    assert fitted(clients, cost, never) is None
    high = np.where(clients == 100, 30.0, np.inf)
    assert fitted(clients, cost, high) is None


def test_without_repeated_numbers_there_is_no_interval():
    law = fitted(np.array([100, 1000, 10000]), np.array([1.0, 2.0, 3.0]))
    assert np.isnan(law.interval).all()
    assert law.verdict == trends.UNKNOWN


def accuracies(rng, limit, distance, exponent, seeds=5, same=False):
    """Mean scores of runs that differ by their population, with errors over their users."""
    clients = np.repeat(SIZES, seeds)
    errors = 20 / np.sqrt(np.minimum(clients, 2000))
    drawn = errors * rng.standard_normal(len(clients))
    if same:
        drawn = np.repeat(drawn[::seeds], seeds)
    runs = 0.3 * rng.standard_normal(len(clients))
    return clients, limit - distance * clients**-exponent + drawn + runs, errors


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize(("distance", "exponent"), [(60.0, 0.4), (0.0, 0.4)])
def test_a_planted_saturation_is_in_its_intervals(distance, exponent, same):
    rng = np.random.default_rng(8)
    change = distance * (SIZES[0] ** -exponent - SIZES[-1] ** -exponent)
    held = np.zeros(3)
    verdicts = []
    for seed in range(20):
        runs = accuracies(rng, 15.0, distance, exponent, same=same)
        law = trends.saturating_law(*runs, FAR, same, seed)
        ahead = 15.0 - distance * FAR[0] ** -exponent
        held += [
            holds(law.change_interval, change),
            law.curve.low[0] <= ahead <= law.curve.high[0],
            not distance or holds(law.interval, exponent),
        ]
        verdicts.append(law.verdict)
    assert ((held >= 17) & (held <= 20)).all(), held
    right = trends.GROWS if distance else trends.UNKNOWN
    assert verdicts.count(right) >= 17


def test_a_saturation_is_that_of_a_slow_search():
    clients, scores, errors = accuracies(np.random.default_rng(9), 15.0, 60.0, 0.4)
    numbers = np.unique(clients)
    law = trends.saturating_law(clients, scores, errors, FAR)
    means = np.array([scores[clients == n].mean() for n in numbers])
    deviations = np.array(
        [max(scores[clients == n].std(ddof=1), errors[clients == n][0]) for n in numbers]
    )

    def curve(n, limit, distance, exponent):
        return limit - distance * n**-exponent

    found, _ = optimize.curve_fit(
        curve, numbers.astype(float), means, [15, 50, 0.3], sigma=deviations, maxfev=20_000
    )
    # Exponents are tried at some places only.
    assert law.exponent == pytest.approx(found[2], rel=0.03)
    assert law.limit == pytest.approx(found[0], rel=0.02)
    assert law.curve.value[0] == pytest.approx(curve(FAR[0], *found), rel=0.01)
    assert law.change == pytest.approx(np.ptp(curve(numbers[[0, -1]], *found)), rel=0.01)


def test_users_of_one_population_are_uncertain_in_all_seeds():
    clients = np.repeat((100, 1000, 10000), 5)
    scores = np.repeat([5.0, 10.0, 12.0], 5) + np.tile([-1e-3, 0, 1e-3, 0, 0], 3)
    own, same = (
        trends.saturating_law(clients, scores, np.full(15, 2.0), FAR, shared)
        for shared in (False, True)
    )
    widths = [np.subtract(*law.change_interval[::-1]) for law in (own, same)]
    # The mean of five runs with users of their own is known better by the root of five.
    assert widths[1] / widths[0] == pytest.approx(np.sqrt(5), rel=0.2)


def test_too_few_numbers_of_clients_tell_no_saturation():
    two = np.repeat((100, 1000), 3)
    assert trends.saturating_law(two, np.arange(6.0), np.ones(6), FAR) is None
    three = np.array((100, 1000, 10000))
    assert trends.saturating_law(three, np.arange(3.0), np.ones(3), FAR) is None


def test_the_error_of_a_mean_counts_users_with_an_item():
    values = np.array([1.0, 3.0, 100.0])
    assert trends.mean_error(values, np.array([True, True, False])) == pytest.approx(1.0)
    assert trends.mean_error(values, np.array([True, False, False])) == 0.0
