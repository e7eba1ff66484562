"""Whether a run fits into the devices' memory, and what would."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import jax
from jax.stages import Compiled

from fedvlr_jax.client.flat import row_numbers
from fedvlr_jax.errors import UserError
from fedvlr_jax.processes import cores
from fedvlr_jax.server import alternating
from fedvlr_jax.simulation import memory
from fedvlr_jax.simulation.federated_round import Federation
from fedvlr_jax.simulation.mesh import RUNS
from fedvlr_jax.simulation.population import Bucket
from fedvlr_jax.simulation.simulation import Simulation

_USABLE = 0.9  # of the devices' memory
# Tables of items x items that a warm round with pairs has at a time: the sums, those of the cohort
# and what eigenvectors take; with neighbours their weights and the inverse as well.
_TABLES, _TABLES_OF_NEIGHBOURS = 4, 6
_TABLES_IN_ORDER, _TABLES_OF_NEIGHBOURS_IN_ORDER = 3, 4  # the same on a CPU (processes/cores.py)
_TABLES_OF_EQUATIONS = 3  # of all items: the sums, those of the cohort, and what is solved
_SHARE_OF_RUNS = 0.3  # of the memory that runs together take; checkpoints and results need some


def state_bytes(federation: Federation) -> int:
    """Bytes of all clients' private states, in all runs that train together."""
    numbers = row_numbers(federation.training.model)
    return 4 * numbers * federation.n_clients * federation.runs


def client_bytes(simulation: Simulation) -> tuple[float, int]:
    """Bytes of a client's data, on the host and on the devices, and of its private state."""
    data = simulation.interactions[0]
    host = sum(array.nbytes for array in (data.offsets, data.items, *data.held_out))
    devices = sum(leaf.nbytes for leaf in jax.tree.leaves(simulation.population))
    states = 4 * row_numbers(simulation.federation.training.model)
    return (host + devices) / simulation.n_clients, states


def chunk_bytes(federation: Federation) -> int:
    """Bytes of what the largest chunk holds on one device, in all runs that it has."""
    largest = _largest_chunk(federation)
    return federation.runs // federation.mesh.shape[RUNS] * 4 * largest.chunk * largest.floats


def table_bytes(federation: Federation) -> int:
    """Bytes of what warm rounds sum up for items on one device, in all runs that it has.

    Of the rounds that take most; 0 without warm rounds.
    """
    numbers = max(map(_numbers_of_item, federation.phases), default=0)
    return federation.runs // federation.mesh.shape[RUNS] * 4 * federation.n_items * numbers


def _numbers_of_item(phase: Federation) -> int:
    """Floats that rounds of a kind take for every item; what is little beside views is left out."""
    server = phase.server
    if server.mode == "items":
        return _TABLES_OF_EQUATIONS * alternating.numbers(server.fusion.dim)
    if server.mode == "pairs":
        counts = _TABLES, _TABLES_OF_NEIGHBOURS
        if phase.mesh.devices.flat[0].platform == "cpu" and cores.meet_in_one_order():
            counts = _TABLES_IN_ORDER, _TABLES_OF_NEIGHBOURS_IN_ORDER
        return phase.n_items * counts[server.warm.neighbours > 0]
    return 0


def _largest_chunk(federation: Federation) -> Bucket:
    """The bucket whose chunks hold most, warm rounds included."""
    buckets = [bucket for one in (*federation.phases, federation) for bucket in one.buckets]
    return max(buckets, key=lambda bucket: bucket.chunk * bucket.floats)


def program_bytes(programs: Mapping[str, Compiled]) -> int:
    """Bytes that the largest of some compiled programs has on each device while it runs.

    That is what it gets and gives, and what lies between; what it gets and writes over counts once.
    """
    return max(
        found.argument_size_in_bytes
        + found.output_size_in_bytes
        + found.temp_size_in_bytes
        - found.alias_size_in_bytes
        for found in (program.memory_analysis() for program in programs.values())
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
    needed = state_bytes(federation) + chunk_bytes(federation) + table_bytes(federation)
    return max(1, int(room / needed))


def check(federation: Federation, resident: bool) -> None:
    """Refuse what cannot fit.

    Args:
        federation: what is trained.
        resident: whether the devices hold all private states.

    Raises:
        UserError: chunks, what warm rounds sum up and the private states need more than the devices
            have.
    """
    devices = federation.mesh.devices.size
    on_each = chunk_bytes(federation) + table_bytes(federation)
    needed = resident * state_bytes(federation) + devices * on_each
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
    state, tables = resident * state_bytes(federation), devices * table_bytes(federation)
    if tables > state + devices * chunk_bytes(federation):
        return _sentence_of_tables(federation)
    largest = _largest_chunk(federation)
    chunk, room = largest.chunk, (_USABLE * total - state - tables) / devices
    fitting = int(room / (4 * largest.floats))
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


def _sentence_of_tables(federation: Federation) -> str:
    """The same where what warm rounds sum up takes most."""
    mesh, n_items = federation.mesh, federation.n_items
    total, devices, tables = memory.devices_bytes(mesh), mesh.devices.size, table_bytes(federation)
    server = max(federation.phases, key=_numbers_of_item).server
    fits = _USABLE * total / (devices * tables)
    what, fewer = f"for every pair of {n_items} items", int(n_items * math.sqrt(fits))
    other = "--experts=none" if server.warm.neighbours else "--warm_basis, which needs no pairs"
    if server.mode == "items":
        what, fewer = f"for the equations of {n_items} items", int(n_items * fits)
        other = "--als_passes=0, or a smaller --dim"
    fitting = int(_USABLE * total / tables) if mesh.local_devices[0].platform == "cpu" else 0
    also = f", or --devices={fitting}" if 1 <= fitting < devices else ""
    return (
        f"out of device memory: what a warm round has {what} takes "
        f"{tables / 1e9:.2g} GB on each of the {devices} devices, which have {total / 1e9:.1f} GB "
        f"together; expected {other}, or fewer items, fewer than {fewer}{also}"
    )
