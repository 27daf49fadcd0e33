"""What a training run gives: a folder with the adapter, and how training went."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ed_interp.errors import RunFolderError

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

FORMAT = "ed-interp/adapter-training"
RECORD = "training.json"


@dataclasses.dataclass(frozen=True)
class TrainedAdapter:
    """An adapter in a folder, with the record of its training."""

    folder: Path
    """Holds the adapter as PEFT saves it, :data:`RECORD` and the model card."""
    record: dict[str, Any]
    """Plain data: method, settings, data, counts, losses, fingerprints, versions."""

    @property
    def method(self) -> str:
        """The method by name."""
        return str(self.record["method"])

    @property
    def steps(self) -> int:
        """Optimizer steps taken."""
        return int(self.record["steps"])

    @property
    def eval_loss(self) -> float | None:
        """Loss in nats a token on the held-out examples; None if nothing was held out."""
        value = self.record["eval_loss"]
        return None if value is None else float(value)

    def to_frame(self) -> pd.DataFrame:
        """A row per logged step: ``step``, ``loss``, ``eval_loss`` (NaN where not measured)."""
        import pandas as pd

        rows = [
            {name: row.get(name) for name in ("step", "epoch", "loss", "eval_loss", "grad_norm")}
            for row in self.record["history"]
        ]
        columns = ["step", "epoch", "loss", "eval_loss", "grad_norm"]
        frame = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns, "float64"))
        return frame.groupby("step", as_index=False).first()

    def plot(self) -> go.Figure:
        """Training and held-out loss over steps, as a Plotly figure."""
        import plotly.graph_objects as go

        from ed_interp.figures.style import FONT, THEMES

        colours, frame, figure = THEMES["light"], self.to_frame(), go.Figure()
        for column, name, colour in (
            ("loss", "training", colours.muted),
            ("eval_loss", "held out", colours.accuracy),
        ):
            shown = frame.dropna(subset=[column])
            figure.add_scatter(x=shown["step"], y=shown[column], name=name, line={"color": colour})
        figure.update_layout(
            title=f"{self.method} on {self.record['model']['name']}",
            font={"family": FONT, "color": colours.text},
            plot_bgcolor=colours.background,
        )
        figure.update_xaxes(title_text="step", gridcolor=colours.grid)
        figure.update_yaxes(title_text="loss (nats a token)", gridcolor=colours.grid)
        return figure

    def save(self, folder: str | Path) -> Path:
        """Copy the adapter and its record to ``folder``, which must not exist.

        Raises:
            RunFolderError: it exists or cannot be written.
        """
        target = Path(folder)
        if target.exists():
            raise RunFolderError(f"{target} exists; pass another folder")
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            shutil.copytree(self.folder, partial)
            partial.rename(target)
        except OSError as error:
            raise RunFolderError(f"cannot write {target} ({error.strerror})") from error
        return target

    @classmethod
    def load(cls, folder: str | Path) -> TrainedAdapter:
        """Read the record of a folder that :func:`~ed_interp.adapters.training.train` made.

        Raises:
            RunFolderError: no such folder, or no readable record in it.
        """
        path = Path(folder)
        try:
            record = json.loads((path / RECORD).read_text("utf-8"))
        except FileNotFoundError:
            raise RunFolderError(
                f"{path} has no {RECORD}; a folder that ed_interp trained is expected"
            ) from None
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{path / RECORD} cannot be read: {error}") from error
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise RunFolderError(f"{path / RECORD} is no record of {FORMAT}")
        return cls(path, record)

    def _repr_html_(self) -> str:
        import html

        record = self.record
        rows = {
            "method": self.method,
            "base model": record["model"]["name"],
            "trained parameters": f"{record['parameters']['trained']:,}",
            "steps": self.steps,
            "loss": record["loss"],
            "held-out loss": self.eval_loss,
            "folder": self.folder,
        }
        cells = "".join(
            f"<tr><th>{name}</th><td>{html.escape(str(value))}</td></tr>"
            for name, value in rows.items()
        )
        return f"<table>{cells}</table>"
