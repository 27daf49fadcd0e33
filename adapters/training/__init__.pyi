# ruff: noqa: TID251 - relative imports, which is what lazy_loader reads
from .data import Example as Example
from .data import examples_of_pairs as examples_of_pairs
from .data import read_examples as read_examples
from .describe import AdapterDescription as AdapterDescription
from .frozen import FrozenWeights as FrozenWeights
from .frozen import FrozenWeightsError as FrozenWeightsError
from .frozen import check_only_adapter_trains as check_only_adapter_trains
from .groups import parameter_groups as parameter_groups
from .methods import available_methods as available_methods
from .methods import register as register
from .options import AdapterOptions as AdapterOptions
from .options import CardFields as CardFields
from .options import TrainingOptions as TrainingOptions
from .options import TrainOptions as TrainOptions
from .result import TrainedAdapter as TrainedAdapter
from .run import train as train
