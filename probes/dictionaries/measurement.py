"""`DictionaryMeasurement`: what was measured of a dictionary, as plain data.

Made by :func:`~ed_interp.probes.dictionaries.measuring.measure`. Importing this imports nothing
heavy; :meth:`DictionaryMeasurement.plot` imports Plotly.
"""

from __future__ import annotations

import dataclasses
import html
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.probes.dictionaries.absorption import ConceptRow
from ed_interp.probes.dictionaries.probing import ProbeRow
from ed_interp.probes.dictionaries.recovered import Recovered
from ed_interp.records import RunFolder, environment, write_json, write_parquet

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

FORMAT = "ed-interp/dictionary-measurement"
VERSION = 1


@dataclasses.dataclass(frozen=True, slots=True)
class FeatureRow:
    """One latent on held-out text."""

    feature: int
    density: float
    """Share of the tokens at which it is active."""
    mean_active: float
    """Mean activation where it is active; 0 for a dead one."""
    largest: float
    decoder_norm: float
    monosemanticity: float | None
    """Squared correlation with one token or category, chosen on other text; None if too rare."""
    control: float | None
    """The same with its activations shuffled."""
    predictor: str | None
    """That token or category."""


@dataclasses.dataclass(frozen=True)
class DictionaryMeasurement:
    """How good a dictionary is, at reconstructing and at being read."""

    model: str
    site: str
    dictionary: dict[str, Any]
    """Architecture, size and source."""
    tokens: int
    """Held-out tokens read."""
    l0: float
    """Latents active per token."""
    fvu: float
    """Fraction of variance unexplained."""
    recovered: Recovered
    features: tuple[FeatureRow, ...]
    probing: tuple[ProbeRow, ...] = ()
    concepts: tuple[ConceptRow, ...] = ()
    """Splitting and absorption."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def dead(self) -> int:
        """Latents that are active at none of the tokens."""
        return sum(row.density == 0 for row in self.features)

    @property
    def living(self) -> int:
        """The others."""
        return len(self.features) - self.dead

    @property
    def monosemanticity(self) -> tuple[float, float, int]:
        """Mean score, mean of the shuffled control, and how many features were scored."""
        scored = [row for row in self.features if row.monosemanticity is not None]
        if not scored:
            return 0.0, 0.0, 0
        score = sum(row.monosemanticity or 0.0 for row in scored) / len(scored)
        control = sum(row.control or 0.0 for row in scored) / len(scored)
        return score, control, len(scored)

    def density_histogram(self, *, bins: int = 10) -> list[tuple[float, float, int]]:
        """(low, high, features) over the logarithm to base 10 of the density of living ones."""
        lowest = math.floor(math.log10(1 / max(2, self.tokens)))
        width = -lowest / bins
        counts = [0] * bins
        for row in self.features:
            if row.density > 0:
                place = int((math.log10(row.density) - lowest) / width)
                counts[min(bins - 1, max(0, place))] += 1
        return [
            (lowest + place * width, lowest + (place + 1) * width, count)
            for place, count in enumerate(counts)
        ]

    def summary(self) -> dict[str, Any]:
        """The numbers of the whole dictionary, flat."""
        score, control, scored = self.monosemanticity
        return {
            "l0": self.l0,
            "fvu": self.fvu,
            "ce_recovered_zero": self.recovered.against_zero,
            "ce_recovered_mean": self.recovered.against_mean,
            "latents": len(self.features),
            "living": self.living,
            "dead": self.dead,
            "monosemanticity": score,
            "monosemanticity_control": control,
            "features_scored": scored,
            "absorbed": self._mean_absorbed(),
            "tokens": self.tokens,
        }

    def _mean_absorbed(self) -> float | None:
        if not self.concepts:
            return None
        return sum(row.absorbed for row in self.concepts) / len(self.concepts)

    def to_frame(self) -> pd.DataFrame:
        """One line per feature, columns as in :class:`FeatureRow`."""
        return _frame(self.features, FeatureRow)

    def probing_frame(self) -> pd.DataFrame:
        """One line per task and number of features, columns as in :class:`ProbeRow`."""
        return _frame(self.probing, ProbeRow)

    def concepts_frame(self) -> pd.DataFrame:
        """One line per concept, columns as in :class:`ConceptRow`."""
        return _frame(self.concepts, ConceptRow)

    def plot(self) -> go.Figure:
        """Density, monosemanticity against its control, and sparse probing, side by side."""
        from ed_interp.probes.dictionaries.measurement_figure import measurement_figure

        return measurement_figure(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the shape of the command line's ``--json``."""
        return {
            "model": self.model,
            "site": self.site,
            "dictionary": self.dictionary,
            "summary": self.summary(),
            "recovered": dataclasses.asdict(self.recovered),
            "density": [list(bar) for bar in self.density_histogram()],
            "probing": [dataclasses.asdict(row) for row in self.probing],
            "concepts": [
                {**dataclasses.asdict(row), "features": list(row.features)} for row in self.concepts
            ],
            "settings": self.settings,
        }

    def to_json(self) -> str:
        """:meth:`to_dict` as strict JSON; the features themselves are in the Parquet table."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write ``run.json`` and ``features.parquet``; gives the folder's path.

        Raises:
            RunFolderError: ``folder`` exists (and not ``overwrite``) or cannot be written.
        """
        settings = {"kind": "dictionary measurement", **self.settings}
        with RunFolder.open(folder, settings, overwrite=overwrite, resumable=False) as run:
            data = {"format": FORMAT, "version": VERSION, **self.to_dict()}
            write_json(run.folder / "run.json", {**data, "environment": environment()})
            write_parquet(run.folder / "features.parquet", self.to_frame())
        return run.path

    @classmethod
    def load(cls, folder: str | Path) -> DictionaryMeasurement:
        """Read back what :meth:`save` wrote.

        Raises:
            RunFolderError: no such measurement is there, or it is damaged.
        """
        import pandas as pd

        place = Path(folder)
        try:
            data = json.loads((place / "run.json").read_text("utf-8"))
            if not isinstance(data, dict) or data.get("format") != FORMAT:
                raise InvalidInputError("its run.json is of another kind")
            if data.get("version") != VERSION:
                raise InvalidInputError(f"version {data.get('version')!r}, {VERSION} is read here")
            frame = pd.read_parquet(place / "features.parquet").astype(object)
            frame = frame.where(frame.notna(), None)
            return cls(
                model=data["model"],
                site=data["site"],
                dictionary=data["dictionary"],
                tokens=data["summary"]["tokens"],
                l0=data["summary"]["l0"],
                fvu=data["summary"]["fvu"],
                recovered=Recovered(**data["recovered"]),
                features=tuple(
                    FeatureRow(**{str(key): value for key, value in row.items()})
                    for row in frame.to_dict("records")
                ),
                probing=tuple(ProbeRow(**row) for row in data["probing"]),
                concepts=tuple(
                    ConceptRow(**{**row, "features": tuple(row["features"])})
                    for row in data["concepts"]
                ),
                settings=data["settings"],
            )
        except (OSError, KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise RunFolderError(f"{place} is no measurement of a dictionary: {reason}") from error

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{value:.4g}</td></tr>"
            for name, value in self.summary().items()
            if value is not None
        )
        return (
            f"<b>{html.escape(str(self.dictionary.get('architecture')))}</b> of "
            f"{html.escape(self.model)} at {html.escape(self.site)}<table>{cells}</table>"
        )


def _frame(rows: tuple[Any, ...], kind: type[Any]) -> pd.DataFrame:
    import pandas as pd

    columns = [field.name for field in dataclasses.fields(kind)]
    return pd.DataFrame([dataclasses.asdict(row) for row in rows], columns=columns)
