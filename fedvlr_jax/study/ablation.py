"""What a study's finds are worth with something taken out or with noise added."""

from collections.abc import Sequence
from typing import Any

from fedvlr_jax.registry import VIEWS
from fedvlr_jax.study.search import Combination, Found, Study

Parts = list[tuple[str, Found]]  # what was changed, and what came of it; not what diverged


def removals(study: Study, combination: Combination) -> dict[str, dict[str, Any]]:
    """What changes in the settings when a modality is taken out, by its name.

    Views that are of the removed modality go with it; where none would be left, it is left out.
    """
    rates = next(iter(study.grid))
    method = study.config(combination, rates, study.seeds[0]).method
    changes = {}
    for removed in method.modalities:
        if removed != "id" and getattr(study.dataset.catalogue, removed) is None:
            continue
        left = tuple(m for m in method.modalities if m != removed)
        views = method.views
        if views is not None:
            views = tuple(v for v in views if VIEWS[v].needs != removed)
        if left and views != ():
            changes[removed] = {"modalities": left, "views": views}
    return changes


def without_modalities(study: Study, found: Found) -> Parts:
    """The same training with each modality taken out of the views (the paper's figure 3).

    Rates stay those that were chosen with all modalities.
    """
    parts: list[tuple[str, Found | None]] = [("nothing", found)]
    for removed, changed in removals(study, found.combination).items():
        parts.append((removed, study.vary(found, f"without-{removed}", **changed)))
    return [(name, part) for name, part in parts if part is not None]


def with_noise(study: Study, found: Found, deviations: Sequence[float]) -> Parts:
    """The same training with Gaussian noise on the mean gradient (the paper's table 4).

    Args:
        study: gives settings and seeds.
        found: what is trained again, and the row without noise.
        deviations: standard deviations of the noise.
    """
    parts: list[tuple[str, Found | None]] = [("0", found)]
    for deviation in deviations:
        name = f"{deviation:g}"
        parts.append((name, study.vary(found, f"noise{name}", gradient_noise=deviation)))
    return [(name, part) for name, part in parts if part is not None]
