"""The paper: what the records of runs hold, as one page and as Markdown, and nothing else.

:func:`write_paper` reads run folders and fills the template ``ed_interp/templates/paper.md``, in
which every number is a place in a record. What no record holds is a visible gap.
"""

from ed_interp.eval.paper.write import write_paper

__all__ = ["write_paper"]
