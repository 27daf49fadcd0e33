"""Estimators of mutual information, by name."""

from ed_interp.probes.emergence.estimators.base import (
    Estimate,
    Estimator,
    PairEstimator,
    Terms,
    flags_of,
)
from ed_interp.probes.emergence.estimators.estimate import mutual_information
from ed_interp.probes.emergence.estimators.noise import DEFAULT_BETA, noise_scale, normalise
from ed_interp.probes.emergence.estimators.registry import available_estimators, get_estimator

__all__ = [
    "DEFAULT_BETA",
    "Estimate",
    "Estimator",
    "PairEstimator",
    "Terms",
    "available_estimators",
    "flags_of",
    "get_estimator",
    "mutual_information",
    "noise_scale",
    "normalise",
]
