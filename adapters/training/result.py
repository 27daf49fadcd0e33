"""What a training run returns: the record of how it went, in the folder with the adapter."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any, ClassVar

from ed_interp.adapters.training.card import model_card
from ed_interp.adapters.training.rows import LossRow, by_step, pairs_table
from ed_interp.charts.spec import Chart, Line, Panel
from ed_interp.records.files import write_json, write_text
from ed_interp.results import Result
from ed_interp.tables import Table


@dataclasses.dataclass(frozen=True)
class TrainedAdapter(Result):
    """The record of a training, and the folder with it and the adapter.

    The folder is a checkpoint as PEFT saves it, to be published as it is: the model card is its
    page, and there is no other.
    """

    KIND = "adapter-training"
    FILE = "training.json"
    # Beside the JSON and not in it: a folder may be moved, and its path is nobody else's business.
    SIDE: ClassVar[tuple[str, ...]] = ("folder",)

    name: str
    model: dict[str, Any]
    """The base model: name, fingerprint, sizes."""
    method: str
    adapter: dict[str, Any]
    """The PEFT configuration, as it was resolved against the architecture."""
    training: dict[str, Any]
    """The settings of training."""
    data: dict[str, Any]
    """Name, SHA-256 and counts of the examples."""
    card: dict[str, Any]
    """Licences and description."""
    steps: int
    """Optimizer steps taken."""
    stopped: str
    """``completed`` or ``stopped early``."""
    loss: float
    """Last training loss, in nats per token."""
    eval_loss: float | None
    """Least loss on the held-out examples, that of the saved weights; None without any."""
    history: tuple[LossRow, ...]
    parameters: dict[str, int]
    """``trained`` and ``all``."""
    base_sha256: str
    """Hash of everything frozen, equal before and after."""
    adapter_sha256: str
    """Hash of ``adapter_model.safetensors``."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    folder: Path | None = dataclasses.field(default=None, compare=False)
    """Where it was read from."""

    def title(self) -> str:
        return f"{self.method} on {self.model.get('name', '?')}"

    def headline(self) -> str:
        held = [row.eval_loss for row in self.history if row.eval_loss is not None]
        took = f"{self.steps} step{'s' if self.steps != 1 else ''} ({self.stopped})"
        if self.eval_loss is None or not held:
            return f"The training loss is {self.loss:.4f} nats per token after {took}."
        return (
            f"The held-out loss is {self.eval_loss:.4f} nats per token, {held[0]:.4f} at the first "
            f"evaluation, after {took}."
        )

    def cautions(self) -> str:
        unknown = "No examples were held out: nothing shows whether the adapter generalises."
        return unknown if self.eval_loss is None else ""

    def facts(self) -> dict[str, str]:
        return {
            "method": self.method,
            "base model": str(self.model.get("name", "?")),
            "trained parameters": f"{self.parameters.get('trained', 0):,}",
            "examples": str(self.data.get("name", "?")),
            "base weights": "bit for bit as before",
        }

    def tables(self) -> list[Table]:
        held = "-" if self.eval_loss is None else f"{self.eval_loss:.4f} nats per token"
        summary = {
            **self.facts(),
            "steps": f"{self.steps}, {self.stopped}",
            "training loss": f"{self.loss:.4f} nats per token",
            "held-out loss": held,
        }
        return [pairs_table("training", "", summary)]

    def charts(self) -> list[Chart]:
        marks = []
        for name, label, colour in (
            ("loss", "training", "muted"),
            ("eval_loss", "held out", "accent"),
        ):
            values = [(row.step, getattr(row, name)) for row in self.history]
            if points := [(step, value) for step, value in values if value is not None]:
                x, y = zip(*points, strict=True)
                marks.append(Line(name=label, x=x, y=y, colour=colour))
        panel = Panel(marks=marks, x="step", y="loss (nats per token)")
        chart = Chart(name="losses", title=self.title(), heading="Losses", panels=[panel])
        return [chart] if marks else []

    def write(self, folder: Path) -> None:
        """Write the record and the model card next to the adapter, or copy the whole folder."""
        if self.folder is not None:
            # The copy has a settings.json already, which says that it is a run of ours.
            ignored = shutil.ignore_patterns("settings.json")
            shutil.copytree(self.folder, folder, ignore=ignored, dirs_exist_ok=True)
            return
        header = {"format": f"ed-interp/{self.KIND}", "version": self.VERSION}
        record = {**header, **self.to_dict(), "environment": self._environment}
        write_json(folder / self.FILE, record)
        # PEFT has left a card of its own.
        write_text(folder / "README.md", model_card(record))

    @classmethod
    def upgrade(cls, data: dict[str, Any], version: int) -> dict[str, Any]:
        """Older files log losses and evaluations of a step in rows of their own."""
        history = data.get("history")
        rows = history if isinstance(history, list) else []
        logged = all(isinstance(row, dict) and isinstance(row.get("step"), int) for row in rows)
        return {**data, "history": by_step(rows)} if rows and logged else data

    @classmethod
    def _from_file(cls, file: Path, data: Any) -> TrainedAdapter:
        return dataclasses.replace(super()._from_file(file, data), folder=file.parent)
