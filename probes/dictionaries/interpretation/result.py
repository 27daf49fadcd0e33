"""`Interpretations`: explanations of features, and how well they predict."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ed_interp.charts.spec import Chart, Panel
from ed_interp.probes.dictionaries.charts import histogram
from ed_interp.probes.dictionaries.record import ReaderResult
from ed_interp.probes.dictionaries.rows import InterpretationRow
from ed_interp.records.reading import read_json
from ed_interp.tables import Table

_BEST = 20
_SCORES = ("detection", "detection_control", "fuzzing", "fuzzing_control")


@dataclasses.dataclass(frozen=True)
class Interpretations(ReaderResult):
    """Made by :func:`~ed_interp.probes.dictionaries.interpretation.scoring.score_explanations`."""

    KIND: ClassVar[str] = "interpretations"

    model: str
    site: str
    rows: tuple[InterpretationRow, ...]
    skipped: int
    """Number of features that were active too rarely to be scored."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def means(self) -> dict[str, float | None]:
        """Mean scores and controls over features; None if none was scored."""
        if not self.rows:
            return dict.fromkeys(_SCORES)
        return {name: float(np.mean([getattr(r, name) for r in self.rows])) for name in _SCORES}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with the means."""
        # Derived, for readers of the JSON alone; `upgrade` drops them again.
        return {**super().to_dict(), "means": self.means()}

    @classmethod
    def upgrade(cls, data: dict[str, Any], version: int) -> dict[str, Any]:
        """Drop what is derived."""
        return {name: value for name, value in data.items() if name != "means"}

    @classmethod
    def load(cls, folder: str | Path) -> Interpretations:
        """Read back a run folder, or the single JSON file that older versions wrote.

        Raises:
            RunFolderError: it does not exist, is damaged, of another kind, or newer.
            InvalidInputError: the file holds something else.
        """
        file = Path(folder).expanduser()
        # Such a file has no header, so its fields alone say whether it is one.
        return cls.from_dict(read_json(file)) if file.is_file() else super().load(folder)

    def title(self) -> str:
        return f"Explanations of features of {self.model} at {self.site}"

    def headline(self) -> str:
        means = self.means()
        if not self.rows:
            return f"No feature was active often enough to be scored ({self.skipped} too rarely)."
        return (
            f"{len(self.rows)} features scored, {self.skipped} active too rarely; detection "
            f"{means['detection']:.3f} (with another feature's explanation "
            f"{means['detection_control']:.3f}), fuzzing {means['fuzzing']:.3f} "
            f"({means['fuzzing_control']:.3f}); 0.5 is chance."
        )

    def how(self) -> str:
        return (
            "Explanations are made from one half of the text and scored on the other, as areas "
            "under the ROC curve. Detection: do they tell contexts with the feature active from "
            "contexts without it? Fuzzing: within a context, active tokens from others? The "
            "control scores each feature by the explanation of another one, drawn at random."
        )

    def tables(self) -> list[Table]:
        ranked = sorted(self.rows, key=lambda row: -row.detection)
        every = Table(
            name="explanations",
            caption="Every explanation",
            heads=("feature", "detection", "fuzzing", "explanation"),
            rows=[
                (str(r.feature), f"{r.detection:.2f}", f"{r.fuzzing:.2f}", r.text) for r in ranked
            ],
            text=frozenset({3}),
            terminal=False,
        )
        few: dict[str, Any] = {"rows": every.rows[:_BEST], "page": False, "terminal": True}
        return [dataclasses.replace(every, name="best", caption="Highest detection", **few), every]

    def charts(self) -> list[Chart]:
        panels = []
        for name in ("detection", "fuzzing"):
            control = [getattr(row, f"{name}_control") for row in self.rows]
            own = [getattr(row, name) for row in self.rows]
            marks = [histogram("control", control, "muted"), histogram("features", own)]
            axis = f"{name} (0.5 is chance)"
            panels.append(Panel(x=axis, y="features", marks=marks, x_range=(0, 1)))
        return [
            Chart(
                name="explanations",
                title=self.title(),
                heading="Scores of the explanations",
                caption="Control: scored by the explanation of another feature.",
                panels=panels,
                share_x=False,
            )
        ]
