"""Steering directions: how they are found, and whether they will work, before they are applied.

::

    from ed_interp import directions

    contrast = directions.Contrast.from_file("pairs.jsonl")
    directions.preflight("icl-gpt2", contrast).verdict
    directions.find_direction("icl-gpt2", contrast).save("D.safetensors")
"""

from ed_interp.probes.directions.activation_addition import (
    ActivationAddition,
    activation_addition,
)
from ed_interp.probes.directions.decoder import decoder_direction
from ed_interp.probes.directions.find import METHODS, find_direction
from ed_interp.probes.directions.function_vector import (
    HeadEffects,
    function_vector,
    head_effects,
)
from ed_interp.probes.directions.pairs import Contrast
from ed_interp.probes.directions.preflight import Preflight, preflight
from ed_interp.probes.directions.states import ContrastStates, read_states

__all__ = [
    "METHODS",
    "ActivationAddition",
    "Contrast",
    "ContrastStates",
    "HeadEffects",
    "Preflight",
    "activation_addition",
    "decoder_direction",
    "find_direction",
    "function_vector",
    "head_effects",
    "preflight",
    "read_states",
]
