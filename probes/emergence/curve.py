"""The result of an emergence run: what was measured, per block and shot count.

A curve is a few hundred rows without activations. All is cheap but :meth:`EmergenceCurve.plot`,
which imports Plotly, and :meth:`EmergenceCurve.save`, which draws a PNG and a page of 5 MB.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ed_interp.charts.spec import Chart
from ed_interp.charts.theme import plural
from ed_interp.probes.emergence import charts, words
from ed_interp.probes.emergence.calibration.result import Calibration
from ed_interp.probes.emergence.rows import (
    FLAGS,
    AgreementRow,
    BehaviourRow,
    ComparisonRow,
    EmergenceRow,
    ProfileRow,
)
from ed_interp.records.files import write_parquet
from ed_interp.results import Result
from ed_interp.tables import Table, plain_table

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True, repr=False)
class EstimatorComparison(Result):
    """Several estimators on the same activations; `emergence(compare_estimators=...)` makes it."""

    KIND: ClassVar[str] = "estimator-comparison"

    rows: tuple[ComparisonRow, ...]
    agreement: tuple[AgreementRow, ...]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        return f"EstimatorComparison({', '.join(self.estimators)})"

    @property
    def estimators(self) -> list[str]:
        """The estimators, that of the curve first."""
        return list(dict.fromkeys(row.estimator for row in self.rows))

    def of(self, estimator: str) -> list[ComparisonRow]:
        """The rows of one estimator."""
        return [row for row in self.rows if row.estimator == estimator]

    def title(self) -> str:
        return f"Estimators side by side: {', '.join(self.estimators)}"

    def headline(self) -> str:
        parts = [
            f"{row.spearman:.2f} between {row.first} and {row.second}"
            for row in self.agreement
            if row.quantity == "emergence" and row.spearman is not None
        ]
        return f"Rank correlation of E over blocks and shots: {', '.join(parts)}." if parts else ""

    def glossary(self) -> dict[str, str]:
        return words.glossary(self.rows, _meanings(*self.estimators))

    def tables(self) -> list[Table]:
        shown = functools.partial(plain_table, number=".3f", keys=3)
        heads = {"spearman": "Spearman", "kendall": "Kendall"}
        agree = "Agreement of the estimators: rank correlation over blocks and shots"
        every = "Emergence by every estimator, in bits"
        return [
            shown("agreement", agree, self.agreement, heads=heads, terminal=True),
            shown("comparison", every, self.rows, heads=words.HEADS),
        ]

    def charts(self) -> list[Chart]:
        return [charts.comparison_chart(self.rows, title=self.title())]


@dataclasses.dataclass(frozen=True, repr=False)
class EmergenceCurve(Result):
    """Emergence per block and shot count, and how well the model answers.

    Made by :func:`ed_interp.emergence`. In a notebook the last expression of a cell shows it.
    """

    KIND: ClassVar[str] = "emergence"
    VERSION: ClassVar[int] = 2

    model: str
    task: str
    estimator: str
    noise: float | None
    """Noise scale s per normalised coordinate; None for estimators without one."""
    rows: tuple[EmergenceRow, ...]
    behaviour: tuple[BehaviourRow, ...] = ()
    """Empty where the task has no answers."""
    profile: tuple[ProfileRow, ...] = ()
    """Emergence over noise scales; empty without `noise_profile`."""
    comparison: EstimatorComparison | None = None
    """The same by other estimators; None without `compare_estimators`."""
    calibration: Calibration | None = None
    """The estimator on data of known information of this size; None without `calibrate`."""
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

    def behaviour_frame(self) -> pd.DataFrame:
        """One line per shot count, columns as in :class:`BehaviourRow`; empty without answers."""
        return self.to_frame("behaviour")

    def profile_frame(self) -> pd.DataFrame:
        """One line per (layer, shots, beta), columns as in :class:`ProfileRow`."""
        return self.to_frame("profile")

    @classmethod
    def upgrade(cls, data: dict[str, Any], version: int) -> dict[str, Any]:
        """Version 1 held a calibration of version 1."""
        if version < 2 and data.get("calibration") is not None:
            return {**data, "calibration": Calibration.upgrade(data["calibration"], 1)}
        return data

    def write_record(self, folder: Path) -> None:
        """Write what is read back, and the table of the comparison."""
        super().write_record(folder)
        if self.comparison is not None:
            write_parquet(folder / "comparison.parquet", self.comparison.to_frame())

    # What a person reads ------------------------------------------------------------------

    def title(self) -> str:
        return f"Emergence of {self.model} on {self.task}"

    def headline(self) -> str:
        return words.headline(self.rows, self.behaviour, self.unit)

    def cautions(self) -> str:
        flagged = sum(bool(row.flags) for row in self.rows)
        sentences = []
        if flagged:
            share = f"{flagged} of {plural(len(self.rows), 'value')}"
            sentences.append(f"{share} carry a flag ({', '.join(words.occurring(self.rows))}).")
        if self.calibration is not None:
            sentences.append(f"At this size the estimator is {self.calibration.says()}.")
        return " ".join(sentences)

    def facts(self) -> dict[str, str]:
        noise = "" if self.noise is None else f"{self.noise:.4g}"
        facts = {
            "Estimator": self.estimator,
            "Noise per normalised coordinate": noise,
            "Blocks": words.spans(self.layers),
            "Shots": words.spans(self.shots),
            "Prompts": f"{self.behaviour[-1].n:,}" if self.behaviour else "",
        }
        return {name: text for name, text in facts.items() if text}

    def how(self) -> str:
        added = ""
        if self.noise is not None:
            added = (
                f" with noise of scale {self.noise:.4g} on every normalised coordinate, the same "
                "for all blocks and shot counts"
            )
        return (
            "For each block, macro is the information between its input and its output at the last "
            "token of the whole sequence; micro is the same for each token fed alone, averaged "
            f"over the tokens. E = macro - micro, in {self.unit}, by the {self.estimator} "
            f"estimator{added}."
        )

    def glossary(self) -> dict[str, str]:
        glossary = words.glossary(self.rows, _meanings(self.estimator))
        more: dict[str, str] = {}
        for part in (self.comparison, self.calibration):
            more |= {} if part is None else part.glossary()
        # The flags of the curve's own values first, counted among them.
        return {**glossary, **more, **glossary}

    def tables(self) -> list[Table]:
        drawn = self.settings.get("population", {})
        sample = f"{drawn.get('prompts', '?')} prompts, seed {self.settings.get('seed', '?')}"
        if (size := drawn.get("exact_size")) is not None:
            at = plural(max(self.shots, default=0), "shot")
            sample += f"; {size:,} different ones exist at {at}"
        caption = f"E in {self.unit} ({self._with_noise()})"
        shown = [
            words.grid_table(self.rows, caption, sample),
            words.rows_table(self.rows, self.unit),
        ]
        if self.behaviour:
            shown += [words.answers_table(self.behaviour), words.behaviour_table(self.behaviour)]
        if self.profile:
            shown.append(words.profile_table(self.profile, self.unit))
        if self.comparison is not None:
            shown += self.comparison.tables()
        if self.calibration is not None:
            # On the page only: in the terminal the cautions hold what matters of it.
            short, whole = self.calibration.tables()[:2]
            notes = [self.calibration.how()]
            shown += [dataclasses.replace(short, terminal=False, notes=notes), whole]
        return shown

    def charts(self) -> list[Chart]:
        labels = charts.Labels(f"{self.model} · {self.task}", self._with_noise(), self.unit)
        meanings = _meanings(self.estimator)
        shown = [charts.emergence_chart(self.rows, self.behaviour, labels, meanings)]
        if self.rows:
            shown += [
                make(self.rows, labels) for make in (charts.heatmap_chart, charts.terms_chart)
            ]
        if self.profile:
            shown.append(charts.profile_chart(self.profile, labels, self.noise))
        if self.comparison is not None:
            shown.append(charts.comparison_chart(self.comparison.rows, title=labels.title))
        if self.calibration is not None:
            shown += [dataclasses.replace(c, png=True) for c in self.calibration.charts()]
        return shown

    def _with_noise(self) -> str:
        noise = "" if self.noise is None else f", noise {self.noise:.3g}"
        return f"{self.estimator} estimator{noise}"


def _meanings(*estimators: str) -> dict[str, str]:
    # Imported here, as it imports torch, which loading a curve does not need.
    from ed_interp.probes.emergence.estimators.registry import flag_meanings

    return {**flag_meanings(*estimators), **FLAGS}
