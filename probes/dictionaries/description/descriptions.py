"""`FeatureDescriptions`: everything that is shown about the features of a dictionary.

Columns over latents rather than one object each, so that 16,000 of them stay small (about 2 kB
each with the default sizes); :meth:`FeatureDescriptions.feature` makes one a :class:`FeatureCard`.
A folder holds one file of tensors, a JSON record and the page.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ed_interp.errors import InvalidInputError, OptionError, RunFolderError
from ed_interp.probes.dictionaries.description.contexts import BEFORE, NO_TOKEN
from ed_interp.probes.dictionaries.description.page import page_data
from ed_interp.probes.dictionaries.results import ReaderResult
from ed_interp.records import tensors
from ed_interp.records.files import write_text
from ed_interp.report import flattened
from ed_interp.report import page as rendered
from ed_interp.results import Result
from ed_interp.tables import Table

if TYPE_CHECKING:
    import pandas as pd

NAMES = {
    "fired": "number of tokens at which the latent was active",
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
    "score": "monosemanticity on held-out text, NaN if too rarely active",
    "control": "the same with shuffled activations",
    "clamp_nats": "divergence of the next-token distribution when clamped, NaN if not measured",
    "clamp_tokens": "latent token: ids that gain most probability",
    "clamp_by": "latent token: gain in probability",
}
"""The columns, all ``latent ...``; `promoted` to `suppressed_by` and `clamp_*` may be missing."""

_ARRAYS = "descriptions.safetensors"
_BEST = 15


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
    """One feature."""

    index: int
    name: str | None
    """The token or category that predicts it best; None if it was active too rarely."""
    density: float
    """Share of tokens at which it is active."""
    mean: float
    """Mean activation where it is active."""
    largest: float
    norm: float
    """Length of its decoder row."""
    score: float | None
    """Monosemanticity: squared correlation with `name` on held-out text; None if not scored."""
    control: float | None
    """The same with shuffled activations."""
    contexts: tuple[Context, ...]
    promoted: tuple[tuple[str, float], ...]
    """Tokens that the decoder row promotes most."""
    suppressed: tuple[tuple[str, float], ...]
    nearest: tuple[tuple[int, float], ...]
    """Latents with the most similar decoder rows, and the cosine."""
    clamp_nats: float | None
    """Divergence in nats when clamped to its largest activation; None if not measured."""
    clamp_tokens: tuple[tuple[str, float], ...]
    """Tokens that gain most probability then, and how much."""

    def tables(self) -> list[Table]:
        """The numbers of the feature, then its contexts with the peak in brackets."""
        caption = f"Feature {self.index}: {shown(self.name or 'no name')}"
        # All other numbers of a silent feature are 0 and say nothing.
        if not self.density:
            rows: list[tuple[str, str]] = [("active", "never in this text")]
        else:
            rows = [
                ("active", f"at {100 * self.density:.3g}% of tokens"),
                ("activation", f"mean {self.mean:.3g}, largest {self.largest:.3g}"),
                ("decoder norm", f"{self.norm:.3g}"),
                ("score (shuffled)", f"{_number(self.score)} ({_number(self.control)})"),
            ]
        if self.clamp_nats is not None:
            moved = f"next token moves {self.clamp_nats:.3g} nats; raises "
            rows.append(("clamped", moved + _listed(self.clamp_tokens)))
        if self.promoted:
            rows.append(("promotes", _listed(self.promoted)))
            rows.append(("suppresses", _listed(self.suppressed)))
        nearest = ", ".join(f"{index} ({cosine:.2f})" for index, cosine in self.nearest)
        rows.append(("nearest", nearest))
        tables = [_pairs(f"feature-{self.index}", caption, rows)]
        if self.contexts:
            lines = [(f"{max(c.values):.3g}", _marked(c)) for c in self.contexts]
            tables.append(_pairs(f"contexts-{self.index}", "Strongest contexts", lines))
        return tables

    def _repr_html_(self) -> str:
        """For notebooks: no script, and colours that suit both themes."""
        from markupsafe import escape

        promoted = ", ".join(f"<code>{escape(text)}</code>" for text, _ in self.promoted)
        lines = [
            f"<b>feature {self.index}</b> {escape(self.name or 'no name')}",
            f"density {self.density:.3g}, largest {self.largest:.3g}, score {_number(self.score)}",
            f"promotes {promoted}",
        ]
        for context in self.contexts:
            top = max(context.values, default=1.0) or 1.0
            spans = (
                # Translucent, so that it can be read on a white and on a dark page.
                f'<span style="background:rgba(110,140,255,{0.6 * value / top:.2f})">'
                f"{escape(shown(text))}</span>"
                for text, value in zip(context.tokens, context.values, strict=True)
            )
            lines.append("".join(spans))
        return "<br>".join(lines)


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureDescriptions(ReaderResult):
    """Made by :func:`~ed_interp.probes.dictionaries.description.describing.describe`."""

    KIND: ClassVar[str] = "feature-descriptions"
    VERSION: ClassVar[int] = 2  # version 1 had no digest of the arrays
    # Kept out of the JSON; written here as tensors and not as Parquet.
    SIDE: ClassVar[tuple[str, ...]] = ("columns",)

    model: str
    site: str
    architecture: str
    tokens: int
    """Number of tokens of text that were read."""
    names: tuple[str | None, ...]
    """Per latent the token or category that predicts it best; None if active too rarely."""
    token_texts: tuple[str, ...]
    """Text of every token of the vocabulary, by id."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    columns: Any = dataclasses.field(default_factory=dict)
    """See :data:`NAMES`."""

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return (
            f"FeatureDescriptions({len(self)} latents of {self.model} at {self.site}, "
            f"{self.tokens:,} tokens)"
        )

    @property
    def alive(self) -> int:
        """Number of latents that were active at least once."""
        return int((self.columns["fired"] > 0).sum())

    def feature(self, index: int) -> FeatureCard:
        """One feature.

        Raises:
            InvalidInputError: no such latent.
        """
        if not 0 <= index < len(self):
            problem = f"must be 0 to {len(self) - 1} in this dictionary, got {index}"
            raise OptionError("feature", problem)
        row = {name: column[index] for name, column in self.columns.items()}
        return FeatureCard(
            index=index,
            name=self.names[index],
            density=float(row["fired"]) / self.tokens,
            mean=float(row["mean"]),
            largest=float(row["largest"]),
            norm=float(row["norm"]),
            score=_or_none(row["score"]),
            control=_or_none(row["control"]),
            contexts=self._contexts(row),
            promoted=self._named(row, "promoted", "promoted_by"),
            suppressed=self._named(row, "suppressed", "suppressed_by"),
            nearest=tuple(zip(row["nearest"].tolist(), row["cosine"].tolist(), strict=True)),
            clamp_nats=_or_none(row.get("clamp_nats", math.nan)),
            clamp_tokens=self._named(row, "clamp_tokens", "clamp_by") if row["fired"] else (),
        )

    def _contexts(self, row: dict[str, Any]) -> tuple[Context, ...]:
        contexts = []
        rows = zip(row["context_ids"], row["context_values"], row["context_peak"], strict=True)
        for ids, values, peak in rows:
            if peak > 0:
                present = ids != NO_TOKEN
                texts = tuple(self.token_texts[token] for token in ids[present])
                strengths = tuple(float(value) for value in values[present])
                # The peak is in column BEFORE, less what is missing in front of it.
                contexts.append(Context(texts, strengths, int(present[:BEFORE].sum())))
        return tuple(contexts)

    def _named(self, row: dict[str, Any], ids: str, by: str) -> tuple[tuple[str, float], ...]:
        if ids not in row:
            return ()
        pairs = zip(row[ids], row[by], strict=True)
        return tuple((self.token_texts[token], float(value)) for token, value in pairs)

    def to_frame(self, table: str = "") -> pd.DataFrame:
        """One row per latent: ``feature``, ``name``, ``density``, ``mean``, ``norm``, ..."""
        import pandas as pd

        names = ("mean", "largest", "norm", "score", "control", "clamp_nats")
        missing = np.full(len(self), np.nan)
        return pd.DataFrame(
            {
                "feature": np.arange(len(self)),
                "name": list(self.names),
                "density": self.columns["fired"] / self.tokens,
                **{name: self.columns.get(name, missing) for name in names},
            }
        )

    def title(self) -> str:
        return f"Features of {self.model} at {self.site}"

    def headline(self) -> str:
        return (
            f"{self.architecture} dictionary of {len(self):,} latents, {self.alive:,} of them "
            f"active in {self.tokens:,} tokens."
        )

    def tables(self) -> list[Table]:
        # Every feature is on the page; a terminal has room for the best.
        best = self.to_frame().sort_values("score", ascending=False).head(_BEST)
        rows = [
            (
                str(row["feature"]),
                shown(row["name"] or "none"),
                f"{row['density']:.4f}",
                f"{row['score']:.3f}",
                f"{row['clamp_nats']:.3g}",
            )
            for row in best.to_dict("records")
        ]
        return [
            Table(
                name="best",
                caption=f"The {len(rows)} features of highest score",
                heads=("feature", "best predicted by", "density", "score", "clamped, nats"),
                rows=rows,
                text=frozenset({1}),
            )
        ]

    def page(self) -> str:
        """One self-contained HTML page that opens offline."""
        return rendered(
            "features.html.j2",
            title=self.title(),
            headline=f"{self.headline()} {self.cautions()}",
            data=page_data(self.tokens, self.columns, self.names, self.token_texts),
            clamped="clamp_nats" in self.columns,
            settings=flattened(self.settings),
        )

    def write_page(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write :meth:`page` to a file, whole or not at all; returns its path.

        Raises:
            RunFolderError: it exists (and not ``overwrite``), or cannot be written.
        """
        target = Path(path).expanduser()
        if target.exists() and not overwrite:
            raise RunFolderError(f"{target} exists; pass another path, or overwrite (--overwrite)")
        return write_text(target, self.page())

    def write(self, folder: Path) -> None:
        """Write the record, the arrays and the page of features into a folder that exists."""
        self.write_record(folder)
        write_text(folder / "report.html", self.page())

    def write_record(self, folder: Path) -> None:
        """Write the record and the arrays."""
        import torch

        # Without the columns, which have a file of tensors and not of rows.
        Result.write_record(dataclasses.replace(self, columns=None), folder)
        arrays = {name: torch.from_numpy(column) for name, column in self.columns.items()}
        tensors.write(folder / _ARRAYS, arrays, kind=self.KIND)

    @classmethod
    def _from_file(cls, file: Path, data: Any) -> FeatureDescriptions:
        record = super()._from_file(file, data)
        path = file.with_name(_ARRAYS)
        try:
            if data["version"] == 1:
                arrays, _ = tensors.read_unchecked(path)
            else:
                arrays, _ = tensors.read(path, kind=cls.KIND)
        except InvalidInputError as error:
            raise RunFolderError(f"{error}; describe the features again") from error
        # A folder that was put together by hand would fail only when a feature is looked at.
        unknown = set(arrays) - set(NAMES)
        if unknown or any(len(array) != len(record) for array in arrays.values()):
            raise RunFolderError(f"{path} does not fit its record; describe the features again")
        columns = {name: array.numpy() for name, array in arrays.items()}
        return dataclasses.replace(record, columns=columns)


def _or_none(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)


def shown(text: str) -> str:
    """A token as it can stand in a line."""
    return text.replace("\n", "↵").replace("\t", "⇥")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def _listed(tokens: Sequence[tuple[str, float]]) -> str:
    return " ".join(shown(text).strip() or repr(text) for text, _ in tokens)


def _marked(context: Context) -> str:
    texts = [shown(text) for text in context.tokens]
    # Brackets and not colour: they survive a pipe, and every reader can see them.
    texts[context.peak] = f"[{texts[context.peak]}]"
    return "".join(texts)


def _pairs(name: str, caption: str, rows: Sequence[tuple[str, str]]) -> Table:
    return Table(name=name, caption=caption, heads=("", ""), rows=rows, text=frozenset({1}))
