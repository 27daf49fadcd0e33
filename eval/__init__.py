"""Evaluation: probes and adapters at work, compared with controls; the notebooks live here.

``ed_interp.eval.compare`` is the main function, imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ed_interp.eval.compare import Comparison as Comparison
    from ed_interp.eval.compare import compare as compare

__all__ = ["Comparison", "compare"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("ed_interp.eval.compare"), name)
    raise AttributeError(f"module 'ed_interp.eval' has no attribute {name!r}")
