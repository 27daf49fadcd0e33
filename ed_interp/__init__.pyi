# The public API, once: the package reads this file to import each name on first use, and type
# checkers and editors read it as it is. A name here also needs a row in README's table.

from . import eval as eval
from .adapters import steering as steering
from .adapters import training as training
from .adapters.bias_injection import BiasInjectionConfig as BiasInjectionConfig
from .adapters.bias_injection.experience import experience as experience
from .errors import EdInterpError as EdInterpError
from .eval.compare import Comparison as Comparison
from .eval.compare import compare as compare
from .models.hooked import HookedModel as HookedModel
from .models.load import load as load
from .models.registry import bundled_names as bundled_names
from .models.sites import Site as Site
from .models.transformer_lens import to_transformer_lens as to_transformer_lens
from .probes import dictionaries as dictionaries
from .probes import directions as directions
from .probes.emergence.calibration.calibrate import calibrate as calibrate
from .probes.emergence.curve import EmergenceCurve as EmergenceCurve
from .probes.emergence.emergence import emergence as emergence
from .probes.emergence.estimators import mutual_information as mutual_information
from .prompts.files import from_dataset as from_dataset
from .prompts.files import from_file as from_file
from .prompts.population import Population as Population
from .prompts.tasks import LabelledTask as LabelledTask
from .prompts.tasks import ListTask as ListTask
from .prompts.tasks import MixedTask as MixedTask
from .prompts.tasks import TextTask as TextTask
from .prompts.tasks import task_names as task_names
from .results import Result as Result
from .results import load_any as load_any
from .streams.activations import Activations as Activations
from .streams.capture import capture as capture
from .streams.direction import Direction as Direction
from .streams.injection import Ablate as Ablate
from .streams.injection import Add as Add
from .streams.injection import Clamp as Clamp
from .streams.injection import Replace as Replace
from .streams.injection import Where as Where
from .streams.injection import inject as inject

__version__: str
