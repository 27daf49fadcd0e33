"""`FeatureEmergence`: how many features, and which, over shots and training checkpoints."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ed_interp.errors import InvalidInputError, RunFolderError

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

FORMAT = "ed-interp/feature-emergence"
VERSION = 1


@dataclasses.dataclass(frozen=True, slots=True)
class FeatureEmergenceRow:
    """One checkpoint and shot count."""

    step: int | None
    """Training step of the checkpoint; None for the model as it is."""
    shots: int
    active: int
    """Features that are active at the last token of at least 1% of the prompts."""
    l0: float
    """Features active at the last token, mean over prompts."""
    informative: int
    """Features whose being active tells about the label; family-wise at the 5% level."""
    new: tuple[int, ...]
    """Informative features that were not at any lower shot count of the same checkpoint."""
    top: tuple[tuple[int, float], ...]
    """The most informative features, with their information in bits."""
    best_bits: float
    """Information of the most informative feature, in bits."""
    fvu: float
    """Fraction of variance unexplained of these states: where it is near 1 or above, the
    dictionary does not describe the model at this checkpoint."""


@dataclasses.dataclass(frozen=True)
class FeatureEmergence:
    """Made by :func:`~ed_interp.probes.dictionaries.emergence.following.feature_emergence`."""

    model: str
    task: str
    about: str
    """What the labels are: ``answer`` or ``relation``."""
    site: str
    latents: int
    label_entropy: float
    """Bits: no feature can carry more."""
    rows: tuple[FeatureEmergenceRow, ...]
    settings: dict[str, Any]

    @property
    def steps(self) -> list[int | None]:
        """Checkpoints, in order of training; the model as it is comes last."""
        found = {row.step for row in self.rows}
        return [*sorted(step for step in found if step is not None), *([None] * (None in found))]

    def to_frame(self) -> pd.DataFrame:
        """One line per (step, shots), columns as in :class:`FeatureEmergenceRow`."""
        import pandas as pd

        return pd.DataFrame([dataclasses.asdict(row) for row in self.rows])

    def plot(self) -> go.Figure:
        """Features active and informative over shots; one line per checkpoint."""
        from ed_interp.probes.dictionaries.emergence.figure import feature_emergence_figure

        return feature_emergence_figure(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the shape of the command line's ``--json``."""
        return {"format": FORMAT, "version": VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> FeatureEmergence:
        """The inverse of :meth:`to_dict`.

        Raises:
            InvalidInputError: ``data`` is something else.
        """
        if data.get("format") != FORMAT or data.get("version") != VERSION:
            raise InvalidInputError(
                f"not a {FORMAT} of version {VERSION}: found {data.get('format')!r} "
                f"{data.get('version')!r}"
            )
        rows = tuple(
            FeatureEmergenceRow(
                **{
                    **row,
                    "new": tuple(row["new"]),
                    "top": tuple((int(feature), float(bits)) for feature, bits in row["top"]),
                }
            )
            for row in data["rows"]
        )
        kept = {key: value for key, value in data.items() if key not in ("format", "version")}
        return cls(**{**kept, "rows": rows})

    def to_json(self) -> str:
        """:meth:`to_dict` as strict JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write ``run.json``, ``features.png`` and ``report.html`` to ``folder``.

        Raises:
            RunFolderError: ``folder`` exists (and not ``overwrite``) or cannot be written.
        """
        from ed_interp.probes.dictionaries.emergence.figure import still, whole_page
        from ed_interp.records import RunFolder, write_json, write_text

        settings = {"kind": FORMAT, **self.settings}
        with RunFolder.open(folder, settings, overwrite=overwrite, resumable=False) as run:
            write_json(run.folder / "run.json", self.to_dict())
            still(self, run.folder / "features.png")
            write_text(run.folder / "report.html", whole_page(self))
        return run.path

    @classmethod
    def load(cls, folder: str | Path) -> FeatureEmergence:
        """Read back what :meth:`save` wrote.

        Raises:
            RunFolderError: nothing complete is there.
        """
        path = Path(folder).expanduser() / "run.json"
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, InvalidInputError) as error:
            reason = " ".join(str(error).split())[:120]
            raise RunFolderError(f"no feature emergence in {folder} ({reason})") from error

    def _repr_html_(self) -> str:
        frame = self.to_frame().drop(columns=["new", "top"])
        table = frame.to_html(index=False, float_format=lambda value: f"{value:.3g}", border=0)
        return (
            f"<p>Features of {self.model} at {self.site} on {self.task}, "
            f"information about the {self.about}:</p>{table}"
        )
