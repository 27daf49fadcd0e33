"""The result of an emergence run: what was measured, per block and shot count.

A curve is small (a few hundred rows), holds no tensor of activations, and knows how to show and
save itself. Cost of everything here: negligible, except :meth:`EmergenceCurve.plot`, which
imports Plotly, and :meth:`EmergenceCurve.save`, which draws a PNG and writes a 5 MB HTML page.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from ed_interp.probes.emergence.calibration import Calibration
    from ed_interp.probes.emergence.compare import EstimatorComparison


@dataclasses.dataclass(frozen=True, slots=True)
class EmergenceRow:
    """Emergence of one block at one shot count. All information is in bits."""

    layer: int
    """Block index, from 0: the information between its input and its output."""
    shots: int
    """Demonstrations before the query; for lists, entities; for windows of text, tokens."""
    emergence: float
    """E = macro - micro."""
    ci_low: float
    """Lower end of the bootstrap interval of `emergence` over prompts."""
    ci_high: float
    """Upper end of the bootstrap interval of `emergence` over prompts."""
    macro: float
    """Information that the block passes on at the last token of the whole sequence."""
    micro: float
    """The same for each token fed alone, averaged over the tokens of the sequence."""
    limit: float
    """E of any noiseless network that keeps distinct inputs distinct: a constant of the data.

    Not a bound: noise takes from the lone tokens too, so E can lie above it.
    """
    macro_limit: float
    """Entropy of the sequences: what `macro` cannot exceed in this sample."""
    untrained: float | None
    """E of the untrained twin (same architecture, fresh weights); None if it was not run."""
    flags: tuple[str, ...] = ()
    """Reasons to doubt this row; see :data:`FLAGS`."""


@dataclasses.dataclass(frozen=True, slots=True)
class BehaviourRow:
    """How well the model answers at one shot count, over the same prompts."""

    shots: int
    accuracy: float
    """Fraction of prompts whose whole answer is the greedy continuation."""
    ci_low: float
    """Lower end of the bootstrap interval of `accuracy`."""
    ci_high: float
    """Upper end of the bootstrap interval of `accuracy`."""
    logprob: float
    """Mean log-probability of the whole answer, in nats."""
    logprob_ci_low: float
    logprob_ci_high: float
    rank: float
    """Median rank of the answer's first token in the vocabulary; 1 is best."""
    chance: float
    """Accuracy of the best answer that ignores the query: the most common answer's frequency."""
    gain: float
    """Accuracy minus the accuracy at the fewest shots, paired by prompt."""
    gain_ci_low: float
    gain_ci_high: float
    n: int
    """Number of prompts."""


@dataclasses.dataclass(frozen=True, slots=True)
class ProfileRow:
    """Emergence of one block and shot count at one noise scale (see `noise_profile`)."""

    layer: int
    shots: int
    beta: float
    noise: float
    emergence: float
    macro: float
    micro: float


FLAGS = {
    "saturated": "macro is within 5% of the entropy of the sampled sequences: it says that the "
    "sequences stay distinct, not how much information there is; use more prompts or more noise",
    "few-rows": "under 100 distinct sequences: the population is too small for its information",
    "fewer-prompts-than-answers": "fewer prompts than distinct answers: not every answer occurs",
    "lost": "macro cannot be told from 0: the noise hides whatever is there",
    "constant": "the sequences cannot be told apart at this block's input: macro is 0 by necessity",
    "half-precision": "the model ran in half precision, which inflates the spread of tight clouds",
    "above-limit": "macro exceeds the entropy of the sampled sequences: the model of the densities "
    "tells more than the sample can, so read it as a ranking, not as bits",
    "shrunk": "too few rows for the columns: weak correlations were taken for chance",
    "projected": "too few rows for the columns: only the leading principal components were kept, "
    "a lower bound",
    "ill-conditioned": "one side determines directions of the other exactly: the Gaussian "
    "information is infinite and was cut at the precision of the numbers",
    "ties": "repeated rows: distances of 0 have no density; the estimate treats them as a discrete "
    "part",
    "at-log-n": "near the most that this estimator can find in this many rows",
    "discrete": "few different rows that repeat: the exact information of the labels, not trained",
    "diverged": "a training of the critic diverged; its best earlier state was used",
    "training-maximum": "the highest training value over all steps, as published: not held out, "
    "and too high wherever the critic can remember the sample",
    "processed-weights": "the weights were processed (folded or centred): not the raw stream",
}
"""What each flag of a row means."""


@dataclasses.dataclass(frozen=True, repr=False)
class EmergenceCurve:
    """Emergence per block and shot count, with behaviour beside it.

    Made by :func:`ed_interp.emergence`. In a notebook the last expression of a cell shows it.
    """

    model: str
    task: str
    estimator: str
    noise: float | None
    """Noise scale s per normalised coordinate; None for estimators without one."""
    rows: tuple[EmergenceRow, ...]
    behaviour: tuple[BehaviourRow, ...] = ()
    """Empty where the task has no answers."""
    profile: tuple[ProfileRow, ...] = ()
    """Emergence over noise scales; empty unless asked for."""
    comparison: EstimatorComparison | None = None
    """The same by further estimators; None unless asked for."""
    calibration: Calibration | None = None
    """The estimator on populations of known information at this size; None unless asked for."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Every setting and version that made the curve: enough to repeat it exactly."""

    unit: str = "bits"

    def __repr__(self) -> str:
        return (
            f"EmergenceCurve({self.model!r}, {self.task!r}, {len(self.layers)} blocks, "
            f"shots {self.shots}, {self.estimator})"
        )

    @property
    def layers(self) -> list[int]:
        """The block indices, ascending."""
        return sorted({row.layer for row in self.rows})

    @property
    def shots(self) -> list[int]:
        """The shot counts, ascending."""
        return sorted({row.shots for row in self.rows})

    def to_frame(self) -> pd.DataFrame:
        """One line per (layer, shots), columns as in :class:`EmergenceRow`."""
        return _frame(self.rows, EmergenceRow)

    def behaviour_frame(self) -> pd.DataFrame:
        """One line per shot count, columns as in :class:`BehaviourRow`; empty without answers."""
        return _frame(self.behaviour, BehaviourRow)

    def profile_frame(self) -> pd.DataFrame:
        """One line per (layer, shots, beta), columns as in :class:`ProfileRow`."""
        return _frame(self.profile, ProfileRow)

    def plot(self) -> go.Figure:
        """An interactive figure: emergence per block over shots, and behaviour below it."""
        from ed_interp.figures import emergence_figure

        return emergence_figure(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the shape of the command line's ``--json``."""
        return {
            "model": self.model,
            "task": self.task,
            "estimator": self.estimator,
            "unit": self.unit,
            "noise": self.noise,
            "rows": [_plain(row) for row in self.rows],
            "behaviour": [_plain(row) for row in self.behaviour],
            "profile": [_plain(row) for row in self.profile],
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
            "settings": self.settings,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EmergenceCurve:
        """The inverse of :meth:`to_dict`.

        Raises:
            InvalidInputError: ``data`` is not what :meth:`to_dict` gives.
        """
        from ed_interp.errors import InvalidInputError
        from ed_interp.probes.emergence.calibration import Calibration
        from ed_interp.probes.emergence.compare import EstimatorComparison

        compared, calibrated = data.get("comparison"), data.get("calibration")
        try:
            return cls(
                model=data["model"],
                task=data["task"],
                estimator=data["estimator"],
                unit=data["unit"],
                noise=data["noise"],
                rows=tuple(
                    EmergenceRow(**{**row, "flags": tuple(row["flags"])}) for row in data["rows"]
                ),
                behaviour=tuple(BehaviourRow(**row) for row in data["behaviour"]),
                profile=tuple(ProfileRow(**row) for row in data.get("profile", [])),
                comparison=None if compared is None else EstimatorComparison.from_dict(compared),
                calibration=None if calibrated is None else Calibration.from_dict(calibrated),
                settings=data.get("settings", {}),
            )
        except (KeyError, TypeError) as error:
            raise InvalidInputError(f"not an emergence curve: {error}") from error

    def to_json(self) -> str:
        """:meth:`to_dict` as strict JSON (no NaN: a missing number is null)."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write ``run.json``, Parquet tables, ``emergence.png`` and ``report.html`` to ``folder``.

        Raises:
            RunFolderError: ``folder`` exists (and not ``overwrite``) or cannot be written.
        """
        from ed_interp.probes.emergence.files import save_curve

        return save_curve(self, Path(folder), overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | Path) -> EmergenceCurve:
        """Read a curve back from a folder that :meth:`save` or the command line wrote.

        Raises:
            RunFolderError: no complete run is there.
        """
        from ed_interp.probes.emergence.files import load_curve

        return load_curve(Path(folder))

    def _repr_html_(self) -> str:
        from ed_interp.report import curve_summary

        return curve_summary(self)


def _plain(row: EmergenceRow | BehaviourRow | ProfileRow) -> dict[str, Any]:
    data = dataclasses.asdict(row)
    if "flags" in data:
        data["flags"] = list(data["flags"])
    return data


def _frame(rows: tuple[Any, ...], kind: type[Any]) -> pd.DataFrame:
    import pandas as pd

    columns = [field.name for field in dataclasses.fields(kind)]
    return pd.DataFrame([_plain(row) for row in rows], columns=columns)
