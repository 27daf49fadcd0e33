"""Neutral text under two models at once: cross-entropy, divergence, and where they differ.

The label of a position is the token AFTER it: the logits at position p are scored on token p + 1.
(PEFT's forgetting metric had them unshifted, which rewards a model for repeating its input.) Both
models are run on the same windows, batch by batch, so that only one batch of logits of each is in
memory: ``batch pos d_vocab`` twice in float32, at most some 300 MB. Cost: one forward pass of each
model over the text.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ed_interp.errors import CaptureError
from ed_interp.eval.compare.result import Context
from ed_interp.eval.compare.subjects import Subject, vocabulary_size
from ed_interp.models.runners import Inputs
from ed_interp.progress import Progress, track
from ed_interp.prompts.tokens import Ids
from ed_interp.models.sites import Site, resid_post

Array = NDArray[np.float64]
States = Callable[
    [Float[Tensor, "token d_model"], Float[Tensor, "token d_model"], Sequence[int]], None
]
"""Gets the states of control and treated at the chosen site, and the text of each token."""

_LOGITS = 2**25
"""Logits of one model held at a time."""
_TOP, _BEFORE = 3, 12


@dataclasses.dataclass(frozen=True)
class TextReading:
    """Sums per text, and every token's divergence."""

    tokens: Array
    """``text``: predicted tokens."""
    control_nll: Array
    """``text``: summed negative log-probability, in nats."""
    treated_nll: Array
    divergence: Array
    """``text``: summed KL(control || treated), in nats."""
    by_token: Array
    """``token``: KL of every predicted token."""
    contexts: tuple[Context, ...]


def read_texts(
    control: Subject,
    treated: Subject,
    windows: Sequence[Ids],
    *,
    first: Ids = (),
    keep: int = 10,
    site: Site | None = None,
    states: States | None = None,
    progress: Progress = None,
) -> TextReading:
    """Run both models over windows of text.

    Args:
        control: The reference of the divergence.
        treated: The other.
        windows: Token ids, two or more each; token 0 is not predicted, having nothing before it.
        first: Tokens that the tokenizer puts first.
        keep: How many of the most different places to keep.
        site: Where `states` are read.
        states: Called with the states at `site`; for features.
        progress: See :mod:`ed_interp.progress`.

    Raises:
        CaptureError: NaN in the logits of either model.
    """
    count = len(windows)
    sums = {name: np.zeros(count) for name in ("tokens", "control", "treated", "divergence")}
    by_token: list[Array] = []
    places: list[tuple[float, int, int, _Place]] = []
    room = max(len(window) for window in windows)
    size = max(1, _LOGITS // vocabulary_size(control.hooked) // room)
    with track(progress, f"reading text ({treated.name})", count) as advance:
        for rows in _batches(windows, size):
            part = [windows[row] for row in rows]
            one, two = (_run(subject, part, first, site) for subject in (control, treated))
            scored = _score(one.logits, two.logits, part)
            for subject, nll in ((control, scored.control), (treated, scored.treated)):
                if bool(nll.isnan().any()):
                    raise CaptureError(f"{subject.name} gives NaN on neutral text; is it damaged?")
            owner = torch.tensor(
                [row for row, window in zip(rows, part, strict=True) for _ in window[1:]]
            )
            for name, values in scored.sums().items():
                np.add.at(sums[name], owner.numpy(), values)
            by_token.append(scored.divergence.double().numpy())
            _keep(places, scored, rows, part, keep)
            if states is not None and one.states is not None and two.states is not None:
                states(one.states, two.states, owner.tolist())
            advance(len(rows))
    found = sorted(places, reverse=True)
    return TextReading(
        sums["tokens"],
        sums["control"],
        sums["treated"],
        sums["divergence"],
        np.concatenate(by_token),
        tuple(_context(value, row, place, windows, control) for value, row, _, place in found),
    )


@dataclasses.dataclass(frozen=True)
class _Run:
    logits: Float[Tensor, "token d_vocab"]
    """Of the positions whose next token is scored, text after text."""
    states: Float[Tensor, "token d_model"] | None


@dataclasses.dataclass(frozen=True)
class _Place:
    position: int
    control: float
    treated: float
    control_top: tuple[int, ...]
    treated_top: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Scored:
    control: Float[Tensor, " token"]
    treated: Float[Tensor, " token"]
    divergence: Float[Tensor, " token"]
    logits: tuple[Tensor, Tensor]

    def sums(self) -> dict[str, Array]:
        parts = {"control": self.control, "treated": self.treated, "divergence": self.divergence}
        arrays = {name: values.double().numpy() for name, values in parts.items()}
        return {"tokens": np.ones(len(self.control)), **arrays}


def _run(subject: Subject, part: Sequence[Ids], first: Ids, site: Site | None) -> _Run:
    """Logits at every position but the last of each window, in one right-padded pass."""
    head = first + subject.before
    width = len(head) + max(len(window) for window in part)
    ids = torch.zeros(len(part), width, dtype=torch.long)
    reads = torch.zeros(len(part), width - len(head) - 1, dtype=torch.long)
    there = torch.zeros_like(reads, dtype=torch.bool)
    for row, window in enumerate(part):
        ids[row, : len(head) + len(window)] = torch.tensor(head + window)
        reads[row, : len(window) - 1] = len(head) + torch.arange(len(window) - 1)
        there[row, : len(window) - 1] = True
    lengths = torch.tensor([len(head) + len(window) for window in part])
    valid = torch.arange(width) < lengths[:, None]
    runner = subject.hooked.runner
    chosen = [site or resid_post(subject.hooked.n_layers - 1)]
    asked = reads if site is not None else reads[:, :1]
    with subject.scope():
        # Nothing looks ahead, so padding behind a text needs no mask; models that take one are
        # given it all the same, since some warn without.
        found = runner.run(
            Inputs(ids, valid=valid if runner.takes_masks else None),
            sites=chosen,
            reads=asked,
            logit_reads=reads,
        )
    assert found.logits is not None
    device = found.logits.device
    states = found.states[there.to(device), 0].float() if site is not None else None
    return _Run(found.logits[there.to(device)].float(), states)


def _score(control: Tensor, treated: Tensor, part: Sequence[Ids]) -> _Scored:
    labels = torch.tensor([token for window in part for token in window[1:]], device=control.device)
    first, second = control.log_softmax(-1), treated.to(control.device).log_softmax(-1)
    divergence = (first.exp() * (first - second)).sum(-1).clamp(min=0)
    nll = [-table.gather(-1, labels[:, None])[:, 0].cpu() for table in (first, second)]
    return _Scored(nll[0], nll[1], divergence.cpu(), (first, second))


def _keep(
    places: list[tuple[float, int, int, _Place]],
    scored: _Scored,
    rows: Sequence[int],
    part: Sequence[Ids],
    keep: int,
) -> None:
    """The largest divergences so far, as a heap of at most ``keep``."""
    if not keep:
        return
    where = [
        (row, place)
        for row, window in zip(rows, part, strict=True)
        for place in range(1, len(window))
    ]
    best = scored.divergence.topk(min(keep, len(where)))
    for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        if value <= 0 or (len(places) == keep and value <= places[0][0]):
            continue
        row, position = where[index]
        tops = [
            tuple(table[index].topk(min(_TOP, table.shape[-1])).indices.tolist())
            for table in scored.logits
        ]
        place = _Place(
            position,
            -float(scored.control[index]),
            -float(scored.treated[index]),
            tops[0],
            tops[1],
        )
        (heapq.heappush if len(places) < keep else heapq.heapreplace)(
            places, (value, row, position, place)
        )


def _context(
    value: float, row: int, place: _Place, windows: Sequence[Ids], control: Subject
) -> Context:
    tokenizer = control.hooked.tokenizer

    def text(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids))) if tokenizer is not None else str(list(ids))

    window = windows[row]
    return Context(
        text=row,
        position=place.position,
        before=text(window[max(0, place.position - _BEFORE) : place.position]),
        token=text(window[place.position : place.position + 1]),
        divergence=value,
        control_logprob=place.control,
        treated_logprob=place.treated,
        control_top=tuple(text([token]) for token in place.control_top),
        treated_top=tuple(text([token]) for token in place.treated_top),
    )


def _batches(windows: Sequence[Ids], size: int) -> Iterator[list[int]]:
    """Rows of similar length."""
    order = sorted(range(len(windows)), key=lambda row: (len(windows[row]), row))
    for start in range(0, len(order), size):
        yield order[start : start + size]
