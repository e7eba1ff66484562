"""Which parameters are tried next: TPE, as a function of the trials so far and nothing else."""

import zlib
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial


class Sampler(BaseSampler):
    """The tree-structured Parzen estimator, drawn anew for every trial.

    Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization", as in Optuna (Akiba et al.
    2019, arXiv:1907.10902), of all parameters together. Until ten trials are complete or pruned,
    they are random; later ones are likely where the better trials are dense and the others are not.

    Optuna's own has a state of random numbers that dies with its process. This one seeds them with
    the search's seed and the trial's number. So a search that was interrupted suggests what it
    would have suggested, even where a kill fell between two parameters of one trial. Where several
    processes share a search, what is suggested depends on which trials have ended, too.

    Args:
        seed: of the search, at least 0.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The parameters that are drawn together."""
        return self._tpe(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Their values; none before there are trials to learn from."""
        return self._tpe(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The value of a parameter that was not drawn with the others."""
        tpe = self._tpe(trial, zlib.crc32(param_name.encode()))
        return tpe.sample_independent(study, trial, param_name, param_distribution)

    def _tpe(self, trial: FrozenTrial, *more: int) -> TPESampler:
        words = np.random.SeedSequence([self._seed, trial.number, *more]).generate_state(1)
        return TPESampler(seed=int(words[0]))
