"""`DictionaryRecord`: what a dictionary is and how it was trained, the ``run.json`` of its folder.

The dictionary itself is in SAELens's own files. Importing this imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

from ed_interp.charts.spec import Chart
from ed_interp.probes.dictionaries.charts import training_chart
from ed_interp.probes.dictionaries.rows import TrainingRow
from ed_interp.results import Result


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
        return [training_chart(self.title(), self.history)] if self.history else []

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
