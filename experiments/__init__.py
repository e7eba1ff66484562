"""Short mains over the library: flags in, `fedvlr_jax` called, files out."""
