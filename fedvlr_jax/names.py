"""The names that flags accept; what they stand for is found where it is defined."""

BACKBONES = ("fedavg", "fcf", "fedncf", "pfedrec", "fedrap")
VARIANTS = ("fedvlr", "mlp", "vbpr", "id")
MODALITIES = ("image", "text", "id")
VIEWS = (
    "sum",
    "mlp",
    "gate",
    "attention",
    "image_dominant",
    "text_dominant",
    "balanced",
    "graph",
    *MODALITIES,
)
AGGREGATIONS = ("mean",)
WARM_STARTS = ("none", "spectral")
EXPERTS = ("auto", "none", "neighbours")
SWITCHES = ("on", "off")
CLIENT_SOLVERS = ("sgd", "exact")
CLIENT_MODES = ("accumulate", "local")
NEGATIVE_SAMPLINGS = ("uniform", "expected")
SCORINGS = ("auto", "dense", "sparse")
OPTIMIZERS = ("sgd", "adam", "adamw", "adagrad", "rmsprop", "yogi", "lion")
PRODUCTS = ("highest", "high", "default")  # of a run's matrix products
PRECISIONS = ("float32", "bfloat16")  # of an encoder
STRAGGLERS = ("drop", "late")
PRIVATE_STATES = ("auto", "device", "host")
# Of rankings, in percent, over all clients and over those of a group.
CUTOFFS = (10, 20, 50)  # where nobody asks for others
METRICS = ("hr", "ndcg", "mrr")  # at every cutoff
METRIC_GROUPS = ("", "warm/", "cold/")
KEPT_CHECKPOINTS = ("all", "best", "none")
