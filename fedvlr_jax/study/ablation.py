"""What a study's finds are worth with something taken out or with noise added."""

from collections.abc import Mapping, Sequence

from fedvlr_jax.config import MethodConfig
from fedvlr_jax.data.types import Catalogue
from fedvlr_jax.registry import VIEWS
from fedvlr_jax.runs.ledger import Row
from fedvlr_jax.runs.study import Change, Found, Study

Parts = list[tuple[str, Found]]  # what was changed, and what came of it; not what failed


def removals(method: MethodConfig, catalogue: Catalogue) -> dict[str, Change]:
    """The same training with each modality taken out of the views (the paper's figure 3), by name.

    Views that are of the removed modality go with it; where none would be left, it is left out.
    Rates stay those that were chosen with all modalities.
    """
    changes = {}
    for removed in method.modalities:
        if removed != "id" and getattr(catalogue, removed) is None:
            continue
        left = tuple(m for m in method.modalities if m != removed)
        views = method.views
        if views is not None:
            views = tuple(v for v in views if VIEWS[v].needs != removed)
        if left and views != ():
            changes[removed] = Change(f"without-{removed}", {"modalities": left, "views": views})
    return changes


def noises(deviations: Sequence[float]) -> dict[str, Change]:
    """The same training with Gaussian noise on the mean gradient (the paper's table 4).

    Args:
        deviations: standard deviations of the noise.
    """
    return {f"{x:g}": Change(f"noise{x:g}", {"gradient_noise": x}) for x in deviations}


def parts(
    study: Study,
    found: Found,
    unchanged: str,
    changes: Mapping[str, Change],
    rows: Mapping[str, Row],
) -> Parts:
    """What was found as it is, under the name `unchanged`, and with every change."""
    changed = {name: study.changed(found, change, rows) for name, change in changes.items()}
    return [(name, part) for name, part in ({unchanged: found} | changed).items() if part]
