"""The paper: what the records of runs hold, as one page and as Markdown, and nothing else.

:func:`write_paper` reads run folders (:mod:`ed_interp.eval.paper.records`), makes a document of
them in which every number is a place in a record (:mod:`ed_interp.eval.paper.document`), and writes
it (:mod:`ed_interp.eval.paper.write`). What no record holds is a visible gap.
"""

from ed_interp.eval.paper.write import write_paper

__all__ = ["write_paper"]
