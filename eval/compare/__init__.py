"""Compared with a control: whether the change did what was wanted, and nothing else.

``compare(control, treated, on=...)`` for any two of frozen, adapted, steered and prompted models;
studies of several arms are in :mod:`ed_interp.eval.study`.
"""

from ed_interp.eval.compare.control import Panel, compare, open_panel
from ed_interp.eval.compare.options import CompareOptions
from ed_interp.eval.compare.result import Comparison
from ed_interp.eval.compare.subjects import PromptOnly

__all__ = ["CompareOptions", "Comparison", "Panel", "PromptOnly", "compare", "open_panel"]
