"""Estimators of mutual information, by name."""

from ed_interp.probes.emergence.estimators.base import (
    GENERAL_FLAGS,
    ChainEstimator,
    Estimator,
    Terms,
    flags_of,
)
from ed_interp.probes.emergence.estimators.noise import DEFAULT_BETA, noise_scale, normalise
from ed_interp.probes.emergence.estimators.registry import (
    Estimate,
    available_estimators,
    flag_meanings,
    get_estimator,
    mutual_information,
    parse_settings,
    register,
)

__all__ = [
    "DEFAULT_BETA",
    "GENERAL_FLAGS",
    "ChainEstimator",
    "Estimate",
    "Estimator",
    "Terms",
    "available_estimators",
    "flag_meanings",
    "flags_of",
    "get_estimator",
    "mutual_information",
    "noise_scale",
    "normalise",
    "parse_settings",
    "register",
]
