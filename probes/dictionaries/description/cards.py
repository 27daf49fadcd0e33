"""One feature as a person reads it: as data, in a notebook, and in the terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ed_interp.tables import Table


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
