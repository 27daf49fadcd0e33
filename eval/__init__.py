"""Evaluation: probes and adapters at work, compared with controls; the notebooks live here.

``compare`` (two models, paired), ``study`` (arms x seeds x rates), ``steering`` (sweeps),
``lm_eval``, ``tasks`` and ``paper`` are imported on first use; the function that compares two
models is ``ed_interp.compare``.
"""

import lazy_loader

_ROOMS = ("compare", "lm_eval", "paper", "steering", "study", "tasks")

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=_ROOMS)
