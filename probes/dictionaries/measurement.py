"""`DictionaryMeasurement`: what was measured of a dictionary.

Made by :func:`~ed_interp.probes.dictionaries.measuring.measure`. Importing this imports nothing
heavy.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, ClassVar

from ed_interp.charts.spec import Chart
from ed_interp.probes.dictionaries.charts import measurement_chart
from ed_interp.probes.dictionaries.results import ReaderResult
from ed_interp.probes.dictionaries.rows import ConceptRow, ProbeRow, Recovered
from ed_interp.tables import Table, plain_table

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True, eq=False)
class DictionaryMeasurement(ReaderResult):
    """How good a dictionary is, at reconstructing and at being read."""

    KIND: ClassVar[str] = "dictionary-measurement"
    SIDE: ClassVar[tuple[str, ...]] = ("features",)

    model: str
    site: str
    dictionary: dict[str, Any]
    """Architecture, size and source."""
    tokens: int
    """Number of held-out tokens read."""
    l0: float
    """Mean number of active latents per token."""
    fvu: float
    """Fraction of variance unexplained."""
    recovered: Recovered
    probing: tuple[ProbeRow, ...] = ()
    concepts: tuple[ConceptRow, ...] = ()
    """Splitting and absorption."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    features: Any = None
    """A DataFrame with a row per latent. ``feature``: its number. ``density``: share of the tokens
    at which it is active. ``mean_active``, ``largest``: its activation where it is active (0 if
    never). ``decoder_norm``. ``monosemanticity``: squared correlation with one token or category
    on other text than the one it was chosen on (missing if active too rarely). ``control``: the
    same with its activations shuffled. ``predictor``: that token or category."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with the summary and a histogram of the features."""
        # Both are derived, for readers of the JSON who do not open the table of features.
        density = [list(bar) for bar in self.density_histogram()]
        return {**super().to_dict(), "summary": self.summary(), "density": density}

    @classmethod
    def upgrade(cls, data: dict[str, Any], version: int) -> dict[str, Any]:
        """Drop what is derived; older files hold three of the numbers in the summary only."""
        derived = data.pop("summary", {})
        data.pop("density", None)
        return {
            **{name: derived[name] for name in ("tokens", "l0", "fvu") if name in derived},
            **data,
        }

    @property
    def dead(self) -> int:
        """Number of latents that are never active."""
        return int((self.features["density"] == 0).sum())

    @property
    def living(self) -> int:
        """Number of the others."""
        return len(self.features) - self.dead

    @property
    def monosemanticity(self) -> tuple[float, float, int]:
        """Mean score, mean of the shuffled control, and number of features scored."""
        # A feature that was too rare to be scored must not count as 0.
        scored = self.features[["monosemanticity", "control"]].dropna()
        if scored.empty:
            return 0.0, 0.0, 0
        score, control = (float(sum(scored[name]) / len(scored)) for name in scored)
        return score, control, len(scored)

    def density_histogram(self, *, bins: int = 10) -> list[tuple[float, float, int]]:
        """(low, high, features) over the logarithm to base 10 of the density of living ones."""
        # From a single token of the text, the lowest density there can be, to every token.
        lowest = math.floor(math.log10(1 / max(2, self.tokens)))
        width = -lowest / bins
        counts = [0] * bins
        for density in self.features["density"]:
            if density > 0:
                place = int((math.log10(density) - lowest) / width)
                # Rounding can put the lowest and the highest density just outside.
                counts[min(bins - 1, max(0, place))] += 1
        return [
            (lowest + place * width, lowest + (place + 1) * width, count)
            for place, count in enumerate(counts)
        ]

    def summary(self) -> dict[str, Any]:
        """The numbers of the whole dictionary, flat."""
        score, control, scored = self.monosemanticity
        absorbed = [row.absorbed for row in self.concepts]
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
            "absorbed": sum(absorbed) / len(absorbed) if absorbed else None,
            "tokens": self.tokens,
        }

    def to_frame(self, table: str = "features") -> pd.DataFrame:
        """One line per feature; of ``probing`` and ``concepts`` one per row."""
        frame: pd.DataFrame = self.features
        return frame if table in ("", "features") else super().to_frame(table)

    def title(self) -> str:
        kind = self.dictionary.get("trained_as") or self.dictionary.get("architecture")
        return f"{kind} dictionary of {self.model} at {self.site}"

    def headline(self) -> str:
        kept = self.recovered
        return (
            f"With {self.l0:.1f} of {len(self.features):,} latents active per token, "
            f"{1 - self.fvu:.1%} of the variance is explained and {kept.against_mean:.1%} of the "
            f"cross-entropy recovered against the mean state; {self.dead:,} latents are dead."
        )

    def how(self) -> str:
        return (
            f"{self.tokens:,} held-out tokens were encoded, {self.recovered.tokens:,} predicted. "
            "Cross-entropy recovered is 1 if replacing the stream by the reconstruction costs "
            "nothing, and 0 if it is as bad as replacing it by zero or by the mean state; its "
            "intervals are 95% bootstrap intervals over windows of text. A token is absorbed if a "
            "probe recognises the category there, none of the category's features is active, and "
            "another feature carries it."
        )

    def tables(self) -> list[Table]:
        tables = [self._numbers()]
        if self.probing:
            tables.append(self._probing())
        if self.concepts:
            tables.append(self._concepts())
        return tables

    def _numbers(self) -> Table:
        kept = self.recovered
        score, control, scored = self.monosemanticity
        rows = [
            ("L0, active latents per token", f"{self.l0:.1f}"),
            ("fraction of variance unexplained", f"{self.fvu:.4f}"),
        ]
        for name in ("zero", "mean"):
            value, low, high = (
                getattr(kept, f"against_{name}{end}") for end in ("", "_low", "_high")
            )
            label = f"cross-entropy recovered, of {name} ablation"
            rows.append((label, f"{value:.4f} ({low:.4f} to {high:.4f})"))
        rows += [
            ("living and dead latents", f"{self.living} and {self.dead}"),
            (f"monosemanticity of {scored} latents (shuffled)", f"{score:.3f} ({control:.3f})"),
        ]
        if self.concepts:
            features = sum(len(row.features) for row in self.concepts) / len(self.concepts)
            rows.append(("features per category", f"{features:.1f}"))
            rows.append(("tokens absorbed, per category", f"{self.summary()['absorbed']:.3f}"))
        notes = (f"{self.tokens:,} held-out tokens; {kept.tokens:,} predicted",)
        return Table(name="numbers", caption="", heads=("", ""), rows=rows, notes=notes)

    def _probing(self) -> Table:
        counts = sorted({row.features for row in self.probing})
        rows = []
        for task in dict.fromkeys(row.task for row in self.probing):
            same = sorted((r for r in self.probing if r.task == task), key=lambda r: r.features)
            values = [*(row.accuracy for row in same), same[0].dense, same[0].chance]
            rows.append((task, *(f"{value:.2f}" for value in values)))
        heads = ("accuracy with k features", *map(str, counts), "all channels", "chance")
        return Table(name="probing", caption="Sparse probing", heads=heads, rows=rows)

    def _concepts(self) -> Table:
        heads = {"concept": "category", "f1_one": "F1 of one", "f1": "F1", "n": "tokens"}
        return plain_table(
            "concepts",
            "Splitting and absorption",
            self.concepts,
            heads={**heads, "f1_dense": "F1 of all channels"},
            formats={"missed": ".3f", "absorbed": ".3f"},
            number=".2f",
        )

    def charts(self) -> list[Chart]:
        numbers = self.summary()
        below = (
            f"L0 {self.l0:.1f}, FVU {self.fvu:.3f}, cross-entropy recovered "
            f"{numbers['ce_recovered_zero']:.3f} (zero), {numbers['ce_recovered_mean']:.3f} "
            f"(mean), {self.dead} dead"
        )
        scores = self.features[["monosemanticity", "control"]].dropna().to_numpy().tolist()
        bars = self.density_histogram(bins=24)
        return [measurement_chart(self.title(), below, bars, scores, self.probing)]
