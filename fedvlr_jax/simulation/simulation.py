"""A configuration and a data set become a simulation: all that is static, arrays on the devices."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, Sharding
from jaxtyping import Int

from fedvlr_jax import backbones, numerics
from fedvlr_jax.aggregation import MEAN
from fedvlr_jax.analysis.communication import Protocol
from fedvlr_jax.client import closed_form
from fedvlr_jax.client.compression import Compression
from fedvlr_jax.client.model import ClientModel
from fedvlr_jax.client.update import LocalTraining
from fedvlr_jax.config import Config, MethodConfig
from fedvlr_jax.data.types import Catalogue, Dataset, Interactions
from fedvlr_jax.errors import UserError
from fedvlr_jax.fusion.neighbours import nearest
from fedvlr_jax.fusion.operators import Features, Fusion, named
from fedvlr_jax.protocol import CohortSum
from fedvlr_jax.registry import AGGREGATIONS
from fedvlr_jax.server import aggregate, alternating, spectral
from fedvlr_jax.simulation import keys
from fedvlr_jax.simulation.accounting import protocol_of
from fedvlr_jax.simulation.clock import Rules
from fedvlr_jax.simulation.federated_round import (
    Federation,
    FederationState,
    Rates,
    init_state,
    shared_shapes,
)
from fedvlr_jax.simulation.mesh import (
    RUNS,
    blocks,
    by_client,
    by_run,
    by_run_and_client,
    copied,
    everywhere,
    make_mesh,
    split_evenly,
)
from fedvlr_jax.simulation.population import (
    EVALUATION_PLACES,
    MOST_CLIENTS,
    TRAINING_PLACES,
    Chunking,
    Population,
    bucket_widths,
    in_order,
    make_buckets,
    place,
    place_by_run,
    worthwhile_widths,
)
from fedvlr_jax.simulation.times import times_of
from fedvlr_jax.simulation.traced import pool_size, rates_of

# Floats that one chunk holds: private parameters and gathered view rows of one epoch. Small enough
# for the cache of a CPU core, large enough to fill an accelerator.
_CHUNK_FLOATS = {"cpu": 250_000}
_CHUNK_FLOATS_ACCELERATOR = 200_000_000
_TILE = 128  # clients that a TPU computes with at a time, where arrays lie client by client
# Up to so many numbers of features are on every device. Each then makes all views, which an
# accelerator does in less time than it waits for the others' parts of them and of the gradient.
_COPIED_NUMBERS = {"cpu": 0}
_COPIED_NUMBERS_ACCELERATOR = 10_000_000
# Up to so many items their co-occurrence fits everywhere.
_MOST_PAIRED_ITEMS = 10_000
# A start from some of the clients is better than none that ends.
_MOST_ROUNDS_OF_A_PASS = 10
# Scores of all items are faster than those of a client's samples up to this many items a sample.
_DENSE = {"cpu": 4}
_DENSE_ACCELERATOR = 200
# Numbers per item that a client has then, and how much larger its chunks are: products of matrices
# make better use of larger ones.
_DENSE_ROWS, _DENSE_CHUNKS = 6, 16


@dataclass(frozen=True)
class Simulation:
    """Everything that a run needs, or several that train together, but what changes.

    Attributes:
        federation: all that is static.
        interactions: every client's data, on the host; one for all runs, or one for each.
        features: frozen features, each device with a block of items.
        rates: learning rates, on every device; of runs that train together, stacked by run.
    """

    federation: Federation
    interactions: tuple[Interactions, ...]
    features: Features
    rates: Rates

    @functools.cached_property
    def population(self) -> Population:
        """Every client's data, on the devices from the first use on.

        Where every run has data of its own it is stacked by run.
        """
        mesh = self.federation.mesh
        clients = in_order(self.n_clients, blocks(mesh))
        if len(self.interactions) > 1:
            return place_by_run(self.interactions, clients, mesh)
        return place(*self.interactions, clients, mesh)

    @property
    def n_clients(self) -> int:
        """Number of clients U."""
        return self.federation.n_clients

    @functools.cached_property
    def shared_shapes(self) -> FederationState:
        """Shapes of the state of a run alone, without private states."""
        return shared_shapes(self.federation, self.features)

    @functools.cached_property
    def protocol(self) -> Protocol:
        """What server and clients send each other, in all rounds but warm ones."""
        return protocol_of(self.federation, self.features)

    @property
    def cohort_size(self) -> int:
        """Clients that train in a round."""
        return self.federation.cohort or self.n_clients

    def initial_state(self, seed: int) -> FederationState:
        """The state before the first round of a run alone, on the devices."""
        return self.initial_states([seed])

    def initial_states(self, seeds: Sequence[int]) -> FederationState:
        """The states before the first round of all runs, stacked by run where there are several."""
        mesh, words = self.federation.mesh, [keys.from_seed(seed) for seed in seeds]
        if len(seeds) == 1:
            placed = copied(mesh, words[0])
        else:
            placed = jax.device_put(np.stack(jax.device_get(words)), by_run(mesh))
        initialize = _initialize(self.federation, len(self.interactions) > 1)
        with numerics.products(self.federation.precision):
            return initialize(self.features, self.population, placed)

    def state_shapes(self) -> FederationState:
        """Shapes and shardings of the state of a run alone."""
        words = jax.eval_shape(lambda: keys.from_seed(0))
        initialize = _initialize(self.federation, False)
        shapes = jax.eval_shape(initialize, self.features, self.population, words)
        return FederationState(*map(abstract, shapes, state_shardings(self.federation.mesh)))


@numerics.as_written()
def build(
    config: Config,
    dataset: Dataset,
    others: Sequence[tuple[Config, Dataset]] = (),
    mesh: Mesh | None = None,
) -> Simulation:
    """Put a data set on the devices and fix everything static.

    Args:
        config: of the run.
        dataset: the data that it names.
        others: runs that train together with it, with their data; equal to it but for what is
            traced (simulation/traced.py).
        mesh: the devices, those that the configuration asks for if it is not given. Of devices
            that are only described (simulation/mesh.py) the simulation holds shapes, and its
            programs can be lowered and compiled.

    Raises:
        UserError: more devices wanted than there are, a view of a modality that is missing, or a
            warm start with more columns than items.
    """
    runs = 1 + len(others)
    method, data = config.method, dataset.interactions
    interactions = (data,)
    if any(other is not dataset for _, other in others):
        interactions += tuple(other.interactions for _, other in others)
    lengths = np.concatenate([one.lengths for one in interactions])
    catalogue = _catalogue(config.method, dataset)
    views = _views(config.method, dataset.name, catalogue)
    mesh = mesh or make_mesh(config.execution.devices, runs)
    part = config.participation
    model = _model(method, views, data.n_items, lengths, equal=part.clip_norm > 0)
    platform = mesh.devices.flat[0].platform
    floats = _CHUNK_FLOATS.get(platform, _CHUNK_FLOATS_ACCELERATOR)
    floats = floats * mesh.shape[RUNS] // runs  # what one run may have of a device's
    # No chunk needs to be larger than all clients of a device.
    rows = -(-data.n_clients // blocks(mesh))
    fixed, most = min(config.execution.chunk, rows), min(MOST_CLIENTS, -(-rows // _TILE) * _TILE)
    server = aggregate.create(
        Fusion(
            named(*views),
            data.n_items,
            method.dim,
            method.modalities,
            method.layer_norm == "on",
        ),
        method.server_optimizer,
        model.backbone,
        model.width,
        method.client_mode,
        part.gradient_noise > 0,
        again=platform != "cpu",
        aggregation=AGGREGATIONS[method.aggregation],
        exact=method.client_solver == "exact",
    )
    features = _features(mesh, server.fusion, catalogue)
    training = LocalTraining(
        model,
        # Without a router nothing moves from one solution to the next.
        1 if server.exact and not model.routed else method.local_epochs,
        method.negatives,
        method.client_optimizer,
        server.fusion,
        method.client_mode,
        part.clip_norm > 0,
        method.negative_sampling == "expected",
        aggregation=server.aggregation,
        exact=server.exact,
    )
    compression = _compression(config, server, training, features)
    model = dataclasses.replace(model, compression=compression)
    training = dataclasses.replace(training, model=model)
    if closed_form.applies(training):
        dense = _is_dense(config, data.n_items, float(lengths.mean()), model.pool, platform)
        training = dataclasses.replace(training, dense=dense)
    shares = method.cohort / data.n_clients, config.schedule.eval_clients / data.n_clients
    federation = Federation(
        server=server,
        training=training,
        n_clients=data.n_clients,
        n_items=data.n_items,
        cohort=method.cohort,
        skew=part.availability_skew,
        late=part.late > 0 or config.clock.stragglers == "late",
        rules=_rules(config),
        buckets=make_buckets(
            _widths(config, lengths, shares[0], TRAINING_PLACES),
            Chunking((_DENSE_CHUNKS if training.dense else 1) * floats, fixed, most),
            *np.add(
                _training_floats(config, server, training, features),
                _compression_floats(compression, data.n_items),
            ).tolist(),
        ),
        sample=config.schedule.eval_clients,
        top=config.schedule.ranked,
        # An evaluated client needs its scores a few times over, with neighbours a few times more,
        # and its history's rows.
        evaluation_buckets=make_buckets(
            _widths(config, lengths, shares[1], EVALUATION_PLACES),
            Chunking(4 * floats, fixed, most),
            len(views) * method.dim,
            (4 if method.experts == "none" else 7) * data.n_items + model.private_numbers(),
        ),
        mesh=mesh,
        runs=runs,
        precision=method.precision,
    )
    if method.warm_start == "spectral":
        chunking = Chunking(_DENSE_CHUNKS * floats, fixed, most)
        warm = _spectral(config, federation, chunking)
        if method.als_passes:
            warm = _alternating(config, federation, warm, chunking)
        federation = dataclasses.replace(federation, warm=warm)
    pairs = ((config, dataset), *others)
    all_rates = [rates_of(one) for one, _ in pairs]
    if federation.rules is not None:
        protocol = protocol_of(federation, features)
        all_rates = [
            rates._replace(times=times_of(one, federation, protocol, of.interactions.lengths))
            for rates, (one, of) in zip(all_rates, pairs, strict=True)
        ]
    if others:
        rates = jax.tree.map(lambda *x: np.stack(x), *all_rates)
        rates = jax.device_put(rates, by_run(mesh))
    else:
        rates = copied(mesh, *all_rates)
    return Simulation(federation, interactions, features, rates)


def _compression(
    config: Config, server: aggregate.Server, training: LocalTraining, features: Features
) -> Compression | None:
    """How uploads are made smaller, None where they are not."""
    part, longest = config.participation, training.model.longest
    if not (part.upload_bits or part.upload_rows):
        return None

    def uploaded() -> CohortSum:
        state = aggregate.init(server, features, jax.random.key(0))
        rates = rates_of(config).server
        sent = aggregate.broadcast(server, state, features, jnp.int32(0), rates)
        return aggregate.nothing(server, sent, training.by_item)

    total = jax.eval_shape(uploaded)
    n_items, width = total.gradient.shape
    dense = sum(leaf.size for leaf in jax.tree.leaves(total.shared))
    # Without a matrix for all others, rows are those of all items.
    by_history = total.squares is not None
    return Compression(
        bits=part.upload_bits,
        rows=part.upload_rows,
        by_history=by_history,
        places=(longest if by_history else n_items) * (part.error_feedback == "on"),
        width=width,
        dense=dense + by_history * width * (width + 1) // 2,
    )


def _rules(config: Config) -> Rules | None:
    """How the server waits for clients, None where they take no time."""
    rules, cohort = config.clock, config.method.cohort
    if rules.devices_profile == "none":
        return None
    more = rules.over_selection > 0
    return Rules(
        asked=math.ceil(cohort * (1 + rules.over_selection)),
        wanted=cohort if more else 0,
        late=rules.stragglers == "late",
        buffer=rules.buffer,
        versions=rules.max_staleness + 1 if rules.buffer else 1,
    )


def _spectral(config: Config, federation: Federation, chunking: Chunking) -> Federation:
    """The federation of the warm rounds that begin a run, before those of `federation`.

    Raises:
        UserError: more columns than items.
    """
    method, n_items = config.method, federation.n_items
    if method.warm_basis > n_items:
        raise UserError(
            f"--warm_basis={method.warm_basis}: expected at most the {n_items} items there are"
        )
    few = n_items <= _MOST_PAIRED_ITEMS or method.experts == "neighbours"
    mode = "pairs" if few and not method.warm_basis else "products"
    wanted = method.neighbours if mode == "pairs" and method.experts != "none" else 0
    columns = method.warm_basis or min(method.dim + spectral.OVERSAMPLING, n_items)
    passes = spectral.PASSES[mode]
    rounds = method.warm_rounds or passes * _rounds_of_a_pass(federation)
    # Rows of the history's items alone are less work, and products suit accelerators.
    dense = federation.mesh.devices.flat[0].platform != "cpu"
    # Rows of the history in and out, or of all items.
    floats = 2 * (columns + 1), columns
    if mode == "pairs":
        floats = (0 if dense else n_items), 3 * n_items
    warm = aggregate.WarmStart(rounds, passes, columns=columns, neighbours=wanted)
    return _warm_rounds(federation, warm, chunking, floats, mode=mode, dense=dense)


def _alternating(
    config: Config, federation: Federation, start: Federation, chunking: Chunking
) -> Federation:
    """The federation of passes of alternating least squares, after those of a spectral start."""
    dim, passes = config.method.dim, config.method.als_passes
    rounds = passes * _rounds_of_a_pass(federation)
    warm = aggregate.WarmStart(rounds, passes, before=start.server.warm.rounds)
    # D is one view, and a client has a head for it alone.
    model = dataclasses.replace(
        federation.training.model, n_views=1, routed=False, fused=True, pool=0
    )
    numbers = alternating.numbers(dim)
    floats = dim + numbers, 4 * dim**2
    found = _warm_rounds(federation, warm, chunking, floats, mode="items", dense=False, model=model)
    return dataclasses.replace(found, warm=start)


def _rounds_of_a_pass(federation: Federation) -> int:
    """As many as let every client be sampled about once, but not too many."""
    everybody = -(-federation.n_clients // (federation.cohort or federation.n_clients))
    return min(everybody, _MOST_ROUNDS_OF_A_PASS)


def _warm_rounds(
    federation: Federation,
    warm: aggregate.WarmStart,
    chunking: Chunking,
    floats: tuple[int, int],
    *,
    mode: str,
    model: ClientModel | None = None,
    **training: Any,
) -> Federation:
    """The federation of warm rounds of one kind.

    Args:
        federation: of all other rounds.
        warm: of these.
        chunking: of their clients.
        floats: that a client's history place and a client take beside its private state.
        mode: what clients sum up; it is sent as it is.
        model: of their clients, where it is another one.
        training: what else is different about how they train.
    """
    server = federation.server._replace(
        mode=mode,
        noisy=False,
        # A plugin's changes gradients, and these are sums.
        aggregation=MEAN,
        exact=False,
        warm=warm,
    )
    how = dataclasses.replace(
        federation.training,
        epochs=1,
        model=dataclasses.replace(model or federation.training.model, compression=None),
        mode=mode,
        expected=False,
        aggregation=MEAN,
        exact=False,
        **training,
    )
    per_place, per_client = floats
    rules = federation.rules
    if rules is not None:
        rules = dataclasses.replace(rules, late=False, buffer=0, versions=1)
    return dataclasses.replace(
        federation,
        server=server,
        training=how,
        late=False,
        # Later uploads would be of other sums.
        rules=rules,
        buckets=make_buckets(
            tuple(bucket.width for bucket in federation.buckets),
            chunking,
            per_place,
            per_client + federation.training.model.private_numbers(),
        ),
    )


def _widths(
    config: Config, lengths: Int[np.ndarray, " clients"], share: float, worth: int
) -> tuple[int, ...]:
    """Widths that histories are padded to, where a share of the clients is looked at, 0 for all."""
    if config.execution.buckets:
        return bucket_widths(lengths, config.execution.buckets)
    return worthwhile_widths(lengths, share or 1.0, worth)


def _catalogue(method: MethodConfig, dataset: Dataset) -> Catalogue:
    """The features that the method may read.

    Raises:
        UserError: there is nothing to read.
    """
    read = Catalogue(
        *(
            getattr(dataset.catalogue, name) if name in method.modalities else None
            for name in ("image", "text")
        )
    )
    if read.image is None and read.text is None and "id" not in method.modalities:
        raise UserError(
            f"--modalities={','.join(method.modalities)}: the data set {dataset.name} has none"
        )
    return read


def _views(method: MethodConfig, data: str, catalogue: Catalogue) -> tuple[str, ...]:
    """The views of a run on this data set.

    Raises:
        UserError: a view of a modality that is missing.
    """
    missing = [name for name in ("image", "text") if getattr(catalogue, name) is None]
    if method.asked_views is None:
        return tuple(name for name in method.modalities if name not in missing)
    for view in named(*method.asked_views):
        if view.needs in missing:
            raise UserError(
                f"--views={view.name}: the data set {data} has no {view.needs} features"
            )
        if not set(view.reads) & set(method.modalities) - set(missing):
            raise UserError(f"--views={view.name}: there is nothing of {', '.join(view.reads)}")
        if view.mixes and len(missing) == 2:
            raise UserError(f"--views={view.name}: there are no features of the data set {data}")
    return method.asked_views


def _model(
    method: MethodConfig,
    views: tuple[str, ...],
    n_items: int,
    lengths: Int[np.ndarray, " clients"],
    equal: bool,
) -> ClientModel:
    """The clients' model; `equal` makes all clients count the same, as clipped ones have to.

    Raises:
        UserError: a pool of negatives that is too large.
    """
    backbone = backbones.get(method.backbone)
    if equal:
        backbone = dataclasses.replace(backbone, weight=backbones.equally)
    most = n_items - int(lengths.min())
    pool = pool_size(method)
    if pool * n_items >= 2**32:  # see client/negatives.py: draw_pool
        raise UserError(
            f"--negative_pool={pool}: expected at most {(2**32 - 1) // n_items} with "
            f"{n_items} items"
        )
    return ClientModel(
        backbone,
        len(views),
        method.dim,
        routed=method.variant == "fedvlr",
        fused=method.variant != "vbpr",
        pool=min(pool, most),
        longest=int(lengths.max()),
    )


def _is_dense(config: Config, n_items: int, mean_length: float, pool: int, platform: str) -> bool:
    """Whether clients with a linear head score all items."""
    method, wanted = config.method, config.execution.scoring
    if wanted != "auto":
        return wanted == "dense"
    if method.negative_sampling == "expected" and not pool:
        return True
    samples = mean_length * (1 + method.negatives)
    return n_items <= samples * _DENSE.get(platform, _DENSE_ACCELERATOR)


def _training_floats(
    config: Config,
    server: aggregate.Server,
    training: LocalTraining,
    features: Features,
) -> tuple[int, int]:
    """Floats that a client in training needs per history place, and beside those."""
    method, model, n_items = config.method, training.model, server.fusion.n_items
    row, samples = model.n_views * model.dim, 1 + method.negatives
    if training.expected and not training.dense:
        samples = 1 + (model.pool or n_items)  # at every place, which is more than there are
    per_place, per_client = samples * row, model.private_numbers()
    if training.exact:
        # The system that a client solves, its factor, and two tables by item of what is changed.
        tables = 2 * (method.local_epochs + 1) * n_items if training.by_item else 0
        return 3 * row, per_client + 4 * model.width**2 + tables
    if training.dense:
        tables = 2 if training.aggregation.of_client else 0  # of the whole upload
        return row, per_client + (_DENSE_ROWS + tables * row) * n_items
    if model.backbone.linear is None or model.backbone.own_rows is not None:
        # Item vectors, and as much again for what a network makes of them.
        per_place += 4 * samples * model.width
    if training.held:
        # The whole upload, as it comes and sorted by item.
        per_place += 2 * method.local_epochs * samples * row
    if method.client_mode == "local":
        # Gamma and the network with their gradients, and the rows of D.
        init = functools.partial(aggregate.init, server)
        shared = jax.eval_shape(init, features, jax.random.key(0)).params
        numbers = sum(leaf.size for leaf in jax.tree.leaves(shared))
        per_client += 2 * (numbers - n_items * model.dim)
        per_place += method.local_epochs * samples * model.dim
    return per_place, per_client


def _compression_floats(how: Compression | None, n_items: int) -> tuple[int, int]:
    """What compression adds: the upload, what is sent of it and owed, what is drawn for each."""
    if how is None:
        return 0, 0
    if how.by_history:
        return 4 * how.width, 4 * how.dense + how.width**2
    return 0, 4 * (n_items * how.width + how.dense)


def _features(mesh: Mesh, fusion: Fusion, catalogue: Catalogue) -> Features:
    """The features that some view reads, split over the devices by items; see `_COPIED_NUMBERS`."""
    read = {
        name: (rows, np.float32)
        for name, rows in (("image", catalogue.image), ("text", catalogue.text))
        if rows is not None and any(name in view.reads for view in fusion.views)
    }
    if any(view.mixes for view in fusion.views):
        read["neighbours"] = (nearest(catalogue.image, catalogue.text), np.int32)
    platform = mesh.devices.flat[0].platform
    numbers = sum(rows.size for rows, _ in read.values())
    if numbers <= _COPIED_NUMBERS.get(platform, _COPIED_NUMBERS_ACCELERATOR):
        placed = {name: copied(mesh, rows.astype(kind)) for name, (rows, kind) in read.items()}
    else:
        placed = {name: split_evenly(mesh, *rows) for name, rows in read.items()}
    return Features(**{"image": None, "text": None} | placed)


@functools.lru_cache(maxsize=4)
def _initialize(federation: Federation, by_run: bool) -> Any:
    """The program of initial states; `by_run` where every run has data of its own."""
    mesh = federation.mesh
    initial_state = functools.partial(init_state, federation)
    if federation.runs > 1:
        axes = (None, 0 if by_run else None, 0)
        initial_state = jax.vmap(initial_state, in_axes=axes, spmd_axis_name=RUNS)
    return jax.jit(initial_state, out_shardings=state_shardings(mesh, federation.runs > 1))


def state_shardings(mesh: Mesh, stacked: bool = False) -> FederationState:
    """How a run's state lies on the devices, or states `stacked` by run."""
    shared, private = everywhere(mesh), by_client(mesh)
    if stacked:
        shared, private = by_run(mesh), by_run_and_client(mesh)
    return FederationState(*[shared] * 4, private=private, late=shared, time=shared, flight=shared)


def abstract(tree: Any, sharding: Sharding | None = None) -> Any:
    """Shapes and shardings of arrays, a state's for instance, without what is in them.

    With a `sharding` every array has that one, and shapes alone will do.
    """
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding or leaf.sharding
        ),
        tree,
    )
