from .find import DirectionSummary, find_direction
from .function_vectors import HeadEffects, function_vector, head_effects
from .methods import METHODS, Method, get_method, register
from .pairs import Contrast, ContrastStates, read_states
from .single import ActivationAddition, activation_addition, decoder_direction
from .steerability import Preflight, preflight

__all__ = [
    "METHODS",
    "ActivationAddition",
    "Contrast",
    "ContrastStates",
    "DirectionSummary",
    "HeadEffects",
    "Method",
    "Preflight",
    "activation_addition",
    "decoder_direction",
    "find_direction",
    "function_vector",
    "get_method",
    "head_effects",
    "preflight",
    "read_states",
    "register",
]
