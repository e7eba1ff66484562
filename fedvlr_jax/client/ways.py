"""Which way a client's local training is done."""

from fedvlr_jax.client import closed_form
from fedvlr_jax.client.alternating import ALTERNATING
from fedvlr_jax.client.autodiff import AUTODIFF
from fedvlr_jax.client.closed_form import CLOSED_FORM
from fedvlr_jax.client.least_squares import EXACT
from fedvlr_jax.client.local import LOCAL
from fedvlr_jax.client.spectral import SPECTRAL
from fedvlr_jax.client.update import LocalTraining, LocalUpdate

_BY_MODE = {"local": LOCAL, "pairs": SPECTRAL, "products": SPECTRAL, "items": ALTERNATING}


def choose(training: LocalTraining) -> LocalUpdate:
    """What solver and mode ask for; of `accumulate` the closed form where it applies."""
    if training.exact:
        return EXACT
    if training.mode in _BY_MODE:
        return _BY_MODE[training.mode]
    return CLOSED_FORM if closed_form.applies(training) else AUTODIFF
