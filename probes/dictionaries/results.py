"""Results about a dictionary: its training, features over shots, and explanations.

The dictionary itself is in SAELens's own files. Importing this imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ed_interp.charts.spec import Chart, Panel
from ed_interp.probes.dictionaries import charts
from ed_interp.probes.dictionaries.rows import FeatureEmergenceRow, InterpretationRow, TrainingRow
from ed_interp.records.reading import read_json
from ed_interp.results import Result
from ed_interp.tables import Table

_BEST = 20
_SCORES = ("detection", "detection_control", "fuzzing", "fuzzing_control")


@dataclasses.dataclass(frozen=True)
class DictionaryRecord(Result):
    """A dictionary without its weights."""

    KIND: ClassVar[str] = "dictionary"

    architecture: str
    """SAELens's name of it."""
    trained_as: str | None
    """Its name in training; batch-top-k and matryoshka are jumprelu once trained."""
    latents: int
    width: int
    site: str | None
    model: str | None
    fingerprint: str | None
    """Fingerprint of the model's weights."""
    stamp: dict[str, Any] | None = None
    """Fields of a :class:`~ed_interp.streams.provenance.ModelStamp`."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    history: tuple[TrainingRow, ...] = ()
    """About a hundred batches of training, evenly spaced."""

    def title(self) -> str:
        kind = self.trained_as or self.architecture
        return f"{kind} dictionary of {self.model or 'a model'} at {self.site or 'no known site'}"

    def headline(self) -> str:
        size = f"{self.latents:,} latents of {self.width:,} channels"
        if not self.history:
            return f"{size}."
        last = self.history[-1]
        return f"{size}: FVU {last.fvu:.3f} and L0 {last.l0:.1f} in the last batches of training."

    def charts(self) -> list[Chart]:
        return [charts.training_chart(self.title(), self.history)] if self.history else []

    def write(self, folder: Path) -> None:
        """Write the record and its history, and never the page."""
        # 5 MB of it do not belong into a folder of weights that people upload.
        self.write_record(folder)


@dataclasses.dataclass(frozen=True)
class ReaderResult(Result):
    """A result made by a :class:`~ed_interp.probes.dictionaries.reader.Reader`."""

    def cautions(self) -> str:
        """Whether the dictionary was trained on another model, or at another site."""
        return " ".join(self._settings.get("cautions", ()))


@dataclasses.dataclass(frozen=True)
class FeatureEmergence(ReaderResult):
    """Made by :func:`~ed_interp.probes.dictionaries.emergence.feature_emergence`."""

    KIND: ClassVar[str] = "feature-emergence"

    model: str
    task: str
    about: str
    """What the labels are: ``answer`` or ``relation``."""
    site: str
    latents: int
    label_entropy: float
    """In bits: no feature can carry more."""
    rows: tuple[FeatureEmergenceRow, ...]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def steps(self) -> list[int | None]:
        """Checkpoints in order of training; the trained model comes last."""
        return charts.steps_of(self.rows)

    def title(self) -> str:
        return f"Features of {self.model} at {self.site} on {self.task}"

    def headline(self) -> str:
        # The trained model comes last, if checkpoints were followed at all.
        rows = [row for row in self.rows if row.step == self.steps[-1]]
        first = min(rows, key=lambda row: row.shots)
        last = max(rows, key=lambda row: row.shots)
        best = f", the best of them {last.best_bits:.2f} of {self.label_entropy:.2f} bits"
        return (
            f"{first.informative} features inform about the {self.about} at {first.shots} shots "
            f"and {last.informative} at {last.shots}{best if last.informative else ''}."
        )

    def how(self) -> str:
        prompts = self.settings.get("population", {}).get("prompts", "the")
        return (
            f"The last token of {prompts} prompts of {self.task}, {self.latents} latents at "
            f"{self.site}; information about the {self.about}, whose entropy is "
            f"{self.label_entropy:.2f} bits, less its mean over "
            f"{self.settings.get('permutations', 'the')} permutations of the labels."
        )

    def tables(self) -> list[Table]:
        rows = []
        for row in self.rows:
            # Shortened: hundreds of features can be new. The Parquet table has all of them.
            top = ", ".join(f"{feature} ({bits:.2f})" for feature, bits in row.top[:5])
            new = ", ".join(map(str, row.new[:12])) + (" ..." if len(row.new) > 12 else "")
            counts = (str(row.shots), str(row.informative), f"{row.best_bits:.3f}", str(row.active))
            quality = (f"{row.l0:.1f}", f"{row.fvu:.3f}")
            rows.append((charts.label(row.step), *counts, *quality, top, new))
        numbers = ("shots", "informative", "best bits", "active", "L0", "FVU")
        return [
            Table(
                name="features",
                caption="Features per checkpoint and shots",
                heads=("model", *numbers, "most informative (bits)", "new"),
                rows=rows,
                text=frozenset({7, 8}),
                keys=2,
            )
        ]

    def charts(self) -> list[Chart]:
        entropy, about = self.label_entropy, self.about
        return [charts.emergence_chart(self.title(), self.headline(), self.rows, entropy, about)]


@dataclasses.dataclass(frozen=True)
class Interpretations(ReaderResult):
    """Made by :func:`~ed_interp.probes.dictionaries.explaining.score_explanations`."""

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
            marks = [
                charts.histogram("control", control, "muted"),
                charts.histogram("features", own),
            ]
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
