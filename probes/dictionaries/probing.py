"""Sparse probing: how few features name the class of a labelled input.

For every task the states of its inputs are encoded, the k features that differ most between the
classes (largest F of a one-way analysis of variance) are chosen, and a logistic regression on them
alone predicts the class; choice and fit see the training folds only. Beside it: the same on the raw
states, all channels, and the share of the commonest class. After Gurnee et al. 2023,
arXiv 2305.01610.

Two kinds of task: which class an input word or phrase belongs to (state at its last token), and
which of several relations a prompt is about (state at the query's last token, after four
demonstrations). Cost: a forward pass over some hundred short prompts, and seconds of regression.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.probes.dictionaries.dictionary import Dictionary
from ed_interp.probes.dictionaries.states import stream_states
from ed_interp.prompts.population import draw
from ed_interp.prompts.tasks import LabelledTask, MixedTask, builtin_task
from ed_interp.prompts.tokens import tokenize
from ed_interp.models.sites import Site

TASKS = ("sentiment", "country-continent", "mixed-country", "mixed-adjective")
"""By default: classes of phrases and of words, and which relation is in force."""

FEATURES = (1, 2, 4, 8, 16)
"""Numbers of features that a probe may use."""

_SHOTS = 4
_PROMPTS = 100
_FOLDS = 5
_RAREST = 8


@dataclasses.dataclass(frozen=True, slots=True)
class ProbeRow:
    """Accuracy on one task with one number of features, over all folds."""

    task: str
    features: int
    accuracy: float
    dense: float
    """The same of a probe on every channel of the raw state."""
    chance: float
    """Share of the commonest class."""
    classes: int
    n: int
    """Labelled inputs."""


def sparse_probing(
    dictionary: Dictionary,
    hooked: HookedModel,
    tasks: Sequence[str | LabelledTask | MixedTask] = TASKS,
    *,
    site: Site | None = None,
    features: Sequence[int] = FEATURES,
    seed: int = 0,
) -> tuple[ProbeRow, ...]:
    """Probe every task with every number of features.

    Classes of fewer than eight inputs are left out.

    Args:
        dictionary: Whose features are used.
        hooked: The model.
        tasks: Names of built-in tasks, or tasks.
        site: If not the dictionary's own.
        features: Numbers of them.
        seed: Of the prompts and folds.

    Raises:
        UnknownNameError: no such task.
        InvalidInputError: a task with fewer than two classes of eight inputs.
    """
    place = dictionary.check(hooked, at=site)
    rows: list[ProbeRow] = []
    for asked in tasks:
        task = builtin_task(asked) if isinstance(asked, str) else asked
        if not isinstance(task, (LabelledTask, MixedTask)):
            raise InvalidInputError(f"task {task.name!r} has no labels to probe for")
        states, labels = labelled_states(hooked, place, task, seed=seed)
        with torch.no_grad():
            found = dictionary.encode(states).float().cpu().numpy()
        rows += _probe(task.name, found, states.cpu().numpy(), labels, features, seed)
    return tuple(rows)


def labelled_states(
    hooked: HookedModel, site: Site, task: LabelledTask | MixedTask, *, seed: int = 0
) -> tuple[torch.Tensor, NDArray[Any]]:
    """States ``input d_model`` at the last token of every labelled input, and their classes."""
    texts: list[tuple[int, ...]] = []
    labels: list[str] = []
    if isinstance(task, MixedTask):
        for member in task.tasks:
            drawn = draw(member, prompts=_PROMPTS, shots=[_SHOTS], seed=seed)
            for prompt in tokenize(drawn, hooked.tokenizer).prompts:
                texts.append(prompt.sequence(_SHOTS))
                labels.append(member.name)
    else:
        for input, output in task.pairs:
            texts.append(tuple(hooked.tokenizer(input)["input_ids"]))
            labels.append(output)
    counts = {label: labels.count(label) for label in set(labels)}
    kept = [row for row, label in enumerate(labels) if counts[label] >= _RAREST]
    if len({labels[row] for row in kept}) < 2:
        raise InvalidInputError(
            f"task {task.name!r} has fewer than two classes of at least {_RAREST} inputs; probe a "
            "task with fewer labels"
        )
    windows = [texts[row] for row in kept]
    parts = list(stream_states(hooked, site, windows))
    states = torch.cat([part.states for part in parts])
    window = torch.cat([part.window for part in parts])
    last = torch.cat([window[1:] != window[:-1], torch.ones(1, dtype=torch.bool)])
    return states[last.to(states.device)], np.array([labels[row] for row in kept])


def _probe(
    task: str,
    activations: NDArray[np.float32],
    states: NDArray[np.float32],
    labels: NDArray[Any],
    features: Sequence[int],
    seed: int,
) -> list[ProbeRow]:
    from sklearn.model_selection import StratifiedKFold

    classes, coded = np.unique(labels, return_inverse=True)
    right: dict[int | None, int] = dict.fromkeys([None, *features], 0)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(activations, coded):
        order = np.argsort(-f_ratio(activations[train], coded[train]), kind="stable")
        for count in right:
            table = states if count is None else activations[:, order[:count]]
            fitted = logistic(table[train], coded[train])
            right[count] += int((predict(fitted, table[test]) == coded[test]).sum())
    n = len(coded)
    chance = float(np.bincount(coded).max() / n)
    return [
        ProbeRow(task, count, right[count] / n, right[None] / n, chance, len(classes), n)
        for count in features
    ]


def logistic(table: NDArray[Any], labels: NDArray[Any]) -> Any:
    """Scikit-learn's logistic regression on columns scaled to their largest value."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler

    fitted = make_pipeline(MaxAbsScaler(), LogisticRegression(C=10.0, max_iter=2000))
    # Some BLAS raise the flag of an invalid operation on lanes they do not use; scikit-learn itself
    # refuses tables with NaN.
    with np.errstate(invalid="ignore"):
        return fitted.fit(table.astype(np.float64), labels)


def predict(fitted: Any, table: NDArray[Any]) -> NDArray[Any]:
    """The labels that :func:`logistic`'s result gives to the rows of ``table``."""
    with np.errstate(invalid="ignore"):
        return np.asarray(fitted.predict(table.astype(np.float64)))


def f_ratio(table: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """F of a one-way analysis of variance per column; 0 for a column without any variance."""
    groups = [table[labels == label].astype(np.float64) for label in np.unique(labels)]
    mean = table.mean(0, dtype=np.float64)
    between = sum(len(group) * (group.mean(0) - mean) ** 2 for group in groups)
    within = sum(((group - group.mean(0)) ** 2).sum(0) for group in groups)
    free = (len(table) - len(groups)) / (len(groups) - 1)
    # A column that separates the classes exactly has no spread within them: best, not undefined.
    floor = 1e-12 * np.maximum(between + within, 1e-30)
    ratio: NDArray[np.float64] = free * between / np.maximum(within, floor)
    return ratio
