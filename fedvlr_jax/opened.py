"""A finished run, opened from its folder: what it has found, and what its clients would score."""

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Float, Int, UInt32

from fedvlr_jax import data as data_sets
from fedvlr_jax import numerics, record
from fedvlr_jax.analysis.metrics import selection
from fedvlr_jax.client.flat import unflatten
from fedvlr_jax.client.model import ClientModel, ClientState
from fedvlr_jax.config import Config, leaves
from fedvlr_jax.data.types import Dataset, Interactions
from fedvlr_jax.errors import UserError
from fedvlr_jax.names import MODALITIES
from fedvlr_jax.processes import cores
from fedvlr_jax.protocol import Broadcast
from fedvlr_jax.settings import ANY, AT_LEAST_ZERO, FOLDER, argument
from fedvlr_jax.simulation import best, keys, newcomers
from fedvlr_jax.simulation.evaluate import tie_order
from fedvlr_jax.simulation.federated_round import FederationState
from fedvlr_jax.simulation.mesh import blocks, by_client, make_mesh
from fedvlr_jax.simulation.population import NO_CLIENT, Population, place
from fedvlr_jax.simulation.private import Private
from fedvlr_jax.simulation.simulation import Simulation, build

WEIGHT, RELIANCE = "weight/", "reliance/"  # columns of `Run.users` begin with


@dataclass(frozen=True, eq=False)
class User:
    """One client with what the best round of a run makes of it.

    Attributes:
        client: its id; of a new user, one that follows those of the data set.
        history: its train items, ascending.
        state: its private state (router, head, own item vectors), as arrays of numpy.
        view_weights: weight of every view by its name, summing to 1.
    """

    client: int
    history: Int[np.ndarray, " history"]
    state: ClientState
    view_weights: dict[str, float]
    _scores: Float[np.ndarray, " items"]
    _order: UInt32[np.ndarray, " items"]

    def scores(self, items: Any = None) -> Float[np.ndarray, " n"]:
        """Scores of these items, of all if none are given; -inf for those of the history.

        Raises:
            UserError: no such items.
        """
        if items is None:
            return self._scores.copy()
        return self._scores[_item_ids(items, len(self._scores))]

    def top(self, k: int = 10) -> Int[np.ndarray, " k"]:
        """The best `k` items outside the history, or all there are, in the order of the run."""
        ranked = np.lexsort((self._order, -self._scores))
        return ranked[: min(k, len(ranked) - len(self.history))]


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run; `open_run` makes it. Everything is read when it is first asked for.

    Attributes:
        folder: of the run, which is only read.
        data: the data set, or its folder, if it is not where the run has read it.
        plugins: modules of the run's plugins, as in `Config.of`, if they have moved since.
    """

    folder: Path
    data: Path | Dataset | None = None
    plugins: Any = None

    @functools.cached_property
    def config(self) -> Config:
        """The settings, with the run's plugins loaded."""
        settings = record.settings(self.folder, ("data_fingerprint",))
        # Runs of before there was a choice do not say.
        settings.setdefault("client_solver", "sgd")
        if self.plugins is not None:
            settings["plugins"] = self.plugins
        config = Config.of(**{name: settings[name] for name in leaves() if name in settings})
        if not isinstance(self.data, Path):
            return config
        if "synthetic" in (config.data.data, str(self.data)):
            raise UserError(f"--data={self.data}: only a data set in a folder can have moved")
        return dataclasses.replace(
            config, data=dataclasses.replace(config.data, data=str(self.data))
        )

    @functools.cached_property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json (docs/outputs.md)."""
        return record.summary(self.folder)

    @functools.cached_property
    def curve(self) -> pd.DataFrame:
        """A row per evaluation, with the columns of metrics.jsonl."""
        return pd.DataFrame(record.evaluations(self.folder))

    def rounds_to(self, target: Any, metric: str | None = None) -> int | None:
        """The first evaluated round in which a column of `curve` is at least `target`, or None.

        Without a `metric` it is the one that chose the best round.

        Raises:
            UserError: no number, or no such column.
        """
        target = argument("target", float, ANY, target)
        if metric is None:
            metric = f"valid/{selection(self.summary['valid'])}"
        if metric not in self.curve:
            raise UserError(f"--metric={metric}: expected one of {', '.join(self.curve)}")
        there = self.curve["round"][pd.to_numeric(self.curve[metric]) >= target]
        return int(there.iloc[0]) if len(there) else None

    @functools.cached_property
    def rankings(self) -> Int[np.ndarray, "users top"]:
        """Every evaluated user's best items, best first, -1 pads; rows as in `users`."""
        ranked = record.rankings(self.folder)
        if not np.array_equal(ranked["users"], self.users["user"]):
            raise UserError(
                f"--run={self.folder}: {record.RANKINGS} and {record.PER_USER} list different "
                "users, expected both from one run"
            )
        return ranked["topk"]

    @functools.cached_property
    def users(self) -> pd.DataFrame:
        """A row per evaluated user, as in per_user.npz.

        Columns `user`, `rank`, `history_length`, `warm`, then `weight/<view>`, and
        `reliance/<modality>`.
        """
        plain = ("user", "rank", "history_length", "warm")
        arrays = record.per_user(self.folder, (*plain, "views", "view_weights"))
        columns = {name: arrays[name] for name in plain}
        rows = ((WEIGHT, arrays["views"], "view_weights"), (RELIANCE, MODALITIES, "reliance"))
        for kind, names, key in rows:
            if key in arrays:  # an older run has fewer
                columns |= {kind + n: v for n, v in zip(names, arrays[key].T, strict=True)}
        return pd.DataFrame(columns)

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The data that the run was trained on.

        Raises:
            UserError: it is gone, or has changed since.
        """
        config, dataset = self.config, self.data
        if not isinstance(dataset, Dataset):
            try:
                dataset = data_sets.load(config)
            except UserError as error:
                raise UserError(
                    f"--run={self.folder}: its data cannot be read ({error}); --data=DIR tells "
                    "where it is now"
                ) from None
        if dataset.fingerprint() != record.settings(self.folder)["data_fingerprint"]:
            raise UserError(
                f"--run={self.folder}: {config.data.data} has changed since, expected the data it "
                "was trained on"
            )
        return dataset

    def views(self) -> Float[np.ndarray, "items views dim"]:
        """The server's views of all items at the best round, from its checkpoint."""
        return jax.device_get(self._sent.views)

    def user(self, user: int) -> User:
        """Any user of the data set, evaluated or not.

        Raises:
            UserError: no such user, the checkpoint was not kept, or the data is gone.
        """
        row = self._row(user)
        mesh, data = self._simulation.federation.mesh, self.dataset.interactions
        clients = np.full((blocks(mesh), 1), NO_CLIENT, np.int32)
        clients[0] = user
        private = Private(jax.device_put(np.tile(row, (blocks(mesh), 1)), by_client(mesh)))
        population = place(data, clients, mesh, int(data.lengths.max()))
        with numerics.as_written():
            return _user(self._simulation, self._state, self._sent, private, population)

    def private_state(self, user: int) -> ClientState:
        """A client's private state at the best round, as arrays; see `user`."""
        row = self._row(user)
        return _state(self._simulation.federation.training.model, row)

    def scores(self, user: int, items: Any = None) -> Float[np.ndarray, " n"]:
        """A user's scores at the best round; see `User.scores`."""
        return self.user(user).scores(items)

    def new_user(self, items: Any, epochs: int | None = None, number: int = 0) -> User:
        """A user who joins with a history, fitted under the views of the best round.

        Args:
            items: the history.
            epochs: of fitting, a multiple of `--local_epochs`; by default those of ten rounds.
            number: counts users who join: what is drawn at random depends on it.

        Raises:
            UserError: no such items, or as in `simulation.newcomers.join`.
        """
        every, data = self.config.method.local_epochs, self.dataset.interactions
        epochs = 10 * every if epochs is None else argument("epochs", int, AT_LEAST_ZERO, epochs)
        if epochs % every:
            raise UserError(
                f"--epochs={epochs}: expected a multiple of {every}, the run's --local_epochs"
            )
        history = np.unique(_item_ids(items, data.n_items)).astype(np.int32)
        if not 0 < len(history) < data.n_items:
            raise UserError(
                f"--items: {len(history)} different ones, expected 1 to {data.n_items - 1}"
            )
        none = np.full(1, -1, np.int32)
        alone = Interactions(
            data.n_items, np.array([0, len(history)]), history, none, none, counted=data.popularity
        )
        joined = newcomers.fit_private(
            self.config,
            self.folder,
            dataclasses.replace(self.dataset, interactions=alone, planted=None),
            data.n_clients + number,
            epochs // every,
        )
        with numerics.as_written():
            sent = _sent(joined.simulation, joined.state)
            return _user(joined.simulation, joined.state, sent, joined.private, joined.population)

    @functools.cached_property
    def _simulation(self) -> Simulation:
        cores.begin()
        # Where it can be, in the layout of the run, whose numbers are the same bit for bit.
        devices = min(self.config.execution.devices, len(cores.devices()))
        return build(self.config, self.dataset, mesh=make_mesh(devices))

    @functools.cached_property
    def _state(self) -> FederationState:
        return best.shared_state(self._simulation, self.folder)

    @functools.cached_property
    def _sent(self) -> Broadcast:
        with numerics.as_written():
            return _sent(self._simulation, self._state)

    @functools.cached_property
    def _rows(self) -> Float[np.ndarray, "clients numbers"]:
        return best.private_rows(self._simulation, self.folder)

    def _row(self, user: int) -> Float[np.ndarray, " numbers"]:
        user, n_clients = argument("user", int, AT_LEAST_ZERO, user), self._simulation.n_clients
        if user >= n_clients:
            raise UserError(f"--user={user}: expected an id from 0 to {n_clients - 1}")
        if self.config.execution.private_state == "host":
            with numerics.as_written():
                return best.private_row_on_host(self._simulation, self.folder, self._state, user)
        return self._rows[user]


def open_run(folder: Any, data: Any = None, plugins: Any = None) -> Run:
    """Open the folder of a finished run, to read it and to ask what its clients would score.

    Args:
        folder: that `fedvlr_jax.train` has written.
        data: the data set (`fedvlr_jax.data.load`), or its folder, if it is not where the run has
            read it.
        plugins: modules of the run's plugins, as in `Config.of`, if they have moved since.

    Raises:
        UserError: no finished run there.
    """
    folder = argument("run", Path, FOLDER, folder)
    if data is not None and not isinstance(data, Dataset):
        data = argument("data", Path, FOLDER, data)
    record.check_finished(folder)
    return Run(folder, data, plugins)


def open_sweep(folder: Any, data: Any = None, plugins: Any = None) -> dict[str, Run]:
    """The finished runs of a sweep, a search or a study by their names; see `open_run`.

    Raises:
        UserError: there are none.
    """
    places = record.finished(argument("folder", Path, FOLDER, folder))
    return {run.name: open_run(run, data, plugins) for run in places}


def _item_ids(items: Any, n_items: int) -> Int[np.ndarray, " n"]:
    ids = np.asarray(items)
    if ids.ndim != 1 or (
        ids.size and (ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= n_items)
    ):
        raise UserError(f"--items: expected a list of ids from 0 to {n_items - 1}")
    return ids.astype(np.int64)


def _state(model: ClientModel, row: Float[np.ndarray, " numbers"]) -> ClientState:
    return jax.device_get(unflatten(model, jnp.asarray(row)))


def _sent(simulation: Simulation, state: FederationState) -> Broadcast:
    with numerics.products(simulation.federation.precision):
        return best.sent(simulation.federation, state, simulation.features, simulation.rates)


def _user(
    simulation: Simulation,
    state: FederationState,
    sent: Broadcast,
    private: Private,
    population: Population,
) -> User:
    """The client in the first row."""
    federation, names = simulation.federation, simulation.federation.server.fusion.names
    with numerics.products(simulation.federation.precision):
        scored = best.scored(federation, state.key, sent, private, population)
    order = tie_order(keys.stream(state.key, keys.TIES), population.client[0], federation.n_items)
    row, scores, weights, client, length, items = jax.device_get(
        (
            private.states[0],
            *(x[0] for x in (*scored, population.client, population.length)),
            population.items,
        )
    )
    return User(
        int(client),
        items[:length],
        _state(federation.training.model, row),
        dict(zip(names, weights.tolist(), strict=True)),
        scores,
        jax.device_get(order),
    )
