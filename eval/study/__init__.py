"""Controlled studies: several arms, swept over rates, trained with several seeds, compared.

``study(...)`` runs one and returns a ``Study``; ``StudyOptions`` are its settings. All are imported
on first use, so that the options of the command line load nothing heavy.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from ed_interp.eval.study.options import StudyOptions as StudyOptions
    from ed_interp.eval.study.result import Study as Study
    from ed_interp.eval.study.run import study as study

_HOMES = {"options": ["StudyOptions"], "result": ["Study"], "run": ["study"]}
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs=_HOMES)
