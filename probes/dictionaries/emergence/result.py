"""`FeatureEmergence`: how many features, and which, over shots and training checkpoints."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from ed_interp.charts.spec import Chart
from ed_interp.probes.dictionaries.charts import emergence_chart, label, steps_of
from ed_interp.probes.dictionaries.record import ReaderResult
from ed_interp.probes.dictionaries.rows import FeatureEmergenceRow
from ed_interp.tables import Table


@dataclasses.dataclass(frozen=True)
class FeatureEmergence(ReaderResult):
    """Made by :func:`~ed_interp.probes.dictionaries.emergence.following.feature_emergence`."""

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
        return steps_of(self.rows)

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
            rows.append((label(row.step), *counts, *quality, top, new))
        numbers = ("shots", "informative", "best bits", "active", "L0", "FVU")
        return [
            Table(
                name="features",
                caption="Features per checkpoint and shots",
                heads=("model", *numbers, "most informative (bits)", "new"),
                rows=rows,
                text=frozenset({7, 8}),
            )
        ]

    def charts(self) -> list[Chart]:
        entropy, about = self.label_entropy, self.about
        return [emergence_chart(self.title(), self.headline(), self.rows, entropy, about)]
