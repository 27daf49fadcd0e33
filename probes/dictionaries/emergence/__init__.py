"""Emergence of features: which become active or informative with shots and with training."""

from ed_interp.probes.dictionaries.emergence.following import feature_emergence
from ed_interp.probes.dictionaries.emergence.result import FeatureEmergence, FeatureEmergenceRow

__all__ = ["FeatureEmergence", "FeatureEmergenceRow", "feature_emergence"]
