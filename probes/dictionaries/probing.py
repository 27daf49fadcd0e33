"""Sparse probing, splitting and absorption: how few features predict the class of a labelled input.

For every task the states of its inputs are encoded, the k features that differ most between the
classes (largest F of a one-way analysis of variance) are chosen, and a logistic regression on them
alone predicts the class; choice and fit see the training folds only. For comparison: the same on
all channels of the raw states, and the share of the most common class. After Gurnee et al. 2023,
arXiv 2305.01610.

Two kinds of task: which class an input word or phrase belongs to (state at its last token), and
which of several relations a prompt is about (state at the query's last token, after four
demonstrations). Cost: a forward pass over some hundred short prompts, and seconds of regression.

The same regression on the raw states says where a concept, a category of tokens, occurs and in
which direction. *Splitting*: the number of features that the concept is spread over, counting those
that raise the F1 of a k-sparse probe by more than 0.03 each. *Absorption*: the share of tokens at
which the probe recognises the concept but none of its features is active, while another feature
carries it: one whose decoder row points along the probe and makes up most of the reconstruction's
component along it. After Chanin et al. 2024 (arXiv 2409.14507); that component replaces their
ablation, so that no model is run again, and the thresholds below are ours. Cost: a regression per
concept and number of features, on at most 4,000 tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ed_interp.errors import InvalidInputError
from ed_interp.probes.dictionaries.monosemantic import Categories
from ed_interp.probes.dictionaries.options import PROBE_TASKS
from ed_interp.probes.dictionaries.reader import Reader, stream_states
from ed_interp.probes.dictionaries.rows import ConceptRow, ProbeRow
from ed_interp.prompts.population import draw
from ed_interp.prompts.tasks import LabelledTask, MixedTask, builtin_task
from ed_interp.prompts.tokens import tokenize

FEATURES = (1, 2, 4, 8, 16)
"""Numbers of features to probe with."""

_SHOTS = 4
_PROMPTS = 100
_FOLDS = 5
_RAREST = 8

GAIN = 0.03
"""Gain in F1 from which on another feature counts as part of the concept."""
MOST_FEATURES = 5
ALONG = 0.1
"""Smallest cosine of a decoder row with the probe at which a feature can carry the concept."""
SHARE = 0.4
"""Smallest share of the reconstruction's component along the probe, likewise."""
LEAST_TOKENS = 40
_AT_MOST = 2000

Table = NDArray[Any]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


def sparse_probing(
    reader: Reader,
    tasks: Sequence[str | LabelledTask | MixedTask] = PROBE_TASKS,
    *,
    features: Sequence[int] = FEATURES,
    seed: int = 0,
) -> tuple[ProbeRow, ...]:
    """Probe every task with every number of features; classes below eight inputs are left out."""
    from sklearn.model_selection import StratifiedKFold

    rows: list[ProbeRow] = []
    for task in map(probe_task, tasks):
        states, labels = labelled_states(reader, task, seed=seed)
        with torch.no_grad():
            activations = reader.dictionary.encode(states).float().cpu().numpy()
        classes, coded = np.unique(labels, return_inverse=True)
        right: dict[int | None, int] = dict.fromkeys([None, *features], 0)
        folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
        for train, test in folds.split(activations, coded):
            # Chosen on the training fold, or the choice would have seen the answers.
            order = np.argsort(-f_ratio(activations[train], coded[train]), kind="stable")
            for count in right:
                table = states.cpu().numpy() if count is None else activations[:, order[:count]]
                fitted = logistic(table[train], coded[train])
                right[count] += int((predict(fitted, table[test]) == coded[test]).sum())
        n = len(coded)
        rest = (right[None] / n, float(np.bincount(coded).max() / n), len(classes), n)
        rows += [ProbeRow(task.name, count, right[count] / n, *rest) for count in features]
    return tuple(rows)


def probe_task(task: str | LabelledTask | MixedTask) -> LabelledTask | MixedTask:
    """A task by name or as it is, refused without labels."""
    named = builtin_task(task) if isinstance(task, str) else task
    if not isinstance(named, (LabelledTask, MixedTask)):
        raise InvalidInputError(
            f"tasks must have labels to probe for, got {named.name!r}; use a labelled or mixed task"
        )
    return named


def labelled_states(
    reader: Reader, task: LabelledTask | MixedTask, *, seed: int = 0
) -> tuple[torch.Tensor, NDArray[Any]]:
    """States ``input d_model`` at the last token of every labelled input, and their classes."""
    hooked = reader.hooked
    if isinstance(task, MixedTask):
        inputs = [
            (prompt.sequence(_SHOTS), member.name)
            for member in task.tasks
            for drawn in [draw(member, prompts=_PROMPTS, shots=[_SHOTS], seed=seed)]
            for prompt in tokenize(drawn, hooked.tokenizer).prompts
        ]
    else:
        inputs = [(tuple(hooked.tokenizer(text)["input_ids"]), out) for text, out in task.pairs]
    counts = Counter(label for _, label in inputs)
    kept = [(ids, label) for ids, label in inputs if counts[label] >= _RAREST]
    if len({label for _, label in kept}) < 2:
        raise InvalidInputError(
            f"task {task.name!r} has fewer than two classes of {_RAREST} inputs; use a task with "
            "fewer labels"
        )
    windows = [ids for ids, _ in kept]
    parts = list(stream_states(hooked, reader.site, windows, size=reader.batch_size))
    states = torch.cat([part.states for part in parts])
    window = torch.cat([part.window for part in parts])
    # A window's last token is the one before the number changes.
    last = torch.cat([window[1:] != window[:-1], torch.ones(1, dtype=torch.bool)])
    return states[last.to(states.device)], np.array([label for _, label in kept])


def logistic(table: Table, labels: Table) -> Any:
    """Scikit-learn's logistic regression on columns scaled to their largest value."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler

    fitted = make_pipeline(MaxAbsScaler(), LogisticRegression(C=10.0, max_iter=2000))
    # Some BLAS raise the flag of an invalid operation in lanes they do not use. A real NaN is still
    # refused, by scikit-learn.
    with np.errstate(invalid="ignore"):
        return fitted.fit(table.astype(np.float64), labels)


def predict(fitted: Any, table: Table) -> Table:
    """Labels of the rows of ``table`` by a fit of :func:`logistic`."""
    with np.errstate(invalid="ignore"):
        return np.asarray(fitted.predict(table.astype(np.float64)))


def f_ratio(table: Table, labels: Table) -> NDArray[np.float64]:
    """F of a one-way analysis of variance per column; 0 for a constant column."""
    groups = [table[labels == label].astype(np.float64) for label in np.unique(labels)]
    mean = table.mean(0, dtype=np.float64)
    between = sum(len(group) * (group.mean(0) - mean) ** 2 for group in groups)
    within = sum(((group - group.mean(0)) ** 2).sum(0) for group in groups)
    free = (len(table) - len(groups)) / (len(groups) - 1)
    # A column that separates the classes exactly has no variance within them. It is the best there
    # is, so its F must be huge and not a division by zero.
    floor = 1e-12 * np.maximum(between + within, 1e-30)
    return np.asarray(free * between / np.maximum(within, floor))


def concepts(
    states: Floats,
    activations: Floats,
    ids: NDArray[np.int64],
    decoder: Floats,
    categories: Categories,
    *,
    seed: int = 0,
) -> tuple[ConceptRow, ...]:
    """Splitting and absorption of every category that is frequent enough.

    States are ``token d_model``, activations ``token latent``, the decoder is ``latent d_model``.
    """
    rng = np.random.default_rng(seed)
    rows: list[ConceptRow] = []
    for name, members in categories.items():
        inside = np.isin(ids, members)
        parts = np.flatnonzero(inside), np.flatnonzero(~inside)
        size = min(*map(len, parts), _AT_MOST)
        if size < LEAST_TOKENS:
            continue
        # As many with as without, so that the probes' threshold of one half fits.
        chosen = np.concatenate([rng.choice(part, size, replace=False) for part in parts])
        rng.shuffle(chosen)
        rows.append(_concept(name, states[chosen], activations[chosen], inside[chosen], decoder))
    return tuple(rows)


def _concept(
    name: str, states: Floats, activations: Floats, labels: Mask, decoder: Floats
) -> ConceptRow:
    half = len(labels) // 2
    train, test = slice(None, half), slice(half, None)
    probe = logistic(states[train], labels[train])
    predicted = predict(probe, states[test])
    order = np.argsort(-f_ratio(activations[train], labels[train]), kind="stable")
    # F is as large for a feature that is silent at the concept. Only one that is more active at it
    # can stand for it.
    inside = activations[train][labels[train]].mean(0)
    outside = activations[train][~labels[train]].mean(0)
    order = order[(inside > outside)[order]][:MOST_FEATURES]
    scores = []
    for count in range(1, len(order) + 1):
        few = activations[:, order[:count]]
        sparse = predict(logistic(few[train], labels[train]), few[test])
        scores.append(_f1(sparse, labels[test]))
    size = 1
    while size < len(scores) and scores[size] - scores[size - 1] > GAIN:
        size += 1
    own = order[:size]
    recognised = predicted & labels[test]
    missed = recognised & ~(activations[test][:, own] > 0).any(1)
    absorbed = missed & _carried(activations[test], decoder, _direction(probe))
    total = max(1, int(recognised.sum()))
    return ConceptRow(
        concept=name,
        features=tuple(own.tolist()),
        f1_one=scores[0] if scores else 0.0,
        f1=scores[size - 1] if scores else 0.0,
        f1_dense=_f1(predicted, labels[test]),
        missed=float(missed.sum() / total),
        absorbed=float(absorbed.sum() / total),
        n=int(labels.sum()),
    )


def _direction(probe: Any) -> NDArray[np.float64]:
    """The probe's direction in the stream, of length 1."""
    scale, regression = (step for _, step in probe.steps)
    # The weights are those of scaled columns: undo it, and leave columns that are 0 everywhere.
    weight = regression.coef_[0].astype(np.float64) / np.where(scale.scale_ > 0, scale.scale_, 1.0)
    return np.asarray(weight / max(float(np.linalg.norm(weight)), 1e-12))


def _carried(activations: Floats, decoder: Floats, direction: NDArray[np.float64]) -> Mask:
    """Tokens at which one feature along the probe makes up most of the component along it."""
    component = decoder.astype(np.float64) @ direction
    cosine = component / np.maximum(np.linalg.norm(decoder, axis=1), 1e-12)
    parts = activations * component
    strongest = parts.argmax(1)
    value = parts[np.arange(len(parts)), strongest]
    # Features that point against the probe do not carry the concept, they take from it.
    total = np.maximum(parts, 0).sum(1)
    return np.asarray((cosine[strongest] >= ALONG) & (value > 0) & (value >= SHARE * total))


def _f1(predicted: Mask, labels: Mask) -> float:
    right = int((predicted & labels).sum())
    return 2 * right / max(1, int(predicted.sum()) + int(labels.sum()))
