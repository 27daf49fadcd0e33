"""Settings of a calibration, for Python, the command line and ``run.json``."""

from __future__ import annotations

import dataclasses

from ed_interp.errors import InvalidInputError
from ed_interp.options import MEASURE, option
from ed_interp.probes.emergence.options import EstimatorOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationOptions(EstimatorOptions):
    """How an estimator is tested on data of known information."""

    n: int = option(2000, help="Rows of every sample.", panel=MEASURE, min=4)
    d: int = option(768, help="Columns of x.", panel=MEASURE, min=1)
    d_y: int | None = option(None, help="Columns of y.", panel=MEASURE, shown="as --d", min=1)
    bits: tuple[float, ...] = option(
        (0, 1, 2, 4, 8), help="True values of mutual information.", panel=MEASURE, min=0
    )
    families: tuple[str, ...] = option(
        (),
        help="Families of populations, e.g. gaussian,clusters.",
        panel=MEASURE,
        shown="all of them",
    )
    seeds: int = option(3, help="Samples of every population.", panel=MEASURE, min=1)
    checks: bool = option(True, help="Also check self-consistency.", panel=MEASURE)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checks and (self.d < 2 or self.n < 16):
            raise InvalidInputError(
                "d must be 2 or greater and n 16 or greater for the self-consistency checks, got "
                f"d = {self.d} and n = {self.n}; leave the checks out"
            )
