"""Epsilon against cases that are known by hand."""

import math

import pytest

from fedvlr_jax.analysis.privacy import epsilon


def gaussian_delta(sigma, epsilon):
    """Balle and Wang 2018 (arXiv 1805.06530), theorem 8: exact, for sensitivity 1."""
    cdf = lambda x: 0.5 * math.erfc(-x / math.sqrt(2))  # noqa: E731
    a, b = 1 / (2 * sigma), epsilon * sigma
    return cdf(a - b) - math.exp(epsilon) * cdf(-a - b)


@pytest.mark.parametrize(("noise", "rounds"), [(1.0, 1), (4.0, 16), (10.0, 60)])
def test_full_cohorts_spend_what_one_gaussian_would(noise, rounds):
    # Rounds of the Gaussian mechanism are one round with the noise divided by their root.
    spent = epsilon(noise, rounds, 200, 200, 1e-5)
    assert gaussian_delta(noise / math.sqrt(rounds), spent) == pytest.approx(1e-5, rel=0.02)


def test_sampled_cohorts_of_everybody_but_one_are_bounded_by_the_gaussian():
    # Renyi divergence of order a of a Gaussian with sensitivity 2 is 2 a / noise**2; converted as
    # in Canonne, Kamath and Steinke 2020 (arXiv 2004.00010), proposition 12. Sampling 999 of 1,000
    # clients hides next to nothing.
    noise, rounds, delta = 8.0, 10, 1e-5
    orders = [1 + k / 10 for k in range(1, 600)]
    by_hand = min(
        rounds * 2 * a / noise**2 + math.log1p(-1 / a) - math.log(delta * a) / (a - 1)
        for a in orders
    )
    assert epsilon(noise, rounds, 999, 1000, delta) >= 0.99 * by_hand


def test_sampling_amplifies_and_rounds_add_up():
    few, many = (epsilon(2.0, 100, cohort, 10_000, 1e-5) for cohort in (50, 500))
    assert few < many
    assert epsilon(2.0, 100, 50, 10_000, 1e-5) > epsilon(2.0, 10, 50, 10_000, 1e-5)
    assert epsilon(4.0, 100, 50, 10_000, 1e-5) < few


@pytest.mark.parametrize("cohort", [3, 12])
@pytest.mark.parametrize("rounds", [1, 20])
@pytest.mark.parametrize(
    ("noise", "delta"),
    [(1e-30, 1e-5), (1e-3, 1e-5), (0.5, 0.5), (1.0, 1e-300), (1.0, 0.999999), (1e30, 1e-5)],
)
def test_extremes_have_a_finite_epsilon_or_none(noise, delta, rounds, cohort):
    found = epsilon(noise, rounds, cohort, 12, delta)
    assert found is None or 0 <= found < math.inf
    assert noise > 1e-2 or found is None
    assert noise < 1e30 or found is not None
