"""Files or a generator in, a `Dataset` out."""

from dataclasses import replace
from pathlib import Path

from fedvlr_jax.config import Config, DataConfig
from fedvlr_jax.data.folder import read_folder
from fedvlr_jax.data.synthetic import generate
from fedvlr_jax.data.types import Catalogue, Dataset, Interactions, Planted
from fedvlr_jax.processes import together

__all__ = ["Catalogue", "Dataset", "Interactions", "Kept", "Planted", "load"]


def load(config: Config) -> Dataset:
    """The data set that `config` names, read from its folder or generated.

    Where several processes train together, each has the train items of its own clients only.

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
    found = read_folder(Path(data.data), needs_content=config.method.variant != "id")
    own = together.own_clients(found.interactions.n_clients)
    return replace(found, interactions=found.interactions.only(own))


class Kept:
    """The data set that was used last; the next run of many often has the same."""

    def __init__(self) -> None:
        self._config: DataConfig | None = None
        self._dataset: Dataset | None = None

    def load(self, config: Config) -> Dataset:
        """The data of a configuration.

        Raises:
            UserError: as in `load`.
        """
        if self._config != config.data:
            self._dataset = None  # lets go of it before the next one comes
            self._dataset = load(config)
            self._config = config.data
        return self._dataset
