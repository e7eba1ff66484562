"""What a compiled program is told only when it runs: runs that differ in it alone can share one."""

import dataclasses
from typing import Any

import numpy as np

from fedvlr_jax import backbones
from fedvlr_jax.client.update import ClientRates
from fedvlr_jax.config import BY_SOLVER, Config, MethodConfig
from fedvlr_jax.server import aggregate
from fedvlr_jax.settings import Role, with_role
from fedvlr_jax.simulation.federated_round import Rates

_POOL = 256  # items of a pool of negatives, where clients keep vectors of them


@np.errstate(over="ignore")  # an infinite rate makes a run diverge, which is told
def rates_of(config: Config) -> Rates:
    """The learning rates of a run, and what else is traced."""
    method, part = config.method, config.participation
    return Rates(
        server=aggregate.ServerRates(
            fusion=np.float32(method.server_lr),
            network=np.float32(method.network_lr),
            unobserved=np.float32(method.unobserved_weight),
            penalty=np.float32(method.head_penalty),
            content=np.float32(method.content_scale),
            neighbours=np.float32(method.neighbour_penalty),
            share=np.float32(method.expert_weight),
            item_penalty=np.float32(method.item_penalty),
        ),
        client=ClientRates(
            head=np.float32(method.client_lr),
            router=np.float32(method.router_lr),
            own=np.float32(method.own_lr),
            shared=np.float32(method.shared_lr),
            clip=np.float32(part.clip_norm),
        ),
        dropout=np.float32(part.dropout),
        late=np.float32(part.late),
        noise=np.float32(part.noise_multiplier),
        gradient_noise=np.float32(part.gradient_noise),
    )


def program_of(config: Config) -> Config:
    """The configuration with all that is traced set to the same: equal ones can train together.

    What is `rates_of` a run, its seed and how long it goes on may differ, and the histories of a
    generated population by its clients' preferences; whether uploads are late, clipped or noisy may
    not, nor what has another shape with other histories.
    """
    groups = {
        group.name: _alike(getattr(config, group.name)) for group in dataclasses.fields(Config)
    }
    groups["schedule"] = dataclasses.replace(groups["schedule"], rounds=1)
    data = config.data
    if data.preference_concentration is not None and not pool_size(config.method):
        groups["data"] = dataclasses.replace(data, preference_concentration=1.0)
    return Config(**groups)


def _alike(group: Any) -> Any:
    """A group of settings with all that is traced at its default, or above 0 at the same number."""
    leaves = {leaf.name: leaf for leaf in dataclasses.fields(group)}
    same = {
        name: BY_SOLVER[name]["sgd"] if name in BY_SOLVER else leaves[name].default
        for name in with_role(leaves, Role.TRACED)
    }
    switches = with_role(leaves, Role.SWITCH)
    return dataclasses.replace(
        group, **same, **{name: 0.5 * (getattr(group, name) > 0) for name in switches}
    )


def pool_size(method: MethodConfig) -> int:
    """Items of a client's pool of negatives, where there are enough; 0 if it has none."""
    own_rows = backbones.get(method.backbone).own_rows is not None
    return method.negative_pool or (_POOL if own_rows else 0)
