"""Which trainer a run gets: whether all private states fit into the devices' memory."""

from collections.abc import Sequence
from pathlib import Path

from fedvlr_jax.client.flat import row_numbers
from fedvlr_jax.config import Config
from fedvlr_jax.errors import UserError
from fedvlr_jax.processes import together
from fedvlr_jax.simulation import fit, memory
from fedvlr_jax.simulation.off_device.trainer import OffDevice
from fedvlr_jax.simulation.on_device import OnDevice
from fedvlr_jax.simulation.simulation import Simulation
from fedvlr_jax.simulation.trainer import Trainer

# The other share is for a checkpoint's buffers, chunks, the data, and the programs themselves.
_SHARE_FOR_STATES = 0.4
# Wave k + 1 comes from the host while wave k trains and the states of wave k - 1 go back: those
# two, and what came for wave k and for wave k + 1.
_WAVES_AT_A_TIME = 4
_MOST_BYTES = 1e18  # more than any host has
_SMALLEST_WAVE = 1024  # clients; evaluation goes in waves as well, and cohorts can be tiny


def place_of_states(config: Config, simulation: Simulation) -> str:
    """Where private states will be, "device" or "host".

    Raises:
        UserError: the run needs more memory than the devices have, or several processes are to
            keep states on the host.
    """
    wanted, federation = config.execution.private_state, simulation.federation
    several = together.count() > 1
    if federation.runs > 1 and several:
        raise UserError("several processes train one run at a time, expected one process")
    if wanted == "host" and several:
        raise UserError(
            "--private_state=host: only one process at a time can do that, expected "
            "--private_state=device where several train together"
        )
    if wanted == "host" and federation.is_buffered:
        raise UserError(
            f"--buffer={config.clock.buffer}: clients begin and end at any time, which needs all "
            "private states on the devices, expected --private_state=device"
        )
    if wanted == "auto" and (several or federation.is_buffered):
        wanted = "device"
    if wanted == "auto":
        fits = fit.state_bytes(federation) <= _room(simulation)
        wanted = "device" if fits else "host"
    if federation.runs > 1 and wanted == "host":
        raise UserError(
            f"--private_state=host: one run at a time can do that, not {federation.runs} together"
        )
    fit.check(federation, resident=wanted == "device")
    return wanted


def create(configs: Sequence[Config], simulation: Simulation, out: Path) -> Trainer:
    """The trainer for the runs of a simulation, at the state before the first round.

    Args:
        configs: of the runs.
        simulation: of all of them.
        out: folder of a run alone, where private states go that memory has no room for.

    Raises:
        UserError: it needs more memory than the devices have.
    """
    config = configs[0]
    if place_of_states(config, simulation) == "device":
        return OnDevice(simulation, [config.schedule.seed for config in configs])
    wave, most = _wave(config, simulation), _most_on_host(config)
    return OffDevice(simulation, config.schedule.seed, wave, out, most, config.schedule.rounds)


def bytes_of_waves(config: Config, simulation: Simulation) -> int:
    """Bytes of private states at most, on the host and on the devices, of those on the host."""
    row = 4 * row_numbers(simulation.federation.training.model)
    stored = min(simulation.n_clients * row, _most_on_host(config))
    return stored + _WAVES_AT_A_TIME * row * _wave(config, simulation)


def _wave(config: Config, simulation: Simulation) -> int:
    """Clients of a wave."""
    row = 4 * row_numbers(simulation.federation.training.model)
    wanted = max(simulation.cohort_size, _SMALLEST_WAVE)
    fitting = max(_room(simulation) // (_WAVES_AT_A_TIME * row), 1)
    return min(config.execution.wave or min(wanted, fitting), simulation.n_clients)


def _most_on_host(config: Config) -> int:
    """Bytes of private states that the host's memory may hold."""
    return int(min(config.execution.host_gb * 1e9, _MOST_BYTES)) or memory.host_bytes() // 4


def _room(simulation: Simulation) -> int:
    return int(_SHARE_FOR_STATES * memory.devices_bytes(simulation.federation.mesh))
