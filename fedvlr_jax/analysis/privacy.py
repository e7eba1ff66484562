"""The privacy budget that a run has spent, of one user, by the dp-accounting library."""

import math

# Rounds over squared noise, from where on epsilon is in the thousands. A privacy loss distribution
# has about ten thousand times as many numbers.
_MOST_LOSS = 1e4
_MOST_NOISE = 1e6  # where epsilon is next to 0, and the library at the end of its numbers


def epsilon(
    noise_multiplier: float, rounds: int, cohort: int, clients: int, delta: float
) -> float | None:
    """The epsilon of (epsilon, delta)-differential privacy at user level after `rounds` rounds.

    Where everybody takes part, two data sets are neighbours if one has one user more, and the
    budget is exact (privacy loss distributions). Cohorts are drawn without replacement: there
    neighbours differ in one user's data, which moves the sum by up to twice the clip norm, and the
    budget is a bound by Renyi differential privacy (Wang et al. 2019, arXiv 1808.00087).

    Args:
        noise_multiplier: standard deviation of the noise on the cohort's sum, in clip norms.
        rounds: rounds done.
        cohort: clients drawn in a round.
        clients: all of them.
        delta: between 0 and 1.

    Returns:
        None where no finite epsilon is known, or none that means anything: hardly any noise for so
        many rounds, or a delta that is next to nothing.
    """
    if rounds > _MOST_LOSS * noise_multiplier**2:
        return None
    # Here and not above: it takes a second, which runs without noise need not wait for.
    import dp_accounting
    from dp_accounting.pld import PLDAccountant
    from dp_accounting.rdp import RdpAccountant

    noise_multiplier = min(noise_multiplier, _MOST_NOISE)
    if cohort == clients:
        accountant, event = PLDAccountant(), dp_accounting.GaussianDpEvent(noise_multiplier)
    else:
        relation = dp_accounting.NeighboringRelation.REPLACE_ONE
        accountant = RdpAccountant(neighboring_relation=relation)
        event = dp_accounting.SampledWithoutReplacementDpEvent(
            clients, cohort, dp_accounting.GaussianDpEvent(noise_multiplier / 2)
        )
    accountant.compose(dp_accounting.SelfComposedDpEvent(event, rounds))
    spent = float(accountant.get_epsilon(delta))
    return spent if math.isfinite(spent) else None
