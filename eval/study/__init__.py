"""Controlled studies: several arms, swept over rates, trained with several seeds, compared.

``study(...)`` runs one and returns a ``Study``; ``StudyOptions`` are its settings. All are imported
on first use, so that the options of the command line load nothing heavy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ed_interp.eval.study.options import StudyOptions as StudyOptions
    from ed_interp.eval.study.result import Study as Study
    from ed_interp.eval.study.run import study as study

_HOMES = {"Study": "result", "StudyOptions": "options", "study": "run"}
__all__ = ["Study", "StudyOptions", "study"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
