"""Evaluation: probes and adapters at work, compared with controls; the notebooks live here.

``compare`` (two models, paired), ``study`` (arms x seeds x rates), ``steering`` (sweeps),
``lm_eval``, ``tasks`` and ``paper`` are packages and modules, imported on first use; the function
that compares two models is ``ed_interp.compare``.
"""

from importlib import import_module
from types import ModuleType

_ROOMS = ("compare", "lm_eval", "paper", "steering", "study", "tasks")


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
