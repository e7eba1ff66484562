"""What a study's results are worth with something taken out or with noise added."""

from collections.abc import Mapping, Sequence

import pandas as pd

from fedvlr_jax.config import BY_SOLVER, MethodConfig
from fedvlr_jax.data.types import Catalogue
from fedvlr_jax.registry import VIEWS
from fedvlr_jax.report.paper_tables import changes_table
from fedvlr_jax.runs.ledger import Row
from fedvlr_jax.runs.study import Change, Found, Study


def removals(method: MethodConfig, catalogue: Catalogue) -> list[Change]:
    """The same training with each modality taken out of the views (the paper's figure 3).

    Views that are of the removed modality go with it; where none would be left, it is left out.
    Rates stay those that were chosen with all modalities.
    """
    changes = []
    for removed in method.modalities:
        if removed != "id" and getattr(catalogue, removed) is None:
            continue
        left = tuple(m for m in method.modalities if m != removed)
        views = method.views
        if views is not None:
            views = tuple(v for v in views if VIEWS[v].needs != removed)
        if left and views != ():
            settings = {"modalities": left, "views": views}
            changes.append(Change(f"without-{removed}", settings, label=("removed", removed)))
    return changes


def parts(method: MethodConfig) -> list[Change]:
    """The same training without each part of the learner that the method has.

    Everything else stays as it was chosen with all of them. But heads that are stepped take as many
    local epochs as is their default, and routers their rate. Without a spectral start the server
    learns at the default rate of runs without, because ID embeddings would stay what was drawn.
    """
    steps = {name: by_solver["sgd"] for name, by_solver in BY_SOLVER.items()}
    without = {}
    if method.client_solver == "exact":
        with_steps = {name: steps[name] for name in ("local_epochs", "router_lr")}
        without["exact head"] = {"client_solver": "sgd"} | with_steps
    if method.warm_start == "spectral":
        alone = {"warm_start": "none", "als_passes": 0, "experts": "none"}
        without["spectral start"] = alone | {"server_lr": steps["server_lr"]}
    if method.als_passes:
        without["alternating passes"] = {"als_passes": 0}
    if method.experts != "none":
        without["neighbours"] = {"experts": "none"}
    if without:
        without["router"] = {"router_lr": 0.0}  # it keeps its equal weights
    return [
        Change(f"without-{part.replace(' ', '-')}", settings, label=("part removed", part))
        for part, settings in without.items()
    ]


def noises(deviations: Sequence[float]) -> list[Change]:
    """The same training with Gaussian noise on the mean gradient (the paper's table 4).

    Args:
        deviations: standard deviations of the noise.
    """
    return [
        Change(f"noise{x:g}", {"gradient_noise": x}, label=("noise", f"{x:g}")) for x in deviations
    ]


def table(
    study: Study, results: Sequence[Found], column: str, unchanged: str, rows: Mapping[str, Row]
) -> pd.DataFrame:
    """Results as they are, named `unchanged`, and with every change that has a label in a column.

    What failed is left out.
    """
    parts = []
    for result in results:
        changes = [c for c in study.changes.get(result.combination, ()) if c.label[0] == column]
        parts += [(unchanged, result)] if changes else []
        for change in changes:
            changed = study.changed(result, change, rows)
            parts += [(change.label[1], changed)] if changed else []
    return changes_table(column, parts)
