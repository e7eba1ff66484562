"""Load a data set from its files, or generate one."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fedvlr_jax.config import Config, DataConfig, check_made
from fedvlr_jax.data.layout import read_folder
from fedvlr_jax.data.synthetic import generate
from fedvlr_jax.data.types import Catalogue, Dataset, Interactions, Planted
from fedvlr_jax.processes import together

__all__ = ["Catalogue", "Dataset", "DatasetCache", "Interactions", "Planted", "load"]


def load(config: Config) -> Dataset:
    """The data set that `config` names, read from its folder or generated.

    Where several processes train together, each has the train items of its own clients only.

    Raises:
        UserError: it is no configuration, or the folder's content is not usable.
    """
    check_made(config)
    data = config.data
    if data.data == "synthetic":
        return generate(
            data.clients,
            data.items,
            data.history_length,
            data.preference_concentration,
            data.data_seed,
        )
    found = read_folder(Path(data.data), _needs_content(config))
    own = together.own_clients(found.interactions.n_clients)
    return replace(found, interactions=found.interactions.only(own))


def _needs_content(config: Config) -> bool:
    """Whether a folder without features will not do."""
    return config.data.data != "synthetic" and config.method.variant != "id"


class DatasetCache:
    """Keeps the data sets that were used last, because the next run often has the same."""

    def __init__(self) -> None:
        self._kept: dict[tuple[DataConfig, bool], Dataset] = {}

    def load(self, config: Config) -> Dataset:
        """The data of a configuration.

        Raises:
            UserError: as in `load`.
        """
        return self.load_all([config])[0]

    def load_all(self, configs: Sequence[Config]) -> list[Dataset]:
        """The data of every configuration, in order, equal ones loaded once.

        Raises:
            UserError: as in `load`.
        """
        wanted = [(config.data, _needs_content(config)) for config in configs]
        # Lets go of the others before more come.
        self._kept = {key: found for key, found in self._kept.items() if key in wanted}
        for key, config in zip(wanted, configs, strict=True):
            if key not in self._kept:
                self._kept[key] = load(config)
        return [self._kept[key] for key in wanted]
