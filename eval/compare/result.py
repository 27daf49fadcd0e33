"""The result of comparing two models.

A comparison is small (a few hundred rows) and holds no tensor. In a folder it is
``comparison.json``, which holds every number; ``effects.parquet``, the same effects with their
verdicts; and ``samples.parquet``, one line per prompt and shot count: ``set`` (task or watched),
``relation``, ``prompt``, ``shots``, and ``correct``, ``logprob``, ``rank`` of each side
(``control_correct``, ``treated_correct``, ...), paired by line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import ed_interp.eval.compare.words as words
from ed_interp.charts.spec import Chart
from ed_interp.eval.compare.charts import comparison_charts
from ed_interp.eval.compare.rows import (
    Adaptivity,
    Cost,
    Effect,
    FeatureChange,
    Forgetting,
    Identity,
)
from ed_interp.results import Result
from ed_interp.tables import Table, plain_table

if TYPE_CHECKING:
    import pandas as pd

_OPTIONS_1 = ("seed", "watch_prompts", "watch_shots", "text_tokens", "emergence", "level",
              "resamples", "batch_size", "require_identity")  # fmt: skip
"""Options that version 1 kept among the other settings."""


@dataclasses.dataclass(frozen=True, repr=False)
class Comparison(Result):
    """A treated model against a control, on the same samples. Made by :func:`compare`."""

    KIND: ClassVar[str] = "comparison"
    VERSION: ClassVar[int] = 2
    FILE: ClassVar[str] = "comparison.json"
    SIDE: ClassVar[tuple[str, ...]] = ("samples",)

    control: dict[str, Any]
    """What the control is: name, kind, and the description of the model."""
    treated: dict[str, Any]
    task: str
    effects: tuple[Effect, ...]
    forgetting: Forgetting | None = None
    features: tuple[FeatureChange, ...] = ()
    cost: Cost | None = None
    identity: Identity | None = None
    adaptivity: Adaptivity | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Options, and what was derived from them: enough to repeat the comparison exactly."""
    # As Any, since reading needs the type of every field and pandas is slow to import.
    samples: Any = dataclasses.field(default=None, compare=False)
    """Both models' scores of every prompt and shot count, as a DataFrame."""

    def __repr__(self) -> str:
        held = len(self.significant())
        return f"Comparison({self.title()}, {len(self.effects)} effects, {held} significant)"

    @classmethod
    def upgrade(cls, data: dict[str, Any], version: int) -> dict[str, Any]:
        """Version 1 had no options of their own."""
        settings = data.get("settings")
        # A file whose settings are something else is refused where all fields are checked.
        if version > 1 or not isinstance(settings, dict):
            return data
        options = {name: settings[name] for name in _OPTIONS_1 if name in settings}
        rest = {name: value for name, value in settings.items() if name not in options}
        return {**data, "settings": {"options": options, **rest}}

    @property
    def alpha(self) -> float:
        """The level of the corrected tests."""
        return 1.0 - float(self.settings.get("options", {}).get("level", 0.95))

    def significant(self) -> tuple[Effect, ...]:
        """Effects that hold at the corrected level, strongest evidence first."""
        return words.significant(self.effects, self.alpha)

    def side_effects(self) -> tuple[Effect, ...]:
        """What became worse: relations by name, the task itself, and neutral text."""
        return words.harmed(self.effects, self.alpha)

    def harmed(self) -> tuple[str, ...]:
        """Names of what became worse, each once, the surest first."""
        return tuple(dict.fromkeys(effect.name for effect in self.side_effects()))

    def effect(self, family: str, metric: str, *, name: str | None = None) -> tuple[Effect, ...]:
        """The effects of one family and metric, and of one name if given."""
        return words.pick(self.effects, family, metric, name)

    def to_frame(self, table: str = "") -> pd.DataFrame:
        """One line per row of a table; effects, the default one, also have their verdict."""
        frame = super().to_frame(table)
        if table in ("", "effects"):
            frame["verdict"] = [effect.verdict(self.alpha) for effect in self.effects]
        return frame

    def summary(self) -> dict[str, Any]:
        """The main numbers as one flat row."""
        return {
            "control": self.control.get("name"),
            "treated": self.treated.get("name"),
            "task": self.task,
            "harmed": list(self.harmed()),
            **words.summary(self.effects, self.forgetting, self.cost),
        }

    def title(self) -> str:
        return f"{self.treated.get('name')} against {self.control.get('name')}: {self.task}"

    def headline(self) -> str:
        return words.headline(self.task, self.effects, self.forgetting, self.alpha)

    def cautions(self) -> str:
        return words.cautions(self.identity)

    def facts(self) -> Mapping[str, str]:
        facts = {"effects": str(len(self.effects)), "prompts": str(self.settings.get("prompts"))}
        if self.forgetting is not None:
            facts["texts"] = str(self.forgetting.texts)
        if self.identity is not None and self.identity.checked:
            facts["neutral before training"] = "yes" if self.identity.neutral else "no"
        return facts

    def how(self) -> str:
        return words.HOW

    def tables(self) -> list[Table]:
        tables = [*words.effect_tables(self.effects, self.alpha)]
        if self.forgetting is not None and self.forgetting.contexts:
            where = "Where in neutral text the predictions differ most"
            tables.append(plain_table("contexts", where, self.forgetting.contexts, keys=2))
        if self.features:
            what = "Features of the dictionary that changed most"
            tables.append(plain_table("features", what, self.features))
        if self.adaptivity is not None:
            tables += words.session_tables(self.adaptivity)
        if self.cost is not None:
            tables.append(plain_table("cost", "Cost", [self.cost]))
        return tables

    def charts(self) -> list[Chart]:
        return [*comparison_charts(self.effects, self.alpha, self.title())]
