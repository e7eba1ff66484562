"""Whether a run fits into the devices' memory, and what would."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import jax

from fedvlr_jax.client.flat import row_numbers
from fedvlr_jax.errors import UserError
from fedvlr_jax.server import aggregate
from fedvlr_jax.simulation import memory
from fedvlr_jax.simulation.mesh import RUNS
from fedvlr_jax.simulation.round import Federation
from fedvlr_jax.simulation.simulation import Simulation

# Gradients and scratch come to about as much as what a chunk holds itself (measured on W).
_COPIES_OF_A_CHUNK = 2
_USABLE = 0.9
# Of a whole process (measured on W against the peak of its resident size, docs/sweeps.md).
_PROGRAM = 1_100_000_000  # Python, its libraries, and compiled programs
_COPIES_OF_STATES = 2  # when a checkpoint is read
_COPIES_OF_DATA = 4
_COPIES_OF_SHARED = 6  # gradients, the optimizer's state, and what is being changed
_COPIES_OF_SCORES = 4
_RANKED = 200  # numbers of a client's ranking
_SHARE_OF_RUNS = 0.3  # of the memory that runs together take; checkpoints and results need some


def state_bytes(federation: Federation) -> int:
    """Bytes of all clients' private states, in all runs that train together."""
    numbers = row_numbers(federation.training.model)
    return 4 * numbers * federation.n_clients * federation.runs


def chunk_bytes(federation: Federation) -> int:
    """Bytes that the largest chunk needs on one device, about, in all runs that it has."""
    return (
        federation.runs
        // federation.mesh.shape[RUNS]
        * max(
            bucket.chunk * _client_bytes(federation, bucket.width) for bucket in federation.buckets
        )
    )


def run_bytes(simulation: Simulation, resident: bool, clients: int | None = None) -> int:
    """Bytes of memory of the whole process at the peak of a run, about.

    Args:
        simulation: of the run, or of one like it with fewer clients.
        resident: whether the devices hold all private states.
        clients: how many there really are, None for as many as the simulation has.
    """
    federation, data = simulation.federation, simulation.interactions[0]
    clients = clients or federation.n_clients
    whole = dataclasses.replace(federation, n_clients=clients)
    devices = federation.mesh.devices.size
    model = federation.training.model
    rows = data.n_items * model.n_views * model.dim
    numbers = sum(
        leaf.size
        for leaf in jax.tree.leaves(
            jax.eval_shape(
                partial(aggregate.init, federation.server), simulation.features, jax.random.key(0)
            ).params
        )
    )
    features = sum(leaf.nbytes for leaf in jax.tree.leaves(simulation.features))
    # A client's train items on host and devices, and as many numbers for what it is ranked.
    of_a_client = 4 * (_COPIES_OF_DATA * data.lengths.mean() + _RANKED)
    scores = max(bucket.chunk for bucket in simulation.evaluation.buckets) * data.n_items
    return int(
        _PROGRAM
        + resident * _COPIES_OF_STATES * state_bytes(whole)
        + devices * (chunk_bytes(federation) + 4 * _COPIES_OF_SCORES * scores)
        + 4 * _COPIES_OF_SHARED * (rows + numbers)
        + 2 * features
        + clients * of_a_client
    )


def runs_together(build: Callable[[], Federation]) -> int:
    """How many runs like this one the devices can train together to some use, at least 1.

    On a CPU one, which keeps it busy: more share its time and memory (docs/sweeps.md).

    Args:
        build: gives the federation of one run; not called where it does not matter.
    """
    if jax.default_backend() == "cpu":
        return 1
    federation = build()
    room = _SHARE_OF_RUNS * memory.devices_bytes(federation.mesh)
    needed = state_bytes(federation) + chunk_bytes(federation)
    return max(1, int(room / needed))


def check(federation: Federation, resident: bool) -> None:
    """Refuse what cannot fit.

    Args:
        federation: what is trained.
        resident: whether the devices hold all private states.

    Raises:
        UserError: chunks, and the private states, need more than the devices have.
    """
    devices = federation.mesh.devices.size
    needed = resident * state_bytes(federation) + devices * chunk_bytes(federation)
    if needed > _USABLE * memory.devices_bytes(federation.mesh):
        raise UserError(sentence(federation, resident))


@contextmanager
def explained(federation: Federation, resident: bool) -> Iterator[None]:
    """Turn running out of device memory into a sentence.

    Raises:
        UserError: the devices' memory was exhausted inside.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(sentence(federation, resident)) from error


def sentence(federation: Federation, resident: bool) -> str:
    """What the run needs, and the numbers that would fit."""
    devices = federation.mesh.devices.size
    total = memory.devices_bytes(federation.mesh)
    state = resident * state_bytes(federation)
    chunk = max(bucket.chunk for bucket in federation.buckets)
    widest = federation.buckets[-1].width
    room = (_USABLE * total - state) / devices
    fitting = int(room / _client_bytes(federation, widest))
    if fitting >= 2:
        expected = f"--chunk={min(fitting, chunk // 2)} or less"
    elif not resident:
        expected = "fewer items, --negatives or a smaller --dim"
    else:
        clients = int(_USABLE * total * federation.n_clients / state / 2)
        expected = f"--private_state=host, or at most {clients} clients on these devices"
    states = f"the private state of {federation.n_clients} clients takes {state / 1e9:.1f} GB and "
    return (
        f"out of device memory: {states if resident else ''}a chunk of {chunk} clients takes "
        f"about {chunk_bytes(federation) / 1e9:.2g} GB on each of the {devices} devices, which "
        f"have {total / 1e9:.1f} GB together; expected {expected}"
    )


def _client_bytes(federation: Federation, width: int) -> int:
    """Bytes of one client of a chunk, with its history padded to `width`."""
    training = federation.training
    row = training.model.n_views * training.model.dim
    floats = width * (1 + training.negatives) * row + row_numbers(training.model)
    return 4 * _COPIES_OF_A_CHUNK * floats
