"""ed-interp: emergent dynamics, interpreted.

Probes read the residual stream, adapters write to it, eval compares with a frozen control.

The public API is imported on first use, so that ``import ed_interp`` stays instant (it does not
import torch).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ed_interp import eval as eval  # noqa: A004 - the room's name
    from ed_interp.adapters import steering as steering
    from ed_interp.adapters import training as training
    from ed_interp.adapters.bias_injection import BiasInjectionConfig as BiasInjectionConfig
    from ed_interp.adapters.bias_injection.experience import experience as experience
    from ed_interp.errors import EdInterpError as EdInterpError
    from ed_interp.eval.compare import Comparison as Comparison
    from ed_interp.eval.compare import compare as compare
    from ed_interp.models.hooked import HookedModel as HookedModel
    from ed_interp.models.load import load as load
    from ed_interp.models.registry import bundled_names as bundled_names
    from ed_interp.models.transformer_lens import to_transformer_lens as to_transformer_lens
    from ed_interp.probes import dictionaries as dictionaries
    from ed_interp.probes import directions as directions
    from ed_interp.probes.emergence.calibration.calibrate import calibrate as calibrate
    from ed_interp.probes.emergence.curve import EmergenceCurve as EmergenceCurve
    from ed_interp.probes.emergence.emergence import emergence as emergence
    from ed_interp.probes.emergence.estimators import mutual_information as mutual_information
    from ed_interp.prompts.files import from_dataset as from_dataset
    from ed_interp.prompts.files import from_file as from_file
    from ed_interp.prompts.population import Population as Population
    from ed_interp.prompts.tasks import LabelledTask as LabelledTask
    from ed_interp.prompts.tasks import ListTask as ListTask
    from ed_interp.prompts.tasks import MixedTask as MixedTask
    from ed_interp.prompts.tasks import TextTask as TextTask
    from ed_interp.prompts.tasks import task_names as task_names
    from ed_interp.streams.activations import Activations as Activations
    from ed_interp.streams.capture import capture as capture
    from ed_interp.streams.direction import Direction as Direction
    from ed_interp.streams.injection import Ablate as Ablate
    from ed_interp.streams.injection import Add as Add
    from ed_interp.streams.injection import Clamp as Clamp
    from ed_interp.streams.injection import Replace as Replace
    from ed_interp.streams.injection import Where as Where
    from ed_interp.streams.injection import inject as inject
    from ed_interp.models.sites import Site as Site

__version__ = "0.1.0"

_PUBLIC = {
    "Ablate": "ed_interp.streams.injection",
    "Activations": "ed_interp.streams.activations",
    "Add": "ed_interp.streams.injection",
    "BiasInjectionConfig": "ed_interp.adapters.bias_injection",
    "Clamp": "ed_interp.streams.injection",
    "Comparison": "ed_interp.eval.compare",
    "Direction": "ed_interp.streams.direction",
    "EdInterpError": "ed_interp.errors",
    "EmergenceCurve": "ed_interp.probes.emergence.curve",
    "HookedModel": "ed_interp.models.hooked",
    "LabelledTask": "ed_interp.prompts.tasks",
    "ListTask": "ed_interp.prompts.tasks",
    "MixedTask": "ed_interp.prompts.tasks",
    "Population": "ed_interp.prompts.population",
    "Replace": "ed_interp.streams.injection",
    "Site": "ed_interp.models.sites",
    "TextTask": "ed_interp.prompts.tasks",
    "Where": "ed_interp.streams.injection",
    "bundled_names": "ed_interp.models.registry",
    "calibrate": "ed_interp.probes.emergence.calibration.calibrate",
    "capture": "ed_interp.streams.capture",
    "compare": "ed_interp.eval.compare",
    "emergence": "ed_interp.probes.emergence.emergence",
    "experience": "ed_interp.adapters.bias_injection.experience",
    "from_dataset": "ed_interp.prompts.files",
    "from_file": "ed_interp.prompts.files",
    "inject": "ed_interp.streams.injection",
    "load": "ed_interp.models.load",
    "mutual_information": "ed_interp.probes.emergence.estimators",
    "task_names": "ed_interp.prompts.tasks",
    "to_transformer_lens": "ed_interp.models.transformer_lens",
}

_ROOMS = {
    "dictionaries": "ed_interp.probes.dictionaries",
    "directions": "ed_interp.probes.directions",
    "eval": "ed_interp.eval",
    "steering": "ed_interp.adapters.steering",
    "training": "ed_interp.adapters.training",
}
"""Packages that are reached as attributes, without an import of their own."""

__all__ = [  # noqa: RUF022 - the order of the documentation
    "emergence",
    "EmergenceCurve",
    "calibrate",
    "load",
    "HookedModel",
    "bundled_names",
    "to_transformer_lens",
    "capture",
    "Activations",
    "Site",
    "Population",
    "ListTask",
    "LabelledTask",
    "MixedTask",
    "TextTask",
    "task_names",
    "from_file",
    "from_dataset",
    "mutual_information",
    "directions",
    "Direction",
    "inject",
    "Add",
    "Ablate",
    "Clamp",
    "Replace",
    "Where",
    "steering",
    "dictionaries",
    "BiasInjectionConfig",
    "experience",
    "training",
    "compare",
    "Comparison",
    "eval",
    "EdInterpError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(_ROOMS[name])
    if name in _PUBLIC:
        value = getattr(import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'ed_interp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC, *_ROOMS})
