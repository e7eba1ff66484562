"""Training in waves: while the devices train one, the host brings the next and keeps the last."""

import functools
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.stages import Compiled
from jaxtyping import Array, Bool, Float, Int

from fedvlr_jax import numerics, record
from fedvlr_jax.client.flat import row_numbers
from fedvlr_jax.protocol import Broadcast
from fedvlr_jax.simulation import keys, programs
from fedvlr_jax.simulation.checkpoint import Checkpoints, Progress
from fedvlr_jax.simulation.clock import Clock
from fedvlr_jax.simulation.evaluate import evaluated_clients
from fedvlr_jax.simulation.federated_round import Outcome, Spent, init_server
from fedvlr_jax.simulation.mesh import by_client, copied, everywhere
from fedvlr_jax.simulation.off_device.bring import Sources
from fedvlr_jax.simulation.off_device.programs import lowered
from fedvlr_jax.simulation.off_device.store import Pool, Store
from fedvlr_jax.simulation.off_device.waves import (
    Layout,
    Wave,
    host_buffers,
    layout,
    nobody,
    prepare,
)
from fedvlr_jax.simulation.simulation import Simulation, abstract
from fedvlr_jax.simulation.trainer import Rankings, Run, stacked_by_run

_STATES = record.PRIVATE  # folder below the run's and below a checkpoint's


@dataclass
class _Trained:
    """The last wave that was trained: whose states the devices hold, and whether they are kept."""

    clients: Int[np.ndarray, "devices rows"]
    states: Float[Array, "all_rows numbers"]
    kept: bool


@dataclass(frozen=True)
class _Came:
    """A round's cohort, split into waves; who of all is late, and what the round takes."""

    waves: list[np.ndarray]
    late: Bool[Array, " clients"]
    spent: Spent


class OffDevice(Run):
    """A `Trainer` and its only `Run`, which keeps private states on the host.

    Args:
        simulation: everything fixed.
        seed: of the run.
        wave: clients on the devices at a time.
        folder: the run's, where states are written that memory has no room for.
        memory: bytes that states may take in the host's memory.
        rounds: of the run.
    """

    def __init__(
        self,
        simulation: Simulation,
        seed: int,
        wave: int,
        folder: Path,
        memory: int,
        rounds: int,
    ) -> None:
        federation = simulation.federation
        numbers = row_numbers(federation.training.model)
        self._simulation = simulation
        self.programs: Mapping[str, Compiled] = {}
        (self._data,) = simulation.interactions
        self._layout: Layout = layout(federation.mesh, self._data.lengths, wave, numbers)
        self._pool = self._make_pool(memory, rounds)
        self._store = Store(federation.n_clients, numbers, folder / _STATES, self._pool)
        self._store.clear()
        words = copied(federation.mesh, keys.from_seed(seed))
        initialize = functools.partial(init_server, federation)
        initialize = jax.jit(initialize, out_shardings=everywhere(federation.mesh))
        with numerics.products(federation.precision):
            self.state = initialize(simulation.features, words)
        self._rounds = 0
        self._buffers = deque(host_buffers(self._layout) for _ in range(2))
        self._evaluated = self._evaluated_clients()
        self._forget()

    @property
    def runs(self) -> Sequence[Run]:
        """This one."""
        return (self,)

    @property
    def diverged(self) -> int:
        """See `Run`."""
        return int(jax.device_get(self.state.diverged))

    @property
    def private_bytes(self) -> int:
        """Bytes of the states of all clients that have taken part."""
        return self._store.nbytes

    def compile(self, before: Callable[[], None] | None = None) -> None:
        """See `Trainer`."""
        wave = self._prepared(np.arange(0))
        settings = programs.settings_of(
            self._simulation, (self.state, self._sources(wave)), wave.population, before
        )
        self.programs = programs.compiled(settings, lowered)

    def round(self) -> Outcome:
        """One round: every wave of the cohort, then the server's step."""
        features, rates = self._simulation.features, self._simulation.rates
        came = self._came or self._draw(self._rounds, self.state.time)
        begin, train, end = (self._named(self._rounds, x) for x in ("open", "wave", "close"))
        self._rounds += 1
        # Drawn before the devices are busy: a program that is called later would wait for them.
        self._came = self._draw(self._rounds, came.spent.time)
        cohort = came.waves
        sent, sums = self.programs[begin](self.state, features, rates)
        following = itertools.chain(cohort[1:], self._came.waves[:1])
        wave = self._ahead or self._prepared(cohort[0])
        for clients in following:
            states, sums = self.programs[train](
                self._states(wave), sums, sent, wave.population, rates, self.state.key, came.late
            )
            self._keep()
            # The wave was brought from the states before it; the next one may write over them.
            self._free = self._last.states
            self._last = _Trained(wave.clients, states, kept=False)
            wave = self._prepared(clients)
            jax.block_until_ready(states)
        self._ahead = wave
        self.state, outcome = self.programs[end](self.state, features, sums, came.spent, rates)
        return stacked_by_run(jax.block_until_ready((self.state, outcome))[1])

    def ranks(self, split: str) -> Int[np.ndarray, " clients"]:
        """See `Run`."""
        ranks = np.full(self._data.n_clients, -1, np.int32)
        sent = self._views()
        for wave in self._waves(self._evaluated):
            target = getattr(wave.population, split)
            states = self._states(wave)
            found = self.programs["ranks"](sent, states, wave.population, self.state.key, target)
            real = wave.clients.ravel() >= 0
            ranks[wave.clients.ravel()[real]] = jax.device_get(found)[real]
            self._free = states
        return ranks

    def rankings(self) -> Rankings:
        """See `Run`."""
        sent = self._views()
        of = self._simulation
        removed, made_of = self.programs["remove"](self.state, of.features, of.rates)
        parts = []
        for wave in self._waves(self._evaluated):
            states = self._states(wave)
            found = self.programs["rankings"](
                sent, removed, states, wave.population, self.state.key
            )
            users = wave.clients.ravel()
            real = users >= 0
            parts.append((users[real], *(x[real] for x in jax.device_get(found))))
            self._free = states
        users, *tastes = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.argsort(users)
        return Rankings(
            users[order].astype(np.int64), *(x[order] for x in tastes), jax.device_get(made_of)
        )

    @property
    def fits_twice(self) -> bool:
        """Never: private states are here for want of memory."""
        return False

    def save(self, checkpoints: Checkpoints, progress: Progress) -> None:
        """See `Run`."""
        self._keep()
        checkpoints.save(self.state, progress, {_STATES: self._store.write})

    def resume(self, checkpoints: Checkpoints) -> tuple[Progress, list[str]]:
        """See `Run`."""
        self.state, progress, complaints = checkpoints.latest(abstract(self.state))
        self._take(checkpoints, progress)
        return progress, complaints

    def go_back(self, checkpoints: Checkpoints, number: int) -> None:
        """See `Run`."""
        self.state, progress = checkpoints.load(number, abstract(self.state))
        self._take(checkpoints, progress)

    def close(self) -> None:
        """Remove the states that are not in a checkpoint."""
        self._forget()
        self._store.clear()
        self._pool.close()

    def _make_pool(self, memory: int, rounds: int) -> Pool:
        layout = self._layout
        most = max(memory // (4 * layout.rows * layout.numbers), 3)
        # More than half of the rows that are held count, but for those of two segments.
        segments = -(-2 * self._data.n_clients // layout.rows) + 3
        soon = -(-rounds * self._simulation.cohort_size // layout.rows) + 1
        return Pool(layout.rows, layout.numbers, most, min(soon, segments))

    def _take(self, checkpoints: Checkpoints, progress: Progress) -> None:
        checkpoints.check_layout(progress)
        self._forget()
        self._rounds = progress.round
        self._store.read(checkpoints.step(progress.round) / _STATES)

    def _forget(self) -> None:
        """Forget what was prepared for the round that would have come next."""
        layout = self._layout
        empty = jax.jit(
            lambda: jnp.zeros((layout.size, layout.numbers)), out_shardings=by_client(layout.mesh)
        )
        self._last = _Trained(nobody(layout), empty(), kept=True)
        self._free: Float[Array, "all_rows numbers"] | None = empty()
        self._ahead: Wave | None = None
        self._came: _Came | None = None

    def _named(self, number: int, name: str) -> str:
        """The program of that name for round `number`."""
        return f"{self._simulation.federation.of_round(number).kind} {name}".strip()

    def _draw(self, number: int, time: Clock | None) -> "_Came":
        """The cohort of a round that begins at that time."""
        placed = copied(self._layout.mesh, np.int32(number))
        draw = self.programs[self._named(number, "cohort")]
        came, spent = draw(self.state.key, placed, time, self._simulation.rates)
        clients = np.flatnonzero(jax.device_get(came.trains))
        waves = np.split(clients, range(self._layout.size, len(clients), self._layout.size))
        return _Came(waves, came.late, spent)

    def _prepared(self, clients: Int[np.ndarray, " wave"]) -> Wave:
        # The last wave may still be reading the other buffer.
        self._buffers.rotate()
        return self._brought(clients, self._buffers[0])

    def _brought(self, clients: Int[np.ndarray, " wave"], host: list[np.ndarray]) -> Wave:
        last = self._last.clients
        return prepare(self._layout, self._data, self._store, clients, last, host)

    def _sources(self, wave: Wave) -> Sources:
        return Sources(wave.source, wave.stored, self._last.states)

    def _states(self, wave: Wave) -> Float[Array, "all_rows numbers"]:
        """The states of a wave's clients, which take the place of `_free`."""
        free, self._free = self._free, None
        return self.programs["bring"](free, self._sources(wave), wave.population, self.state.key)

    def _keep(self) -> None:
        """Hand the states of the last wave to the store."""
        last = self._last
        if not last.kept:
            shards = sorted(last.states.addressable_shards, key=lambda s: s.index[0].start or 0)
            for clients, shard in zip(last.clients, shards, strict=True):
                used = clients[clients >= 0]  # unused rows are the last ones
                self._store.add(used, jax.device_get(shard.data)[: len(used)])
            last.kept = True

    def _views(self) -> Broadcast:
        of = self._simulation
        return self.programs["open"](self.state, of.features, of.rates)[0]

    def _waves(self, clients: Int[np.ndarray, " n"]) -> Iterator[Wave]:
        # A wave that was brought ahead has the first buffer, the other one's has been trained.
        host = self._buffers[1]
        for start in range(0, len(clients), self._layout.size):
            yield self._brought(clients[start : start + self._layout.size], host)

    def _evaluated_clients(self) -> Int[np.ndarray, " evaluated"]:
        everybody = jnp.arange(self._data.n_clients)
        chosen = evaluated_clients(self._simulation.federation, self.state.key, everybody)
        return np.flatnonzero(jax.device_get(chosen))
