"""Describing features: contexts, tokens, neighbours and effects, as a page to read offline."""

from ed_interp.probes.dictionaries.description.describing import describe
from ed_interp.probes.dictionaries.description.descriptions import (
    Context,
    FeatureCard,
    FeatureDescriptions,
)

__all__ = ["Context", "FeatureCard", "FeatureDescriptions", "describe"]
