"""What a compiled program is told only when it runs: runs that differ in it alone can share one."""

import dataclasses

import numpy as np

from fedvlr_jax import backbones
from fedvlr_jax.client.update import ClientRates
from fedvlr_jax.config import Config, MethodConfig
from fedvlr_jax.server import aggregate
from fedvlr_jax.simulation.round import Rates

_POOL = 256  # items of a pool of negatives, where clients keep vectors of them
_TRACED_RATES = ("server_lr", "network_lr", "client_lr", "router_lr", "own_lr", "shared_lr")


@np.errstate(over="ignore")  # an infinite rate makes a run diverge, which is told
def rates_of(config: Config) -> Rates:
    """The learning rates of a run, and what else is traced."""
    method, part = config.method, config.participation
    return Rates(
        server=aggregate.ServerRates(
            fusion=np.float32(method.server_lr), network=np.float32(method.network_lr)
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
    part, data = config.participation, config.data
    if data.preference_concentration is not None and not pool_size(config.method):
        data = dataclasses.replace(data, preference_concentration=1.0)
    return dataclasses.replace(
        config,
        data=data,
        method=dataclasses.replace(config.method, **dict.fromkeys(_TRACED_RATES, 1.0)),
        participation=dataclasses.replace(
            part,
            dropout=0.0,
            late=0.5 * (part.late > 0),
            clip_norm=float(part.clip_norm > 0),
            noise_multiplier=0.0,
            delta=0.5,
            gradient_noise=float(part.gradient_noise > 0),
        ),
        schedule=dataclasses.replace(config.schedule, rounds=1, patience=0, seed=0),
    )


def pool_size(method: MethodConfig) -> int:
    """Items of a client's pool of negatives, where there are enough; 0 if it has none."""
    own_rows = backbones.get(method.backbone).own_rows is not None
    return method.negative_pool or (_POOL if own_rows else 0)
