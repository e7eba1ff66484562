"""Files or a generator in, a `Dataset` out."""

from pathlib import Path

from fedvlr_jax.config import Config
from fedvlr_jax.data.folder import read_folder
from fedvlr_jax.data.synthetic import generate
from fedvlr_jax.data.types import Catalogue, Dataset, Interactions, Planted

__all__ = ["Catalogue", "Dataset", "Interactions", "Planted", "load"]


def load(config: Config) -> Dataset:
    """The data set that `config` names, read from its folder or generated.

    Raises:
        UserError: the folder's content is not usable.
    """
    data = config.data
    if data.data == "synthetic":
        return generate(
            data.clients,
            data.items,
            data.history_length,
            data.preference_concentration,
            data.data_seed,
        )
    return read_folder(Path(data.data), needs_content=config.method.variant != "id")
