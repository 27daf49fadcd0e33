"""Neutral text under two models at once: cross-entropy, divergence, and where they differ.

The label of a position is the token AFTER it: the logits at position p are scored on token p + 1.
(PEFT's forgetting metric had them unshifted, which rewards a model for repeating its input.) Both
models are run on the same windows, batch by batch, so that only one batch of logits of each is in
memory: ``batch pos d_vocab`` twice in float32, at most some 300 MB. Cost: one forward pass of each
model over the text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ed_interp.errors import CaptureError
from ed_interp.eval.compare.features import FeatureSums
from ed_interp.eval.compare.rows import Context
from ed_interp.eval.compare.subjects import Subject, vocabulary_size
from ed_interp.models.runners import Inputs
from ed_interp.models.sites import Site, resid_post
from ed_interp.progress import Progress, track
from ed_interp.prompts.tokens import Ids

Array = NDArray[np.float64]

_LOGITS = 2**25
"""Logits of one model held at a time."""
_TOP, _BEFORE = 3, 12


@dataclasses.dataclass(frozen=True)
class TextReading:
    """Sums per text, and every token's divergence."""

    tokens: Array
    """``text``: number of predicted tokens."""
    control_nll: Array
    """``text``: summed negative log-probability, in nats."""
    treated_nll: Array
    divergence: Array
    """``text``: summed KL(control || treated), in nats."""
    by_token: Array
    """``token``: KL of every predicted token."""
    contexts: tuple[Context, ...]


class _Run(NamedTuple):
    logits: Float[Tensor, "token d_vocab"]
    """At the positions whose next token is scored, text after text."""
    states: Float[Tensor, "token d_model"] | None


class _Scored(NamedTuple):
    control: Float[Tensor, " token"]
    treated: Float[Tensor, " token"]
    divergence: Float[Tensor, " token"]
    logits: tuple[Tensor, Tensor]


def read_texts(
    control: Subject,
    treated: Subject,
    windows: Sequence[Ids],
    *,
    first: Ids = (),
    keep: int = 10,
    features: FeatureSums | None = None,
    progress: Progress = None,
) -> TextReading:
    """Run both models over windows of text; the divergence is from the control.

    Args:
        control, treated: The two models.
        windows: Token ids, two or more each; token 0 has nothing before it and is not predicted.
        first: Tokens that the tokenizer puts first.
        keep: How many of the positions that differ most to keep.
        features: Takes the states of both models at its site.
        progress: See :mod:`ed_interp.progress`.

    Raises:
        CaptureError: NaN in the logits of either model.
    """
    tokens, control_nll, treated_nll, divergence = sums = np.zeros((4, len(windows)))
    by_token: list[Array] = []
    site = None if features is None else features.site
    contexts: Sequence[Context] = ()
    # As many windows as fit, so that a large vocabulary does not fill the memory.
    size = _LOGITS // vocabulary_size(control.hooked) // max(len(window) for window in windows)
    with track(progress, f"reading text ({treated.name})", len(windows)) as advance:
        for rows in _batches(windows, max(1, size)):
            part = [windows[row] for row in rows]
            one, two = (_run(subject, part, first, site) for subject in (control, treated))
            scored = _score(one.logits, two.logits, part)
            for subject, nll in ((control, scored.control), (treated, scored.treated)):
                if bool(nll.isnan().any()):
                    raise CaptureError(
                        f"the logits of {subject.name} must be finite, got NaN on neutral text; "
                        "check its weights"
                    )
            # Tokens are in rows one after another; each adds to the sums of the text it is from.
            places = [(row, place) for row in rows for place in range(1, len(windows[row]))]
            owner = np.array([row for row, _ in places])
            columns = (torch.ones(len(owner)), scored.control, scored.treated, scored.divergence)
            for total, values in zip(sums, columns, strict=True):
                np.add.at(total, owner, values.double().numpy())
            by_token.append(scored.divergence.double().numpy())
            contexts = _largest(contexts, keep, scored, places, windows, control.hooked.tokenizer)
            if features is not None and one.states is not None and two.states is not None:
                features.add(one.states, two.states, owner.tolist())
            advance(len(rows))
    return TextReading(
        tokens, control_nll, treated_nll, divergence, np.concatenate(by_token), tuple(contexts)
    )


def _run(subject: Subject, part: Sequence[Ids], first: Ids, site: Site | None) -> _Run:
    """Logits at every position but the last of each window, in one right-padded pass."""
    head = first + subject.before
    width = len(head) + max(len(window) for window in part)
    ids = torch.zeros(len(part), width, dtype=torch.long)
    reads = torch.zeros(len(part), width - len(head) - 1, dtype=torch.long)
    scored = torch.zeros_like(reads, dtype=torch.bool)
    for row, window in enumerate(part):
        ids[row, : len(head) + len(window)] = torch.tensor(head + window)
        # Position len(head) + p of the sequence predicts token p + 1 of the window.
        reads[row, : len(window) - 1] = len(head) + torch.arange(len(window) - 1)
        scored[row, : len(window) - 1] = True
    lengths = torch.tensor([len(head) + len(window) for window in part])
    valid = torch.arange(width) < lengths[:, None]
    runner = subject.hooked.runner
    with subject.scope():
        # Attention is causal, so padding behind a text needs no mask; models that take one get it
        # all the same, since some warn without.
        output = runner.run(
            Inputs(ids, valid=valid if runner.takes_masks else None),
            sites=[site or resid_post(subject.hooked.n_layers - 1)],
            reads=reads if site is not None else reads[:, :1],
            logit_reads=reads,
        )
    assert output.logits is not None
    scored = scored.to(output.logits.device)
    states = output.states[scored, 0].float() if site is not None else None
    return _Run(output.logits[scored].float(), states)


def _score(control: Tensor, treated: Tensor, part: Sequence[Ids]) -> _Scored:
    labels = torch.tensor([token for window in part for token in window[1:]], device=control.device)
    first, second = control.log_softmax(-1), treated.to(control.device).log_softmax(-1)
    # Rounding can make the divergence of two nearly equal distributions slightly negative.
    divergence = (first.exp() * (first - second)).sum(-1).clamp(min=0)
    nll = [-table.gather(-1, labels[:, None])[:, 0].cpu() for table in (first, second)]
    return _Scored(nll[0], nll[1], divergence.cpu(), (first, second))


def _largest(
    kept: Sequence[Context],
    keep: int,
    scored: _Scored,
    places: Sequence[tuple[int, int]],
    windows: Sequence[Ids],
    tokenizer: Any,
) -> list[Context]:
    """The positions that differ most so far; ``places`` are text and position of each token."""

    def text(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids))) if tokenizer is not None else str(list(ids))

    contexts = list(kept)
    floor = kept[-1].divergence if kept and len(kept) == keep else 0.0
    # At most `keep` tokens of a batch can be among the largest of all.
    best = scored.divergence.topk(min(keep, len(places)))
    for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        if value <= floor:
            break
        row, position = places[index]
        window = windows[row]
        tops = [table[index].topk(min(_TOP, table.shape[-1])) for table in scored.logits]
        control_top, treated_top = (tuple(text([n]) for n in top.indices.tolist()) for top in tops)
        contexts.append(
            Context(
                text=row,
                position=position,
                before=text(window[max(0, position - _BEFORE) : position]),
                token=text(window[position : position + 1]),
                divergence=value,
                control_logprob=-float(scored.control[index]),
                treated_logprob=-float(scored.treated[index]),
                control_top=control_top,
                treated_top=treated_top,
            )
        )
    # Of equals at the end of the list, those of an earlier batch stay.
    contexts = sorted(contexts, key=lambda context: -context.divergence)[:keep]
    return sorted(contexts, key=lambda c: (c.divergence, c.text, c.position), reverse=True)


def _batches(windows: Sequence[Ids], size: int) -> Iterator[list[int]]:
    """Rows of similar length, so that little is padded."""
    order = sorted(range(len(windows)), key=lambda row: (len(windows[row]), row))
    for start in range(0, len(order), size):
        yield order[start : start + size]
