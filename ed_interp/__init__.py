"""ed-interp: emergent dynamics, interpreted.

Probes read the residual stream, adapters write to it, eval compares with a frozen control.

The public API is imported on first use, so that ``import ed_interp`` stays instant (it does not
import torch).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ed_interp.errors import EdInterpError as EdInterpError
    from ed_interp.models.hooked import HookedModel as HookedModel
    from ed_interp.models.load import load as load
    from ed_interp.models.registry import bundled_names as bundled_names
    from ed_interp.models.transformer_lens import to_transformer_lens as to_transformer_lens
    from ed_interp.probes.emergence.curve import EmergenceCurve as EmergenceCurve
    from ed_interp.probes.emergence.definition import emergence as emergence
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
    from ed_interp.streams.sites import Site as Site

__version__ = "0.1.0"

_PUBLIC = {
    "Activations": "ed_interp.streams.activations",
    "EdInterpError": "ed_interp.errors",
    "EmergenceCurve": "ed_interp.probes.emergence.curve",
    "HookedModel": "ed_interp.models.hooked",
    "LabelledTask": "ed_interp.prompts.tasks",
    "ListTask": "ed_interp.prompts.tasks",
    "MixedTask": "ed_interp.prompts.tasks",
    "Population": "ed_interp.prompts.population",
    "Site": "ed_interp.streams.sites",
    "TextTask": "ed_interp.prompts.tasks",
    "bundled_names": "ed_interp.models.registry",
    "capture": "ed_interp.streams.capture",
    "emergence": "ed_interp.probes.emergence.definition",
    "from_dataset": "ed_interp.prompts.files",
    "from_file": "ed_interp.prompts.files",
    "load": "ed_interp.models.load",
    "mutual_information": "ed_interp.probes.emergence.estimators",
    "task_names": "ed_interp.prompts.tasks",
    "to_transformer_lens": "ed_interp.models.transformer_lens",
}

__all__ = [  # noqa: RUF022 - the order of the documentation
    "emergence",
    "EmergenceCurve",
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
    "EdInterpError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'ed_interp' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
