"""The names that flags accept; what they stand for is found where it is defined."""

BACKBONES = ("fedavg",)
VARIANTS = ("fedvlr", "mlp", "id")
VIEWS = ("sum", "mlp", "gate", "image", "text", "id")
OPTIMIZERS = ("sgd", "adam", "adamw", "adagrad", "rmsprop", "yogi", "lion")
PRECISIONS = ("float32", "bfloat16")
PRIVATE_STATES = ("auto", "device", "host")
