"""Training adapters on examples, with the base model checked to stay as it is.

:func:`train` does everything; the parts serve a Trainer of one's own.
"""

from ed_interp.adapters.training.card import CardFields
from ed_interp.adapters.training.data import Example, examples_of_pairs, read_examples
from ed_interp.adapters.training.frozen import (
    FrozenWeights,
    FrozenWeightsError,
    check_only_adapter_trains,
)
from ed_interp.adapters.training.groups import parameter_groups
from ed_interp.adapters.training.methods import METHODS, AdapterOptions
from ed_interp.adapters.training.options import TrainingOptions
from ed_interp.adapters.training.result import TrainedAdapter
from ed_interp.adapters.training.train import train

__all__ = [
    "METHODS",
    "AdapterOptions",
    "CardFields",
    "Example",
    "FrozenWeights",
    "FrozenWeightsError",
    "TrainedAdapter",
    "TrainingOptions",
    "check_only_adapter_trains",
    "examples_of_pairs",
    "parameter_groups",
    "read_examples",
    "train",
]
