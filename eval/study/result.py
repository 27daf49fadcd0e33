"""The result of a study.

In a folder it is ``run.json``, ``trials.parquet`` and ``summary.parquet`` (the same rows as
tables), ``comparisons/NAME/`` with the comparison of each trial, ``adapters/`` with the trained
adapters (both as far as they were to be kept), pictures and a page.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from ed_interp.charts.spec import Chart
from ed_interp.errors import InvalidInputError
from ed_interp.eval.study.charts import arms_chart, learned_chart
from ed_interp.eval.study.options import StudyOptions
from ed_interp.eval.study.rows import ArmRow, StudiedArm, Trial, TrialRow
from ed_interp.eval.study.words import GLOSSARY, HOW, cautions, headline, tables
from ed_interp.results import Result
from ed_interp.tables import Table

_SAME_1 = ("model", "device", "rates", "steps", "batch_size", "prompts", "watch_prompts", "texts",
           "emergence", "decode_rounds")  # fmt: skip
"""Options that version 1 kept in its plan under the same name."""


@dataclasses.dataclass(frozen=True)
class Study(Result):
    """Arms, swept and trained with several seeds, against the arm under test."""

    KIND: ClassVar[str] = "comparison-run"
    VERSION: ClassVar[int] = 2

    model: dict[str, Any]
    """The frozen model."""
    problem: dict[str, Any]
    """The task, and how it was split."""
    tested: str
    """Name of the arm under test."""
    # A list, as nested options make no table of Parquet.
    arms: list[StudiedArm]
    best: dict[str, float]
    """The rate at which each arm was compared."""
    trials: tuple[TrialRow, ...]
    summary: tuple[ArmRow, ...]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def upgrade(cls, data: dict[str, Any], version: int) -> dict[str, Any]:
        """Version 1 had a plan in place of the options."""
        if version > 1:
            return data
        # The plan stays in the settings as it was: it may hold pairs, which options do not.
        data = dict(data)
        plan = data.pop("plan", None)
        try:
            settings: dict[str, Any] = {"options": _options_1(plan), "plan": plan}
        except (KeyError, TypeError, IndexError) as error:
            raise InvalidInputError(f"plan: {type(error).__name__} {error}") from error
        if "command" in data:
            settings["command"] = data.pop("command")
        return {**data, "settings": settings}

    @property
    def options(self) -> StudyOptions:
        """The settings of the study."""
        return StudyOptions.from_dict(self.settings["options"])

    @property
    def failures(self) -> tuple[TrialRow, ...]:
        """Trials that failed, or had to be started more than once."""
        return tuple(row for row in self.trials if row.status != "done" or row.attempt > 1)

    @property
    def first(self) -> Trial:
        """The arm under test at its first seed; its comparison and adapter are always kept."""
        return Trial(self.tested, self.best.get(self.tested, 0.0), self.options.seed, False)

    def title(self) -> str:
        where = f"{self.model.get('name')}, {self.problem.get('name')}"
        controls = [arm for arm in self.arms if arm.name not in (self.tested, "frozen")]
        others = "its controls" if controls else "the frozen model"
        return f"{self.tested[0].upper()}{self.tested[1:]} against {others}: {where}"

    def headline(self) -> str:
        return headline(self.tested, self.trials, self.summary)

    def cautions(self) -> str:
        return cautions(self.failures)

    def facts(self) -> Mapping[str, str]:
        options = self.settings["options"]
        return {
            "arms": str(len(self.arms)),
            "seeds": str(options["seeds"]),
            "training steps": str(options["steps"]),
            "training examples": str(self.problem.get("examples")),
        }

    def how(self) -> str:
        return HOW

    def glossary(self) -> Mapping[str, str]:
        return GLOSSARY

    def tables(self) -> list[Table]:
        return [*tables(self.tested, self.arms, self.best, self.trials, self.summary)]

    def charts(self) -> list[Chart]:
        charts = [
            learned_chart({"": self.trials}, self.title()),
            arms_chart(self.summary, self.tested, self.title()),
        ]
        return [chart for chart in charts if any(panel.marks for panel in chart.panels)]


def _options_1(plan: Any) -> dict[str, Any]:
    """Today's options of a plan of version 1."""
    arms, problem = list(plan["arms"]), plan["problem"]
    # The first arm was under test, unless a checkpoint was.
    treated = plan["treated"] or arms.pop(0)
    controls = tuple(arm for arm in arms if arm not in ("frozen", treated))
    options = StudyOptions(
        treated=treated,
        controls=controls or ("none",),
        task=problem["task"],
        template=problem.get("template"),
        shots=problem.get("shots", (0, 1, 2, 4)),
        held_out=problem.get("held_out", 0.3),
        seeds=len(plan["seeds"]),
        seed=plan["seeds"][0],
        allow_non_neutral=not plan["require_identity"],
        **{name: plan[name] for name in _SAME_1},
    )
    return options.to_dict()
