"""Short mains over the library: flags in, `fedvlr_jax` called, files out."""

import sys

try:
    import jax  # noqa: F401 -- reads its settings from the environment, and refuses what is none
except ValueError as error:
    print(f"error: the environment has a setting that JAX refuses: {error}", file=sys.stderr)
    sys.exit(2)
