"""Compared with a control: whether the change did what was wanted, and nothing else.

``compare(control, treated, on=...)`` for any two of frozen, adapted, steered and prompted models;
the arms of a controlled study are in :mod:`ed_interp.eval.study.arms`.
"""

from ed_interp.eval.compare.control import Panel, compare
from ed_interp.eval.compare.result import Comparison
from ed_interp.eval.compare.subjects import PromptOnly

__all__ = ["Comparison", "Panel", "PromptOnly", "compare"]
