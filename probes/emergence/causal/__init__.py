"""Causal emergence (Psi, Gamma, Delta) and O-information, in their Gaussian form."""

from ed_interp.probes.emergence.causal.measures import (
    CausalEmergence,
    OInformation,
    causal_emergence,
    o_information,
)
from ed_interp.probes.emergence.causal.stream import CausalProfile, causal_profile

__all__ = [
    "CausalEmergence",
    "CausalProfile",
    "OInformation",
    "causal_emergence",
    "causal_profile",
    "o_information",
]
