"""The result of a calibration: estimate against truth, and the band within which it is right.

The rule of right: the median over seeds is within 0.25 bits or 10% of the truth, whichever is
more. The band of a family of populations is the range of true values, from the least up, at which
the rule holds without a gap; that of the whole calibration is the range in which it holds for
every family. Beyond the band an estimate is a number without a meaning in bits.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.calibration.consistency import CheckRow

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

ABSOLUTE_BITS = 0.25
RELATIVE = 0.1


@dataclasses.dataclass(frozen=True, slots=True)
class CalibrationRow:
    """One population: what it tells, and what the estimator found. All in bits."""

    population: str
    family: str
    truth: float
    """Mutual information of the population, through the estimator's own noise where it has one."""
    truth_error: float
    """Standard error of `truth`; 0 for a closed form."""
    estimate: float
    """Median over seeds."""
    low: float
    """Least over seeds."""
    high: float
    """Most over seeds."""
    covered: float
    """Fraction of the seeds whose 95% interval holds the truth."""
    seconds: float
    """Median time of one estimate."""
    flags: tuple[str, ...] = ()
    """Flags that the estimate carried for some seed."""

    @property
    def right(self) -> bool:
        """Whether the rule of the module holds."""
        return abs(self.estimate - self.truth) <= allowed(self.truth)


def allowed(truth: float) -> float:
    """The error that the rule allows at a true value, in bits."""
    return max(ABSOLUTE_BITS, RELATIVE * truth)


@dataclasses.dataclass(frozen=True, repr=False)
class Calibration:
    """Estimate against truth at one number of rows and one width. Made by ``calibrate``."""

    estimator: str
    n: int
    d_x: int
    d_y: int
    rows: tuple[CalibrationRow, ...]
    checks: tuple[CheckRow, ...] = ()
    """Self-consistency of the estimator at the same size; empty unless asked for."""
    noise: float | None = None
    """Noise per coordinate, for estimators that add some: the truth is that of the noisy rows."""
    left_out: tuple[str, ...] = ()
    """Families whose truth through that noise is not known."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        return (
            f"Calibration({self.estimator!r}, n={self.n}, d={self.d_x}x{self.d_y}, {self.says()})"
        )

    @property
    def families(self) -> list[str]:
        """The families of populations, in their order."""
        return list(dict.fromkeys(row.family for row in self.rows))

    def bands(self) -> dict[str, float | None]:
        """Per family the largest true value up to which the estimator is right; None for none."""
        found: dict[str, float | None] = {}
        for family in self.families:
            top: float | None = None
            for row in sorted(self._of(family), key=lambda row: row.truth):
                if not row.right:
                    break
                top = row.truth
            found[family] = top
        return found

    def band(self) -> float | None:
        """The true value up to which the estimator is right on every family; None for none."""
        tops = list(self.bands().values())
        return None if not tops or None in tops else min(top for top in tops if top is not None)

    def says(self) -> str:
        """The band in words."""
        good = {family: top for family, top in self.bands().items() if top is not None}
        bad = [family for family in self.families if family not in good]
        parts = [f"{family} to {top:.2g} bits" for family, top in good.items()]
        if bad:
            parts.append(f"nowhere on {', '.join(bad)}")
        return "right on " + ", ".join(parts) if good else "right nowhere"

    def _of(self, family: str) -> list[CalibrationRow]:
        return [row for row in self.rows if row.family == family]

    def to_frame(self) -> pd.DataFrame:
        """One line per population, columns as in :class:`CalibrationRow`, and ``right``."""
        import pandas as pd

        return pd.DataFrame(self.to_dict()["rows"])

    def plot(self) -> go.Figure:
        """Estimate against truth, with the band of the rule around the diagonal."""
        from ed_interp.figures.calibration import calibration_figure

        return calibration_figure(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the shape of the command line's ``--json``."""
        return {
            "estimator": self.estimator,
            "n": self.n,
            "d_x": self.d_x,
            "d_y": self.d_y,
            "noise": self.noise,
            "rule": {"absolute_bits": ABSOLUTE_BITS, "relative": RELATIVE},
            "band": self.band(),
            "bands": self.bands(),
            "rows": [
                {**dataclasses.asdict(row), "flags": list(row.flags), "right": row.right}
                for row in self.rows
            ],
            "checks": [dataclasses.asdict(check) for check in self.checks],
            "left_out": list(self.left_out),
            "settings": self.settings,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Calibration:
        """The inverse of :meth:`to_dict`.

        Raises:
            InvalidInputError: ``data`` is not what :meth:`to_dict` gives.
        """
        try:
            names = [field.name for field in dataclasses.fields(CalibrationRow)]
            return cls(
                estimator=data["estimator"],
                n=data["n"],
                d_x=data["d_x"],
                d_y=data["d_y"],
                noise=data["noise"],
                rows=tuple(
                    CalibrationRow(
                        **{**{name: row[name] for name in names}, "flags": tuple(row["flags"])}
                    )
                    for row in data["rows"]
                ),
                checks=tuple(CheckRow(**check) for check in data["checks"]),
                left_out=tuple(data["left_out"]),
                settings=data["settings"],
            )
        except (KeyError, TypeError) as error:
            raise InvalidInputError(f"not a calibration: {error}") from error

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write ``run.json``, ``calibration.parquet``, a PNG and ``report.html`` to ``folder``.

        Raises:
            RunFolderError: ``folder`` exists (and not ``overwrite``) or cannot be written.
        """
        from ed_interp.probes.emergence.calibration.files import save_calibration

        return save_calibration(self, Path(folder), overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | Path) -> Calibration:
        """Read back what :meth:`save` or the command line wrote.

        Raises:
            RunFolderError: no complete calibration is there.
        """
        from ed_interp.probes.emergence.calibration.files import load_calibration

        return load_calibration(Path(folder))

    def _repr_html_(self) -> str:
        from ed_interp.report_calibration import calibration_summary

        return calibration_summary(self)
