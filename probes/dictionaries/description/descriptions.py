"""`FeatureDescriptions`: everything that is shown about the features of a dictionary.

Columns over latents rather than one object each, so that 16,000 of them stay small (about 2 kB
each with the default sizes); :meth:`FeatureDescriptions.feature` gives one as a
:class:`FeatureCard`. Saved as one safetensors file and a JSON record.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ed_interp.errors import InvalidInputError
from ed_interp.probes.dictionaries.description.contexts import BEFORE, BIN_EDGES, NO_TOKEN

if TYPE_CHECKING:
    import pandas as pd

Columns = dict[str, NDArray[Any]]

NAMES = {
    "fired": "tokens at which the latent was active",
    "mean": "mean activation where active",
    "largest": "largest activation",
    "norm": "length of the decoder row",
    "histogram": "latent bin: counts of activations by strength",
    "context_ids": "latent context width: token ids, -1 for none",
    "context_values": "latent context width: activations",
    "context_peak": "latent context: activation at the peak",
    "promoted": "latent token: ids of the tokens that the decoder row promotes most",
    "promoted_by": "latent token: by how much, in units of logits before the final norm's division",
    "suppressed": "latent token: ids of the tokens that it suppresses most",
    "suppressed_by": "latent token: by how much",
    "nearest": "latent neighbour: latents with the most similar decoder rows",
    "cosine": "latent neighbour: cosine of the angle between the rows",
    "score": "monosemanticity on held-out text, NaN where too rarely active",
    "control": "the same with shuffled activations",
    "clamp_nats": "divergence of the next-token distribution when clamped, NaN if not measured",
    "clamp_tokens": "latent token: ids that gain most probability",
    "clamp_by": "latent token: gain in probability",
}
"""The columns, all ``latent ...``; `promoted` to `suppressed_by` and `clamp_*` may be missing."""


@dataclasses.dataclass(frozen=True)
class Context:
    """One place in the text where a feature is active."""

    tokens: tuple[str, ...]
    values: tuple[float, ...]
    """The feature's activation at each token."""
    peak: int
    """Index of the token with the highest activation."""


@dataclasses.dataclass(frozen=True)
class FeatureCard:
    """One feature, as a person reads it."""

    index: int
    name: str | None
    """The token or category that predicts it best; None where it was active too rarely."""
    density: float
    """Fraction of tokens at which it is active."""
    mean: float
    largest: float
    norm: float
    score: float
    """Monosemanticity (squared correlation with `name` on held-out text); NaN if not scored."""
    control: float
    contexts: tuple[Context, ...]
    promoted: tuple[tuple[str, float], ...]
    suppressed: tuple[tuple[str, float], ...]
    nearest: tuple[tuple[int, float], ...]
    clamp_nats: float
    """Divergence in nats when it is clamped to its largest activation; NaN if not measured."""
    clamp_tokens: tuple[tuple[str, float], ...]
    """Tokens that gain most probability then, and how much."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; None where something was not measured."""
        found = dataclasses.asdict(self)
        return {
            name: None if isinstance(value, float) and not np.isfinite(value) else value
            for name, value in found.items()
        }

    def _repr_html_(self) -> str:
        from ed_interp.probes.dictionaries.description.page import render_card

        return render_card(self)


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureDescriptions:
    """What :func:`~ed_interp.probes.dictionaries.description.describing.describe` found."""

    model: str
    site: str
    architecture: str
    tokens: int
    """Tokens of text that were read."""
    columns: Columns
    """See :data:`NAMES`."""
    names: tuple[str | None, ...]
    """Per latent the token or category that predicts it best; None where active too rarely."""
    token_texts: tuple[str, ...]
    """Of the vocabulary, by id."""
    settings: dict[str, Any]

    def __len__(self) -> int:
        return len(self.columns["fired"])

    def __repr__(self) -> str:
        return (
            f"FeatureDescriptions({len(self)} latents of {self.model} at {self.site}, "
            f"{self.tokens:,} tokens)"
        )

    @property
    def alive(self) -> int:
        """Latents that were active at least once."""
        return int((self.columns["fired"] > 0).sum())

    def feature(self, index: int) -> FeatureCard:
        """One feature.

        Raises:
            InvalidInputError: no such latent.
        """
        if not 0 <= index < len(self):
            raise InvalidInputError(f"feature {index}: this dictionary has 0 to {len(self) - 1}")
        row = {name: column[index] for name, column in self.columns.items()}
        return FeatureCard(
            index=index,
            name=self.names[index],
            density=float(row["fired"]) / self.tokens,
            mean=float(row["mean"]),
            largest=float(row["largest"]),
            norm=float(row["norm"]),
            score=float(row["score"]),
            control=float(row["control"]),
            contexts=self._contexts(row),
            promoted=self._named(row, "promoted"),
            suppressed=self._named(row, "suppressed"),
            nearest=tuple(
                (int(other), float(cosine))
                for other, cosine in zip(row["nearest"], row["cosine"], strict=True)
            ),
            clamp_nats=float(row.get("clamp_nats", np.nan)),
            clamp_tokens=self._named(row, "clamp") if row["fired"] else (),
        )

    def _contexts(self, row: dict[str, Any]) -> tuple[Context, ...]:
        found = []
        rows = zip(row["context_ids"], row["context_values"], row["context_peak"], strict=True)
        for ids, values, peak in rows:
            if peak > 0:
                there = ids != NO_TOKEN
                texts = tuple(self.token_texts[token] for token in ids[there])
                strengths = tuple(float(value) for value in values[there])
                found.append(Context(texts, strengths, int(there[:BEFORE].sum())))
        return tuple(found)

    def _named(self, row: dict[str, Any], what: str) -> tuple[tuple[str, float], ...]:
        ids = row.get("clamp_tokens" if what == "clamp" else what)
        if ids is None:
            return ()
        by = row[f"{what}_by"]
        pairs = zip(ids, by, strict=True)
        return tuple((self.token_texts[token], float(value)) for token, value in pairs)

    def to_frame(self) -> pd.DataFrame:
        """One row per latent: ``feature``, ``name``, ``density``, ``mean``, ``norm``, ..."""
        import pandas as pd

        columns = self.columns
        return pd.DataFrame(
            {
                "feature": np.arange(len(self)),
                "name": list(self.names),
                "density": columns["fired"] / self.tokens,
                "mean": columns["mean"],
                "largest": columns["largest"],
                "norm": columns["norm"],
                "score": columns["score"],
                "control": columns["control"],
                "clamp_nats": columns.get("clamp_nats", np.full(len(self), np.nan)),
            }
        )

    def page(self) -> str:
        """One self-contained HTML page that opens offline."""
        from ed_interp.probes.dictionaries.description.page import render_page

        return render_page(self)

    def write_page(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write :meth:`page` to a file, whole or not at all; gives its path.

        Raises:
            RunFolderError: it exists (and not ``overwrite``), or cannot be written.
        """
        from ed_interp.errors import RunFolderError
        from ed_interp.records import write_text

        target = Path(path).expanduser()
        if target.exists() and not overwrite:
            raise RunFolderError(f"{target} exists; choose another file, or pass overwrite=True")
        return write_text(target, self.page())

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write a folder that :meth:`load` reads, with the page in it; gives its path.

        Raises:
            RunFolderError: ``folder`` exists (and not ``overwrite``) or cannot be written.
        """
        from ed_interp.probes.dictionaries.description.files import save_descriptions

        return save_descriptions(self, Path(folder), overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | Path) -> FeatureDescriptions:
        """Read back what :meth:`save` wrote.

        Raises:
            RunFolderError: nothing there, or something else, or damaged.
        """
        from ed_interp.probes.dictionaries.description.files import load_descriptions

        return load_descriptions(Path(folder))

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        best = frame.sort_values("score", ascending=False).head(10)
        table = best.to_html(index=False, float_format=lambda value: f"{value:.3g}", border=0)
        return f"<p>{self!r}, {self.alive} active; the ten of highest score:</p>{table}"


def shown_bins(histogram: NDArray[np.integer[Any]]) -> tuple[int, int]:
    """First and last bin (exclusive) of :data:`BIN_EDGES` in which any latent has a count."""
    used = np.flatnonzero(histogram.sum(0))
    if not len(used):
        return 0, len(BIN_EDGES) - 1
    return int(used[0]), int(used[-1]) + 1
