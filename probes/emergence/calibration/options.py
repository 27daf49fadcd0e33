"""Settings of a calibration, for Python, the command line and ``run.json``."""

from __future__ import annotations

import dataclasses

from ed_interp.errors import InvalidInputError
from ed_interp.options import MEASURE, option
from ed_interp.probes.emergence.options import EstimatorOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationOptions(EstimatorOptions):
    """How an estimator is tested on data of known information."""

    n: int = option(2000, "Rows of every sample.", MEASURE, min=4)
    d: int = option(768, "Columns of x.", MEASURE, min=1)
    d_y: int | None = option(None, "Columns of y.", MEASURE, shown="as --d", min=1)
    bits: tuple[float, ...] = option(
        (0, 1, 2, 4, 8), "True values of mutual information.", MEASURE, min=0
    )
    families: tuple[str, ...] = option(
        (), "Families of populations, e.g. gaussian,clusters.", MEASURE, shown="all of them"
    )
    seeds: int = option(3, "Samples of every population.", MEASURE, min=1)
    checks: bool = option(True, "Also check self-consistency.", MEASURE)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checks and (self.d < 2 or self.n < 16):
            raise InvalidInputError(
                "d must be 2 or greater and n 16 or greater for the self-consistency checks, got "
                f"d = {self.d} and n = {self.n}; leave the checks out"
            )
