"""Detection and fuzzing scores of explanations, on held-out text, without a judge model.

Paulo, Mallen, Juang, Belrose: "Automatically Interpreting Millions of Features in Large Language
Models" (arXiv 2410.13928) ask a language model; here the explanation itself predicts:

- detection: does the explanation tell contexts in which the feature is active from contexts in
  which it is not? The area under the ROC curve of the highest prediction in a context.
- fuzzing: in contexts where it is active, does it tell the active tokens from as many others of the
  same contexts? The area under the ROC curve of the prediction at the token.

Both are 0.5 by chance. The control scores each feature by the explanation of another one, drawn at
random. Examples come from one half of the text, scores from the other.
Cost: one reading of the text; then about a millisecond per feature with the built-in explainer.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import rankdata

from ed_interp.errors import InvalidInputError
from ed_interp.models.load import load as load_model
from ed_interp.models.sites import Site
from ed_interp.probes.dictionaries.categories import token_categories, token_texts
from ed_interp.probes.dictionaries.interpretation.explaining import (
    Examples,
    Explainer,
    Explanation,
    by_tokens,
)
from ed_interp.probes.dictionaries.loading import load
from ed_interp.probes.dictionaries.observation import Observation, observe
from ed_interp.probes.dictionaries.text import (
    TextSource,
    Windows,
    default_window,
    text_source,
)
from ed_interp.progress import Progress, track

if TYPE_CHECKING:
    import pandas as pd

LEAST_FIRED = 10
"""A feature that is active in fewer windows of either half is not scored."""


@dataclasses.dataclass(frozen=True, slots=True)
class InterpretationRow:
    """One feature's explanation and how well it predicts, as areas under ROC curves."""

    feature: int
    text: str
    detection: float
    detection_control: float
    """With the explanation of another feature."""
    fuzzing: float
    fuzzing_control: float
    contexts: int
    """Held-out contexts with the feature active; as many without it were used."""


@dataclasses.dataclass(frozen=True)
class Interpretations:
    """Made by :func:`score_explanations`."""

    model: str
    site: str
    rows: tuple[InterpretationRow, ...]
    skipped: int
    """Features that were active too rarely to be scored."""
    settings: dict[str, Any]

    def to_frame(self) -> pd.DataFrame:
        """One line per feature, columns as in :class:`InterpretationRow`."""
        import pandas as pd

        return pd.DataFrame(
            [dataclasses.asdict(row) for row in self.rows],
            columns=[field.name for field in dataclasses.fields(InterpretationRow)],
        )

    def means(self) -> dict[str, float]:
        """Mean scores and controls over features; NaN if none was scored."""
        names = ("detection", "detection_control", "fuzzing", "fuzzing_control")
        frame = self.to_frame()
        return {name: float(frame[name].mean()) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the shape of the command line's ``--json``."""
        means = {k: None if v != v else v for k, v in self.means().items()}
        return {**dataclasses.asdict(self), "means": means}

    def save(self, path: str | Path) -> Path:
        """Write :meth:`to_dict` as one JSON file, whole or not at all.

        Raises:
            RunFolderError: it cannot be written.
        """
        from ed_interp.records import write_json

        return write_json(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Interpretations:
        """Read back what :meth:`save` wrote.

        Raises:
            InvalidInputError: the file is something else.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            rows = tuple(InterpretationRow(**row) for row in data["rows"])
            return cls(data["model"], data["site"], rows, data["skipped"], data["settings"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise InvalidInputError(f"{path} holds no interpretation scores ({reason})") from error

    def _repr_html_(self) -> str:
        frame = self.to_frame().sort_values("detection", ascending=False).head(20)
        means = ", ".join(f"{name} {value:.2f}" for name, value in self.means().items())
        return f"<p>{len(self.rows)} features: {means}</p>" + frame.to_html(index=False, border=0)


def score_explanations(
    dictionary: Any,
    model: Any = None,
    *,
    explain: Explainer = by_tokens,
    features: Sequence[int] | None = None,
    text: str | Path | Sequence[str] | TextSource | None = None,
    tokens: int = 100_000,
    contexts: int = 50,
    window: int | None = None,
    site: str | Site | None = None,
    seed: int = 0,
    progress: Progress = None,
) -> Interpretations:
    """Explain features and score the explanations on held-out contexts.

    Args:
        dictionary: Anything :func:`~ed_interp.probes.dictionaries.loading.load` takes.
        model: Anything :func:`ed_interp.load` takes; default the one it was trained on, by name.
        explain: From examples to an explanation; see :mod:`.explaining`.
        features: Which; default all.
        text: As for training, whose held-out part is used; default the generated text.
        tokens: To read; one half gives examples, the other is scored on.
        contexts: Held-out contexts per feature with it active, and as many without.
        window: Tokens of a context; default 32, or the model's context.
        site: If not the dictionary's own.
        seed: Of the text, the sampled contexts and the control.
        progress: True for bars on stderr, or a callable ``(done, total, what)``.

    Raises:
        InvalidInputError: no such feature, a dictionary that does not fit, or an explanation that
            predicts another number of tokens than it was given.
    """
    found = load(dictionary)
    if model is None and found.model_name is None:
        raise InvalidInputError("this dictionary names no model; pass one as the second argument")
    hooked = load_model(found.model_name if model is None else model)
    chosen = list(range(found.latents)) if features is None else list(features)
    for feature in chosen:
        if not 0 <= feature < found.latents:
            raise InvalidInputError(
                f"feature {feature}: this dictionary has 0 to {found.latents - 1}"
            )
    place = found.check(hooked, at=site)
    source = text_source(text)
    size = min(32, default_window(hooked)) if window is None else window
    windows = Windows(source, hooked, window=size)
    held = windows.once("held-out", seed=seed, tokens=tokens)
    observed = observe(found, hooked, held, site=place, skip=len(windows.prefix), progress=progress)
    texts = token_texts(hooked.tokenizer)
    shown, scored = _Half(observed, texts, odd=False), _Half(observed, texts, odd=True)
    categories = token_categories(texts)
    scoreable = [
        feature
        for feature in chosen
        if min(len(shown.windows_of(feature)), len(scored.windows_of(feature))) >= LEAST_FIRED
    ]
    with track(progress, "explaining features", len(scoreable)) as advance:
        explanations = []
        for feature in scoreable:
            explanations.append(explain(shown.examples(feature, contexts, categories)))
            advance(1)
    rng = np.random.default_rng(seed)
    # A cyclic shift by a random amount gives each feature another one's explanation.
    shift = int(rng.integers(1, max(2, len(scoreable))))
    rows = []
    with track(progress, "scoring explanations", len(scoreable)) as advance:
        for number, feature in enumerate(scoreable):
            other = explanations[(number + shift) % len(scoreable)]
            sample = scored.sample(feature, contexts, np.random.default_rng((seed, feature)))
            own, control = (_scores(one, sample, feature) for one in (explanations[number], other))
            rows.append(
                InterpretationRow(
                    feature,
                    explanations[number].text,
                    own[0],
                    control[0],
                    own[1],
                    control[1],
                    len(sample.active),
                )
            )
            advance(1)
    return Interpretations(
        model=hooked.name,
        site=place.name,
        rows=tuple(rows),
        skipped=len(chosen) - len(scoreable),
        settings={
            "dictionary": {**found.describe(), "source": found.source},
            "model": hooked.describe(),
            "text": source.describe(),
            "tokens": tokens,
            "contexts": contexts,
            "window": size,
            "seed": seed,
            "explainer": getattr(explain, "__name__", type(explain).__name__),
        },
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Sample:
    """Held-out contexts of one feature."""

    active: list[tuple[list[str], NDArray[np.float32]]]
    """Tokens and the feature's activations, of contexts in which it is active."""
    silent: list[list[str]]
    marks: list[tuple[NDArray[np.int64], NDArray[np.int64]]]
    """Per active context: its active tokens, and as many others."""


class _Half:
    """Every other window of the text, by feature."""

    def __init__(self, observed: Observation, texts: list[str], *, odd: bool) -> None:
        chosen = np.flatnonzero(observed.window % 2 == int(odd))
        self._texts = texts
        self._ids = observed.ids[chosen]
        self._activations = sparse.csc_array(observed.activations[chosen])
        windows = observed.window[chosen]
        self._starts = np.flatnonzero(np.diff(windows, prepend=-1))
        self._window = np.cumsum(np.diff(windows, prepend=windows[:1]) != 0)

    def _column(self, feature: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        span = slice(*self._activations.indptr[feature : feature + 2])
        return self._activations.indices[span].astype(np.int64), self._activations.data[span]

    def windows_of(self, feature: int) -> NDArray[np.int64]:
        """Numbers of the windows in which it is active."""
        return np.unique(self._window[self._column(feature)[0]])

    def _tokens(self, window: int) -> slice:
        ends = [*self._starts[1:], len(self._ids)]
        return slice(int(self._starts[window]), int(ends[window]))

    def _context(self, window: int, feature: int) -> tuple[list[str], NDArray[np.float32]]:
        span = self._tokens(window)
        rows, values = self._column(feature)
        dense = np.zeros(span.stop - span.start, dtype=np.float32)
        inside = (rows >= span.start) & (rows < span.stop)
        dense[rows[inside] - span.start] = values[inside]
        return [self._texts[token] for token in self._ids[span]], dense

    def examples(
        self, feature: int, count: int, categories: dict[str, tuple[int, ...]]
    ) -> Examples:
        rows, values = self._column(feature)
        mass = np.bincount(self._ids[rows], weights=values, minlength=len(self._texts))
        seen = np.bincount(self._ids, minlength=len(self._texts))
        strongest: dict[int, None] = {}
        for row in rows[np.argsort(-values, kind="stable")]:
            strongest[int(self._window[row])] = None
            if len(strongest) == count:
                break
        found = [self._context(window, feature) for window in strongest]
        return Examples(
            feature=feature,
            contexts=tuple(tuple(tokens) for tokens, _ in found),
            activations=tuple(tuple(map(float, dense)) for _, dense in found),
            occurrences=seen,
            mass=mass.astype(np.float64),
            token_texts=self._texts,
            categories=categories,
        )

    def sample(self, feature: int, count: int, rng: np.random.Generator) -> _Sample:
        with_it = self.windows_of(feature)
        without = np.setdiff1d(np.arange(len(self._starts)), with_it)
        active, marks = [], []
        for window in rng.permutation(with_it)[:count]:
            tokens, dense = self._context(int(window), feature)
            on, off = np.flatnonzero(dense), np.flatnonzero(dense == 0)
            active.append((tokens, dense))
            marks.append((on, rng.permutation(off)[: len(on)]))
        silent = [self._context(int(w), feature)[0] for w in rng.permutation(without)[:count]]
        return _Sample(active, silent, marks)


def _scores(explanation: Explanation, sample: _Sample, feature: int) -> tuple[float, float]:
    predicted = [_predicted(explanation, tokens, feature) for tokens, _ in sample.active]
    silent = [_predicted(explanation, tokens, feature) for tokens in sample.silent]
    detection = area_under_curve(
        np.array([values.max() for values in predicted]),
        np.array([values.max() for values in silent]),
    )
    marked = [values[on] for values, (on, _) in zip(predicted, sample.marks, strict=True)]
    other = [values[off] for values, (_, off) in zip(predicted, sample.marks, strict=True)]
    return detection, area_under_curve(np.concatenate(marked), np.concatenate(other))


def _predicted(explanation: Explanation, tokens: list[str], feature: int) -> NDArray[np.float64]:
    values = np.asarray(explanation.predict(tokens), dtype=np.float64)
    if values.shape != (len(tokens),) or not np.isfinite(values).all():
        raise InvalidInputError(
            f"the explanation of feature {feature} predicted {values.shape} for {len(tokens)} "
            "tokens; one finite number per token is expected"
        )
    return values


def area_under_curve(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """Probability that a positive scores above a negative, ties counting half (Mann-Whitney).

    0.5 where either is empty.
    """
    if not len(positive) or not len(negative):
        return 0.5
    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)]
    least = len(positive) * (len(positive) + 1) / 2
    return float((ranks.sum() - least) / (len(positive) * len(negative)))
