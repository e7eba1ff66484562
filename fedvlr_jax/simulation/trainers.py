"""Which trainer a run gets: whether all private states fit into the devices' memory."""

from pathlib import Path

from fedvlr_jax.config import Config
from fedvlr_jax.simulation import memory
from fedvlr_jax.simulation.off_device.trainer import OffDevice
from fedvlr_jax.simulation.on_device import OnDevice
from fedvlr_jax.simulation.simulation import Simulation
from fedvlr_jax.simulation.trainer import Trainer

# The other share is for a checkpoint's buffers, chunks, the data, and the programs themselves.
_SHARE_FOR_STATES = 0.4
# Wave k + 1 is brought while wave k trains from the states of wave k - 1, into new ones.
_WAVES_AT_A_TIME = 4
_SMALLEST_WAVE = 1024  # clients; evaluation goes in waves as well, and cohorts can be tiny


def create(config: Config, simulation: Simulation, out: Path) -> Trainer:
    """The trainer for a run in the folder `out`, at the state before the first round."""
    execution, seed = config.execution, config.schedule.seed
    row = 4 * simulation.federation.training.model.private_numbers()
    room = int(_SHARE_FOR_STATES * memory.devices_bytes(simulation.federation.mesh))
    fits = simulation.n_clients * row <= room
    if execution.private_state == "device" or (execution.private_state == "auto" and fits):
        return OnDevice(simulation, seed)
    wanted = min(max(simulation.cohort_size, _SMALLEST_WAVE), simulation.n_clients)
    wave = execution.wave or max(min(wanted, room // (_WAVES_AT_A_TIME * row)), 1)
    kept = int(execution.host_gb * 1e9) or memory.host_bytes() // 4
    return OffDevice(simulation, seed, wave, out, kept, config.schedule.rounds)
