"""Which way a client's local training is done."""

from fedvlr_jax.client import closed_form
from fedvlr_jax.client.autodiff import AUTODIFF
from fedvlr_jax.client.closed_form import CLOSED_FORM
from fedvlr_jax.client.update import LocalTraining, LocalUpdate


def choose(training: LocalTraining) -> LocalUpdate:
    """The closed form where it applies, else automatic differentiation; results are equal."""
    return CLOSED_FORM if closed_form.applies(training) else AUTODIFF
