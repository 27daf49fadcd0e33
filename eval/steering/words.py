"""What a sweep says besides its numbers."""

from __future__ import annotations

import itertools

from ed_interp.eval.steering.rows import ALPHA, CONTROLS
from ed_interp.statistics import smallest_p


def too_few(held_out: int) -> str:
    """Why no comparison on so many held-out samples can be significant; empty if one can."""

    def least(n: int) -> float:
        # Holm multiplies the smallest p of a family by its size.
        return len(CONTROLS) * smallest_p(n)

    if least(held_out) < ALPHA:
        return ""
    enough = next(n for n in itertools.count(held_out) if least(n) < ALPHA)
    return (
        f"With {held_out} held-out samples the smallest possible corrected p is "
        f"{min(1.0, least(held_out)):.2g}, so no difference can be significant; use at least "
        f"{2 * enough - 1} samples, of which {enough} are held out."
    )
