"""The configuration of a run: one tree of frozen dataclasses, validated once, here.

Every leaf is a setting (`settings.py`) with a default, a help text and a check. Code below this
module trusts what it is given.
"""

import dataclasses
import functools
import reprlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedvlr_jax import names, plugins, targets
from fedvlr_jax.errors import UserError
from fedvlr_jax.registry import AGGREGATIONS, BACKBONES, VIEWS, Registry
from fedvlr_jax.settings import (
    AT_LEAST_ONE,
    AT_LEAST_ZERO,
    NOT_NEGATIVE,
    POSITIVE,
    PROBABILITY,
    SEED,
    SHARE,
    Check,
    Role,
    at_least,
    check_of,
    checked,
    choice,
    fitted,
    kind_of,
    path_setting,
    setting,
    with_role,
)

_LAYOUT = Role.LAYOUT | Role.RESUMED
_MOST_BITS = 8
_LONGEST_DEADLINE = 1_700_000  # seconds, about 20 days
_LARGEST_CUTOFF = 10_000
_server, _counted, _traced, _switch, _layout = (
    functools.partial(setting, role=role)
    for role in (Role.SERVER, Role.CLIENTS, Role.TRACED, Role.SWITCH, _LAYOUT)
)


def _optimizer(default: str, text: str, role: Role = Role.PROGRAM) -> Any:
    return choice(default, text, names.OPTIMIZERS, role, "one of optax's ")


def _named(
    default: str, text: str, own: tuple[str, ...], registry: Registry, role: Role = Role.PROGRAM
) -> Any:
    """A setting that takes a name of the package's `own`, or of what plugins have registered."""
    return setting(default, f"{text} One of {', '.join(own)}, or a plugin's.", registry.check, role)


def _rate(default: float, text: str) -> Any:
    return _traced(default, text, NOT_NEGATIVE)


def _by_solver(
    exact: Any, sgd: Any, text: str, check: Check | tuple[str, ...], role: Role = Role.PROGRAM
) -> Any:
    """A setting whose default depends on the solver; it takes names, or what passes a check."""
    defaults = [f"{value:g}" if isinstance(value, float) else value for value in (exact, sgd)]
    text = f"{text} Default: {defaults[0]} with --client_solver=exact, else {defaults[1]}."
    make = choice if isinstance(check[0], str) else setting
    return make(None, text, check, role, by_solver={"exact": exact, "sgd": sgd})


def _generated(default: int | float, text: str, check: Check) -> Any:
    """A setting of generated data; other data bring their own."""
    return setting(None, text, check, Role.DATA, generated=default)


@dataclass(frozen=True)
class DataConfig:
    """Where the interactions and features come from."""

    data: str = path_setting(
        "synthetic",
        "Folder in the MMRec layout (inter.csv or *.inter, image_features.npy, "
        "text_features.npy), or 'synthetic', which generates a population with planted "
        "preferences.",
        (lambda v: v != "", "a folder or 'synthetic'"),
        Role.DATA | Role.RESUMED,  # its path may be spelled otherwise, its fingerprint decides
    )
    clients: int | None = _generated(
        1000,
        "Number of clients (users) that --data=synthetic generates; default 1000.",
        AT_LEAST_ONE,
    )
    items: int | None = _generated(
        2000, "Number of items that --data=synthetic generates; default 2000.", at_least(20)
    )
    history_length: int | None = _generated(
        0,
        "Number of train items of every generated client. 0, the default, draws lengths "
        "from a log-normal distribution with a mean of about 16, clipped to 5..250.",
        AT_LEAST_ZERO,
    )
    preference_concentration: float | None = _generated(
        0.3,
        "Concentration of the Dirichlet distribution from which every generated client "
        "gets its preference over image, text and ID. With a small one, every client cares "
        "about one modality only; default 0.3.",
        POSITIVE,
    )
    data_seed: int | None = _generated(
        0,
        "Seed of the generated population, which is independent of --seed; default 0.",
        AT_LEAST_ZERO,
    )


SYNTHETIC_DEFAULTS = {
    leaf.name: leaf.metadata["generated"]
    for leaf in dataclasses.fields(DataConfig)
    if "generated" in leaf.metadata
}


@dataclass(frozen=True)
class MethodConfig:
    """What is trained, and how clients and server train it (docs/method.md)."""

    plugins: tuple[str, ...] | None = _layout(
        None,
        "Python modules of your own that register backbones, views or aggregations, "
        "separated by commas. A module is named as Python imports it, also from the "
        "current folder, or by the path of its .py file.",
        known=(),
    )
    backbone: str = _named(
        "fedavg",
        "Federated recommender that scores the items.",
        names.BACKBONES,
        BACKBONES,
        Role.SERVER,
    )
    variant: str = choice(
        "fedvlr",
        "How items are represented. fedvlr: pre-fused views, weighed by a personal router; "
        "mlp: one fused view for everybody; vbpr: one view per modality, each with a "
        "personal head; id: ID embeddings alone.",
        names.VARIANTS,
        Role.SERVER,
    )
    views: tuple[str, ...] | None = _server(
        None,
        f"Fusion operators of variant fedvlr, separated by commas, from {', '.join(names.VIEWS)}, "
        "or a plugin's. The default is one view for each modality that there is. The paper uses "
        "sum,mlp,gate.",
        known=VIEWS,
    )
    modalities: tuple[str, ...] = _server(
        names.MODALITIES,
        "Modalities that views are made of, separated by commas, from image, text and id. "
        "Those that the data set does not have are left out.",
        known=names.MODALITIES,
    )
    layer_norm: str | None = _by_solver(
        "off",
        "on",
        "Whether the mapped features and ID embeddings are layer-normed before views are made of "
        "them. on: all items' vectors have the same norm, as in the paper; off: norms are "
        "learned, too.",
        names.SWITCHES,
        Role.SERVER,
    )
    dim: int = _server(64, "Width d of item embeddings and views, in numbers.", AT_LEAST_ONE)
    local_epochs: int | None = _by_solver(
        1,
        5,
        "Number of passes that a client makes over its history in one round. Where heads are "
        "solved, every pass is a step of the router.",
        AT_LEAST_ONE,
    )
    negatives: int = setting(
        4, "Number of negative items for each train item in every local epoch.", AT_LEAST_ONE
    )
    negative_sampling: str = choice(
        "uniform",
        "uniform: a client draws new negatives in every local epoch, all items outside its "
        "history with the same probability; expected: it draws none, but takes all of "
        "these items, each weighted by how often it would be drawn on average.",
        names.NEGATIVE_SAMPLINGS,
    )
    client_mode: str = choice(
        "accumulate",
        "accumulate: clients upload gradients of the shared parameters (the paper's "
        "algorithm 1); local: they train copies of the shared parameters and upload the "
        "difference (classic FedAvg).",
        names.CLIENT_MODES,
    )
    client_solver: str | None = choice(
        None,
        "How a client comes to its prediction head. sgd: by steps on its positives and "
        "negatives; exact: as the solution of a least-squares problem over all items, without "
        "negatives and learning rates, which needs a linear head. Default: exact where it can be "
        "(fedavg and fcf with --client_mode=accumulate), else sgd.",
        names.CLIENT_SOLVERS,
    )
    unobserved_weight: float = _traced(
        4.0,
        "Weight of the squared scores of all items together, relative to the weight of the "
        "client's train items (--client_solver=exact only).",
        NOT_NEGATIVE,
    )
    head_penalty: float = _traced(
        2.0,
        "Weight of the squared norm of a client's head, relative to the weight of one train "
        "item (--client_solver=exact only).",
        POSITIVE,
    )
    aggregation: str = _named(
        "mean",
        "How the gradients of a cohort's clients are combined. mean: the mean, in which a "
        "client has the weight that the backbone gives it.",
        names.AGGREGATIONS,
        AGGREGATIONS,
    )
    negative_pool: int = setting(
        0,
        "Size of the fixed random set of items from which a client draws its negatives. 0 "
        "means all items outside its history; for pfedrec and fedrap, whose clients keep a "
        "vector of every item in the set, 0 means 256.",
        AT_LEAST_ZERO,
    )
    cohort: int = _counted(
        0,
        "Number of clients that are sampled in every round, without replacement. 0 means "
        "every client.",
        AT_LEAST_ZERO,
    )
    server_lr: float | None = _by_solver(
        3e-3, 3e-2, "Learning rate of the server's step.", NOT_NEGATIVE, Role.TRACED
    )
    network_lr: float = _rate(
        3e-3,
        "Learning rate of the server's step for the scoring network that clients share "
        "(fedncf only).",
    )
    client_lr: float = _rate(3e-2, "Learning rate of a client's prediction head.")
    router_lr: float | None = _by_solver(
        1.0, 3e-3, "Learning rate of a client's router.", NOT_NEGATIVE, Role.TRACED
    )
    own_lr: float = _rate(
        1e-1,
        "Learning rate of the item vectors that a client keeps for itself (pfedrec and "
        "fedrap only). It is a rate per sample: a step follows the sum of the samples' "
        "losses, not their mean.",
    )
    shared_lr: float = _rate(
        1e-1,
        "Learning rate of a client's copies of the shared parameters (--client_mode=local only).",
    )
    server_optimizer: str = _optimizer("adam", "Optimizer of the server.", Role.SERVER)
    client_optimizer: str = _optimizer(
        "sgd", "Optimizer of a client's head and router. It starts anew in every round."
    )
    warm_start: str | None = _by_solver(
        "spectral",
        "none",
        "How a run begins. none: with initial parameters that are drawn; spectral: with warm "
        "rounds, in which clients train nothing, and the server gives the ID embeddings and the "
        "maps of features a first value from the items' co-occurrence.",
        names.WARM_STARTS,
        Role.SERVER,
    )
    warm_rounds: int = setting(
        0,
        "Number of warm rounds before those of --als_passes (--warm_start=spectral only). 0 means "
        "one pass over the clients, or four where it takes subspace iteration; a pass takes as "
        "many rounds as let every client be sampled about once, but at most 10.",
        AT_LEAST_ZERO,
    )
    warm_basis: int = setting(
        0,
        "Number of columns of a subspace iteration through warm rounds, from --dim to the number "
        "of items (--warm_start=spectral only). 0 means 16 more than --dim; but with up to 10,000 "
        "items there is none, and clients upload all pairs of their items.",
        AT_LEAST_ZERO,
        Role.SERVER,
    )
    als_passes: int | None = _by_solver(
        2,
        0,
        "Number of passes over the clients, after those of --warm_start=spectral, in which clients "
        "solve for heads that score ID embeddings alone, and the server solves for the ID "
        "embedding of every item (alternating least squares). A pass takes as many warm rounds as "
        "one of --warm_rounds. If the validation score is not higher after the last pass, the run "
        "goes on from its spectral start. There are none without one, or by default with noise.",
        AT_LEAST_ZERO,
        Role.SERVER,
    )
    item_penalty: float = _traced(
        0.03,
        "Weight of the squared norm of an ID embedding when the server solves for it, relative to "
        "the weight of the item's squared scores (--als_passes only).",
        NOT_NEGATIVE,
    )
    content_scale: float = _traced(
        1.0,
        "Mean norm of what the maps of image and text make of an item at the spectral start and "
        "after every pass of --als_passes, relative to the mean norm of an ID embedding "
        "(--warm_start=spectral only).",
        NOT_NEGATIVE,
    )
    experts: str | None = _by_solver(
        "auto",
        "none",
        "What ranks items beside views and head. neighbours: items that often go with those of "
        "the client's history, by weights that the server finds from the items' co-occurrence "
        "and sends (EASE); it needs --warm_start=spectral. auto: neighbours, where clients upload "
        "pairs of their items in warm rounds, else none. By default none with noise, too.",
        names.EXPERTS,
        Role.SERVER,
    )
    expert_weight: float = _traced(
        0.5,
        "How much the standardized scores by neighbours count beside those by views and head "
        "(--experts=neighbours or auto).",
        NOT_NEGATIVE,
    )
    neighbours: int = setting(
        1000,
        "Number of other items for which an item of a history counts, those with the largest "
        "weights (--experts=neighbours only).",
        AT_LEAST_ONE,
    )
    neighbour_penalty: float = _traced(
        300.0,
        "Weight of the squared item weights when the server solves for them "
        "(--experts=neighbours only).",
        POSITIVE,
    )
    precision: str = choice(
        "highest",
        "How exactly products of 32-bit matrices are computed. highest: in 32 bits, as on "
        "a CPU; high: as three bfloat16 products (TPU) or in TF32 (GPU); default: as fast "
        "as possible, as one bfloat16 product (TPU) or in TF32 (GPU). On a CPU all three "
        "are the same.",
        names.PRODUCTS,
    )

    @property
    def asked_views(self) -> tuple[str, ...] | None:
        """The fusion operators that the variant has to have, whatever the data set.

        None where it takes one view per modality that there is (METHOD "Variants").
        """
        if self.variant in ("id", "mlp"):
            return (self.variant,)
        return self.views if self.variant == "fedvlr" else None


@dataclass(frozen=True)
class ParticipationConfig:
    """Which of the sampled clients take part in a round, and how their uploads are protected."""

    dropout: float = _traced(
        0.0,
        "Probability that a sampled client does not take part in the round, from 0 to below 1.",
        SHARE,
    )
    late: float = _switch(
        0.0,
        "Probability that a client's upload arrives one round late, from 0 to below 1. A "
        "late upload is added to those of the next round.",
        SHARE,
    )
    availability_skew: float = setting(
        0.0,
        "How much clients differ in how often they are available for cohorts: the standard "
        "deviation of the logarithm of their availability. 0 means that all are available "
        "alike.",
        NOT_NEGATIVE,
    )
    clip_norm: float = _switch(
        0.0,
        "Largest L2 norm of a client's whole upload; a larger upload is scaled down to it. "
        "0 means no clipping.",
        NOT_NEGATIVE,
    )
    noise_multiplier: float = _traced(
        0.0,
        "Standard deviation of the Gaussian noise that is added to the sum of clipped "
        "uploads, as a multiple of --clip_norm.",
        NOT_NEGATIVE,
    )
    delta: float = _traced(
        1e-5, "The delta of the privacy budget (epsilon, delta) that is reported.", PROBABILITY
    )
    upload_bits: int = setting(
        0,
        "Bits of every number that clients upload, from 1 to 8; numbers are rounded up or down at "
        "random. 0 means 32-bit floats.",
        (lambda v: 0 <= v <= _MOST_BITS, f"a whole number from 0 to {_MOST_BITS}"),
    )
    upload_rows: int = setting(
        0,
        "Most rows of items that a client uploads in a round, those with the largest norms. 0 "
        "means those of all items that it has touched.",
        AT_LEAST_ZERO,
    )
    error_feedback: str = choice(
        "on",
        "Whether a client keeps what --upload_bits and --upload_rows have lost, and adds it to its "
        "next upload.",
        names.SWITCHES,
    )
    gradient_noise: float = _switch(
        0.0,
        "Standard deviation of the Gaussian noise that the server adds to the mean "
        "gradient (the paper's noise experiment). Nothing is clipped for it, and no "
        "privacy is guaranteed.",
        NOT_NEGATIVE,
    )


@dataclass(frozen=True)
class ClockConfig:
    """The devices that clients have, and how the server waits for them."""

    devices_profile: str = path_setting(
        "none",
        "The devices that clients have, by which simulated time passes. none: there is no such "
        "time; uniform: all have the same device, always available; phones: computation, "
        "bandwidth and hours of the day differ as among phones; or a CSV file with a row for each "
        "client and the columns gflops, down_mbps, up_mbps, and if wanted opens, hours, spread "
        "(docs/devices.md).",
        (lambda v: v != "", "none, uniform, phones or a file"),
    )
    deadline: float = _traced(
        0.0,
        "Simulated seconds after which a round ends, whoever still trains. 0 means no deadline.",
        (lambda v: 0 <= v <= _LONGEST_DEADLINE, f"a number from 0 to {_LONGEST_DEADLINE}"),
    )
    over_selection: float = setting(
        0.0,
        "Share of clients that are asked beyond --cohort, from 0 to 10. A round ends when as many "
        "have uploaded as --cohort says.",
        (lambda v: 0 <= v <= 10, "a number from 0 to 10"),
    )
    stragglers: str = choice(
        "drop",
        "What becomes of an upload that comes after the end of its round. drop: its client stops "
        "at the end, and nothing changes by it; late: it is added to those of the next round.",
        names.STRAGGLERS,
    )
    buffer: int = _counted(
        0,
        "Number of uploads after which the server takes a step while others go on training "
        "(FedBuff); --cohort clients train at a time. 0 means rounds: the server waits for the "
        "clients that it has asked.",
        AT_LEAST_ZERO,
    )
    staleness_power: float = _traced(
        0.5,
        "An upload whose client began s steps of the server ago counts (1 + s) to the power of "
        "minus this number (--buffer only).",
        NOT_NEGATIVE,
    )
    max_staleness: int = setting(
        10,
        "Uploads whose client began more steps of the server ago are dropped (--buffer only).",
        (lambda v: 0 <= v <= 1000, "a whole number from 0 to 1000"),
    )


@dataclass(frozen=True)
class ScheduleConfig:
    """How long a run goes on, and when it is evaluated."""

    rounds: int = setting(100, "Number of federated rounds.", AT_LEAST_ONE, Role.RESUMED)
    eval_every: int = setting(5, "Number of rounds from one evaluation to the next.", AT_LEAST_ONE)
    eval_clients: int = _counted(
        0,
        "Number of clients that are evaluated, a fixed random sample. 0 means every client.",
        AT_LEAST_ZERO,
    )
    cutoffs: tuple[int, ...] = setting(
        names.CUTOFFS,
        "The numbers K, ascending and separated by commas, at which HR@K, NDCG@K, MRR@K and what "
        "rankings show are reported. The best round is the one with the best validation NDCG@50 "
        "over warm clients, or NDCG at the largest K if 50 is not among them.",
        at_least(1, _LARGEST_CUTOFF),
        known=(),
    )
    patience: int = _traced(
        0,
        "Stop after this number of evaluations without a better validation score (that by which "
        "the best round is chosen, see --cutoffs). 0 means never.",
        AT_LEAST_ZERO,
    )
    target: str = _traced(
        "",
        "Validation accuracy to reach, METRIC:VALUE, like valid/warm/ndcg@50:12.5, and to stop at. "
        "Or a share of the best value of all runs of a sweep, like valid/warm/ndcg@50:0.9max, "
        "which stops no run. What it took to get there is in the tables.",
        (lambda v: not v or targets.parsed(v) is not None, targets.EXPECTED),
    )
    seed: int = _traced(
        0, "Seed of initial parameters, cohorts, negatives and the order of ties.", SEED
    )

    @property
    def ranked(self) -> int:
        """How many items of every client's ranking are kept: as many as the largest K, 50 at least.

        That is where there are so many.
        """
        return max(*names.CUTOFFS, *self.cutoffs)


@dataclass(frozen=True)
class ExecutionConfig:
    """How the work is laid out on the machine. It changes results by rounding errors only."""

    chunk: int = _layout(
        0,
        "Number of clients that one device trains at the same time. 0 means a number that "
        "suits the device's memory.",
        AT_LEAST_ZERO,
    )
    buckets: int = _layout(
        0,
        "Largest number of buckets into which clients are sorted by the length of their "
        "history. Each bucket is padded to a width of its own. 0 means up to 4: as many as "
        "save more time than their compilation takes.",
        AT_LEAST_ZERO,
    )
    scoring: str = choice(
        "auto",
        "Which items a client with a linear head scores in training. dense: all items, by "
        "products of matrices; sparse: only its positives and negatives; auto: what is "
        "faster for the number of items, the histories and the platform.",
        names.SCORINGS,
        _LAYOUT,
    )
    devices: int = _layout(
        0, "Number of devices that clients are spread over. 0 means all devices.", AT_LEAST_ZERO
    )
    private_state: str = choice(
        "auto",
        "Where clients' private states are kept. device: in the devices' memory; host: in "
        "the host's memory and in files, for clients that have taken part only; auto: on "
        "the devices if the states fit there.",
        names.PRIVATE_STATES,
        Role.LAYOUT,
    )
    wave: int = _layout(
        0,
        "Number of clients that are on the devices at the same time if private states are "
        "on the host. 0 means the cohort, or as much of it as fits.",
        AT_LEAST_ZERO,
    )
    host_gb: float = _layout(
        0.0,
        "Memory for private states on the host, in GB. The other states go to files in the "
        "run's folder. 0 means a quarter of the memory there is.",
        NOT_NEGATIVE,
    )
    checkpoint_seconds: float = _layout(
        10.0,
        "Seconds of work that a kill may lose: a run with small private states (up to 100 "
        "MB) does not write checkpoints more often. 0 means a checkpoint at every "
        "evaluation.",
        NOT_NEGATIVE,
    )
    keep_checkpoints: str = choice(
        "all",
        "Checkpoints that a finished run keeps. all: the last ones and the best round's; "
        "best: the best round's alone; none: none. A run that goes on later from fewer "
        "checkpoints trains some rounds again.",
        names.KEPT_CHECKPOINTS,
        _LAYOUT,
    )


@dataclass(frozen=True)
class Config:
    """A whole run. Build one with `Config.of(variant="mlp", rounds=20)`."""

    data: DataConfig = DataConfig()
    method: MethodConfig = MethodConfig()
    participation: ParticipationConfig = ParticipationConfig()
    clock: ClockConfig = ClockConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    execution: ExecutionConfig = ExecutionConfig()

    @classmethod
    def of(cls, **settings: Any) -> "Config":
        """Make a validated configuration from flat settings, named like the flags.

        Args:
            **settings: any leaf of the tree, e.g. `data="data/KU"`, `rounds=50`. Lists (`LISTS`)
                may be a comma-separated string or a sequence of names or whole numbers. `plugins`
                are imported before the others are checked.

        Raises:
            UserError: an unknown name, a value of the wrong type or out of its range, or settings
                that contradict each other.

        Example:
            >>> config = Config.of(variant="mlp", clients=100, rounds=20)
            >>> config.method.variant, config.data.items, config.schedule.rounds
            ('mlp', 2000, 20)
            >>> Config.of(views="image,text").method.views
            ('image', 'text')
            >>> Config.of(rounds=0)
            Traceback (most recent call last):
            ...
            fedvlr_jax.errors.UserError: rounds=0: expected a whole number from 1 to 2147483647
        """
        if settings.get("plugins") is not None:
            load_plugins(settings["plugins"])
        unknown = sorted(set(settings) - set(leaves()))
        if unknown:
            raise UserError(
                f"--{unknown[0]}: unknown setting; the known ones are {', '.join(leaves())}"
            )
        groups = {}
        for group in dataclasses.fields(cls):
            values = {
                leaf.name: _checked_list(leaf, settings[leaf.name])
                if leaf.name in LISTS
                else checked(leaf, settings[leaf.name])
                for leaf in dataclasses.fields(group.type)
                if leaf.name in settings
            }
            groups[group.name] = group.type(**values)
        return _resolved(cls(**groups))

    def flat(self) -> dict[str, Any]:
        """All settings as one JSON-ready dictionary, named like the flags."""
        merged: dict[str, Any] = {}
        for group in dataclasses.asdict(self).values():
            merged |= group
        lists = {name: merged[name] and ",".join(map(str, merged[name])) for name in LISTS}
        return merged | lists


def check_made(config: Any) -> None:
    """Refuse what `Config.of` has not made.

    Raises:
        UserError: it is something else, or has settings that nobody has filled in.
    """
    if isinstance(config, Config):
        generated = [getattr(config.data, name) for name in SYNTHETIC_DEFAULTS]
        if config.data.data != "synthetic" or None not in generated:
            return
    raise UserError(f"--config={reprlib.repr(config)}: expected what Config.of(...) makes")


def leaves() -> dict[str, dataclasses.Field]:
    """Every setting by its flag name, in the order of the tree."""
    return {
        leaf.name: leaf
        for group in dataclasses.fields(Config)
        for leaf in dataclasses.fields(group.type)
    }


LISTS: dict[str, Collection[str]] = {
    leaf.name: leaf.metadata["known"] for leaf in leaves().values() if "known" in leaf.metadata
}


# Defaults by solver, and what takes their place where there are no sums to go on from, or noisy
# ones.
BY_SOLVER: dict[str, Mapping[str, Any]] = {
    leaf.name: leaf.metadata["by_solver"]
    for leaf in leaves().values()
    if "by_solver" in leaf.metadata
}
_WITHOUT_SUMS = {"als_passes": 0, "experts": "none"}
# What only steps of a head depend on.
_OF_STEPS = ("client_lr", "client_optimizer", "negatives", "negative_sampling", "negative_pool")


def defaults_beside(config: Config) -> dict[str, Any]:
    """What each of a configuration's settings would be if all others were given and it was not.

    In the form of `Config.flat`.
    """
    flat, plain = config.flat(), Config.of().flat()
    deciding = ("plugins", "backbone", "client_mode", "clip_norm", "noise_multiplier")
    base = {name: flat[name] for name in deciding if flat[name] is not None}
    solver = {"client_solver": flat["client_solver"]}
    found = Config.of(**base, **solver, warm_start=flat["warm_start"]).flat()
    return (
        found
        | {name: plain[name] for name in deciding}
        | {"client_solver": Config.of(**base).flat()["client_solver"]}
        | {"warm_start": Config.of(**base, **solver).flat()["warm_start"]}
    )


def load_plugins(value: Any) -> None:
    """Import the plugins that a value of `plugins` names, see `Config.of`.

    Raises:
        UserError: it is no list of modules that can be imported.
    """
    plugins.load(_checked_names(leaves()["plugins"], value))


def having(role: Role) -> tuple[str, ...]:
    """The names of all settings that have a role."""
    return with_role(leaves(), role)


def _checked_list(leaf: dataclasses.Field, value: Any) -> tuple[str, ...] | tuple[int, ...] | None:
    return (_checked_numbers if leaf.type == tuple[int, ...] else _checked_names)(leaf, value)


def _listed(leaf: dataclasses.Field, value: Any, expected: str) -> Sequence[Any]:
    """What is in a list, or between the commas of a text."""
    wrong = f"--{leaf.name}={reprlib.repr(value)}: {expected}"
    # An array or a column of names is a list, too; a set has no order.
    listed = getattr(value, "tolist", lambda: value)()
    chosen = [x.strip() for x in listed.split(",")] if isinstance(listed, str) else listed
    if not isinstance(chosen, tuple | list):
        raise UserError(f"{wrong} in a list, found {kind_of(value)}")
    if not len(chosen):
        raise UserError(f"{wrong}, found none")
    return chosen


def _checked_numbers(leaf: dataclasses.Field, value: Any) -> tuple[int, ...]:
    check = check_of(leaf)
    expected = f"expected a list in ascending order, each {check[1]}"
    chosen, numbers = _listed(leaf, value, expected), []
    for one in chosen:
        try:
            # One spelling of a number, so that equal lists are equal texts in a sweep, too.
            plain = not isinstance(one, str) or str(int(one)) == one
            numbers.append(fitted(int, check, int(one) if isinstance(one, str) else one))
        except ValueError:
            plain = False
        if not plain:
            shown = one if isinstance(one, str) else reprlib.repr(one)
            raise UserError(f"--{leaf.name}={shown}: {expected}")
    if numbers != sorted(set(numbers)):
        raise UserError(f"--{leaf.name}={','.join(map(str, numbers))}: {expected}")
    return tuple(numbers)


def _checked_names(leaf: dataclasses.Field, value: Any) -> tuple[str, ...] | None:
    if value is None and leaf.default is None:
        return None
    known = LISTS[leaf.name]
    expected = f"expected names from {', '.join(known)}" if known else "expected names of modules"
    chosen = _listed(leaf, value, expected)
    for name in chosen:
        if not isinstance(name, str) or (name not in known if known else not name):
            shown = name if isinstance(name, str) else reprlib.repr(name)
            raise UserError(f"--{leaf.name}={shown}: {expected}")
    if len(set(chosen)) != len(chosen):
        repeated = f"--{leaf.name}={','.join(chosen)}"
        raise UserError(f"{repeated}: a name appears twice, expected each name once")
    return tuple(map(str.__str__, chosen))


def _resolved(config: Config) -> Config:
    """Fill in what depends on other settings, and refuse contradictions."""
    noisy = config.participation.noise_multiplier > 0
    config = dataclasses.replace(config, method=_with_solver(config.method, noisy))
    _check_method(config.method)
    _check_participation(config)
    _check_clock(config)
    _check_schedule(config.schedule)
    data = config.data
    given = {name: getattr(data, name) for name in SYNTHETIC_DEFAULTS}
    if data.data == "synthetic":
        filled = {k: SYNTHETIC_DEFAULTS[k] if v is None else v for k, v in given.items()}
        config = dataclasses.replace(config, data=dataclasses.replace(data, **filled))
        if filled["history_length"] > filled["items"] // 2:
            raise UserError(
                f"--history_length={filled['history_length']}: expected at most half of the "
                f"{filled['items']} items, so that negatives are left to draw"
            )
        check_population(config, filled["clients"], filled["items"])
    else:
        for name, value in given.items():
            if value is not None:
                raise UserError(
                    f"--{name}={value}: only --data=synthetic takes it; --data={data.data} "
                    "brings its own"
                )
    return config


def _with_solver(method: MethodConfig, noisy: bool) -> MethodConfig:
    """With a solver, and the defaults that go with it.

    What inverts sums of warm rounds is left out where these are `noisy`.
    """
    can = BACKBONES[method.backbone].can_solve and method.client_mode != "local"
    auto = "exact" if can else "sgd"
    solver = method.client_solver or auto
    filled = {
        name: by_solver[solver]
        for name, by_solver in BY_SOLVER.items()
        if getattr(method, name) is None
    }
    warm_start = method.warm_start or filled["warm_start"]
    if warm_start == "none" or noisy:
        filled |= {name: _WITHOUT_SUMS[name] for name in _WITHOUT_SUMS.keys() & filled.keys()}
    return dataclasses.replace(method, client_solver=solver, **filled)


def _check_method(method: MethodConfig) -> None:
    if method.client_solver == "exact":
        if not BACKBONES[method.backbone].can_solve:
            raise UserError(
                f"--client_solver=exact: solves for a linear head, which --backbone="
                f"{method.backbone} does not have alone, expected fedavg, fcf, or "
                "--client_solver=sgd"
            )
        if method.client_mode == "local":
            raise UserError(
                "--client_mode=local: clients step their copies together with their heads, "
                "expected --client_mode=accumulate with --client_solver=exact"
            )
        for name in _OF_STEPS:
            value = getattr(method, name)
            if value != leaves()[name].default:
                raise UserError(
                    f"--{name}={value}: has no effect on heads that are solved, expected "
                    "--client_solver=sgd with it"
                )
    if method.warm_basis and method.warm_basis < method.dim:
        raise UserError(
            f"--warm_basis={method.warm_basis}: expected 0, or at least the {method.dim} columns "
            "that --dim wants"
        )
    if method.als_passes and method.warm_start != "spectral":
        raise UserError(
            f"--als_passes={method.als_passes}: goes on from a spectral start, expected "
            "--warm_start=spectral"
        )
    if method.experts == "neighbours" and (method.warm_start != "spectral" or method.warm_basis):
        raise UserError(
            "--experts=neighbours: needs the items' co-occurrence from warm rounds, expected "
            "--warm_start=spectral without --warm_basis"
        )
    views = method.asked_views or ()
    for view in (VIEWS[name] for name in views):
        if view.needs in set(names.MODALITIES) - set(method.modalities):
            raise UserError(
                f"--modalities={','.join(method.modalities)}: the view {view.name} needs "
                f"{view.needs}"
            )
        if view.mixes and method.client_mode == "local":
            raise UserError(
                f"--views={view.name}: mixes rows of different items, which --client_mode=local "
                "has not all; expected --client_mode=accumulate"
            )


def _check_participation(config: Config) -> None:
    part, cohort = config.participation, config.method.cohort
    if part.noise_multiplier and not part.clip_norm:
        raise UserError(
            f"--noise_multiplier={part.noise_multiplier}: counts in clip norms, expected a "
            "--clip_norm above 0"
        )
    if part.availability_skew and not cohort:
        raise UserError(
            f"--availability_skew={part.availability_skew}: everybody takes part, expected a "
            "--cohort of at least 1"
        )
    if part.late and part.noise_multiplier:
        raise UserError(
            f"--late={part.late}: the privacy budget is known for uploads that arrive in their "
            "round only, expected 0 with --noise_multiplier"
        )
    if part.availability_skew and part.noise_multiplier:
        raise UserError(
            f"--availability_skew={part.availability_skew}: the privacy budget is known for "
            "uniform cohorts only, expected 0 with --noise_multiplier"
        )


def _check_clock(config: Config) -> None:
    clock, part, cohort = config.clock, config.participation, config.method.cohort
    for name in ("deadline", "over_selection", "buffer"):
        if getattr(clock, name) and clock.devices_profile == "none":
            raise UserError(
                f"--{name}={getattr(clock, name)}: needs to know how long clients take, expected a "
                "--devices_profile"
            )
    if clock.over_selection and not cohort:
        raise UserError(
            f"--over_selection={clock.over_selection}: everybody is asked, expected a --cohort of "
            "at least 1"
        )
    if clock.stragglers == "late" and not (clock.deadline or clock.over_selection):
        raise UserError(
            "--stragglers=late: the server waits for everybody, expected a --deadline or "
            "--over_selection"
        )
    if clock.buffer:
        for name, value in (
            ("deadline", clock.deadline),
            ("over_selection", clock.over_selection),
            ("late", part.late),
        ):
            if value:
                raise UserError(
                    f"--{name}={value}: there are no rounds to be late for, expected 0 with "
                    "--buffer"
                )
        if cohort and clock.buffer > cohort:
            raise UserError(
                f"--buffer={clock.buffer}: expected at most the {cohort} clients of --cohort, "
                "which train at a time"
            )
    uniform = clock.devices_profile in ("none", "uniform")
    waits = not (clock.deadline or clock.over_selection or clock.buffer)
    if part.noise_multiplier and not (uniform and waits):
        raise UserError(
            f"--noise_multiplier={part.noise_multiplier}: the privacy budget is known for uniform "
            "cohorts only, expected no --deadline, --over_selection or --buffer and "
            "--devices_profile=uniform or none"
        )


def _check_schedule(schedule: ScheduleConfig) -> None:
    target = targets.parsed(schedule.target)
    if target is not None and target.cutoff not in schedule.cutoffs:
        raise UserError(
            f"--target={schedule.target}: expected a metric at one of the --cutoffs, which are "
            f"{', '.join(map(str, schedule.cutoffs))}"
        )


def check_population(config: Config, n_clients: int, n_items: int) -> None:
    """Refuse a cohort or an evaluation sample larger than the population, or a K above the items.

    The default cutoffs are taken with any number of items.

    Raises:
        UserError: `--cohort` or `--eval_clients` exceeds `n_clients`, or one of `--cutoffs`
            `n_items`.
    """
    cutoffs = config.schedule.cutoffs
    if cutoffs != names.CUTOFFS and max(cutoffs) > n_items:
        raise UserError(
            f"--cutoffs={','.join(map(str, cutoffs))}: expected at most the {n_items} items there "
            "are"
        )
    flat = config.flat()
    for name in having(Role.CLIENTS):
        if flat[name] > n_clients:
            raise UserError(
                f"--{name}={flat[name]}: expected at most the {n_clients} clients there are"
            )
