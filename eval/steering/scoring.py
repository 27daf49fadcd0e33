"""Log-probabilities of continuations, and perplexity, with and without interventions.

Rows of a pass have one length, so nothing is padded. The injection is given the length of the
prompt, so that its last token is the same whatever the continuation. Equal sequences are run once.
Cost: one forward pass over the distinct sequences.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ed_interp.errors import CaptureError, InvalidInputError, OptionError
from ed_interp.eval.steering.samples import Question
from ed_interp.models.hooked import HookedModel
from ed_interp.models.runners import Inputs
from ed_interp.models.sites import resid_pre
from ed_interp.prompts.tokens import Ids
from ed_interp.streams.injection import Intervention, inject

T = TypeVar("T")
_BATCH_TOKENS = 4096


@dataclasses.dataclass(frozen=True)
class Answers:
    """One entry per question."""

    logprob: Float[Tensor, " question"]
    """Of the whole continuation, in nats."""
    correct: Bool[Tensor, " question"]
    """Whether every token of it is the most likely one, given those before it."""


def answer(
    hooked: HookedModel,
    questions: Sequence[Question],
    interventions: Sequence[Intervention] = (),
    batch_size: int | None = None,
) -> Answers:
    """Score every continuation under ``interventions``; NaN is refused."""
    groups: dict[tuple[int, int], dict[Ids, list[int]]] = collections.defaultdict(dict)
    # Equal sequences run once: samples often share a prompt and differ in their last token.
    for number, question in enumerate(questions):
        # The last token of an answer is only predicted, so it is not fed.
        ids = question.prompt + question.answer[:-1]
        # By length of the prompt too: the injection takes one for the whole batch.
        groups[len(question.prompt), len(ids)].setdefault(ids, []).append(number)
    logprob = torch.zeros(len(questions))
    correct = torch.zeros(len(questions), dtype=torch.bool)
    for (prompt, length), sequences in groups.items():
        for batch in _chunks(list(sequences.items()), length, batch_size):
            fed, reads = [ids for ids, _ in batch], range(prompt - 1, length)
            logits = _logits(hooked, fed, reads, interventions, prompt)
            for row, (_, numbers) in zip(logits, batch, strict=True):
                along, best = row.log_softmax(-1), row.argmax(-1)
                for number in numbers:
                    target = torch.tensor(questions[number].answer)
                    logprob[number] = along.gather(-1, target[:, None]).sum()
                    correct[number] = bool((best == target).all())
    if bool(logprob.isnan().any()):
        hint = "use a smaller coefficient"
        raise CaptureError(f"{hooked.name} returns NaN under this intervention; {hint}")
    return Answers(logprob, correct)


def neutral_rows(hooked: HookedModel, texts: Sequence[str]) -> list[Ids]:
    """Neutral texts as token ids, cut to the context window; at least one of two tokens."""
    if hooked.tokenizer is None:
        raise InvalidInputError("neutral text needs a tokenizer; pass load(model, tokenizer=...)")
    window = hooked.context_window
    rows = [tuple(hooked.tokenizer(text)["input_ids"])[:window] for text in texts if text.strip()]
    rows = [row for row in rows if len(row) > 1]
    if not rows:
        texts = f"{len(texts)} text(s), none of them as long"
        raise OptionError("neutral", f"must hold a text of 2 or more tokens, got {texts}")
    return rows


def perplexity(
    hooked: HookedModel,
    rows: Sequence[Ids],
    interventions: Sequence[Intervention] = (),
    batch_size: int | None = None,
) -> float:
    """``exp`` of the mean negative log-probability per token after the first of each row."""
    groups: dict[int, list[Ids]] = collections.defaultdict(list)
    for row in rows:
        groups[len(row)].append(row)
    total, count = 0.0, 0
    for length, members in groups.items():
        for batch in _chunks(members, length, batch_size):
            # All of it counts as prompt: neutral text has no continuation.
            logits = _logits(hooked, batch, range(length - 1), interventions, length)
            along = logits.log_softmax(-1).gather(-1, torch.tensor(batch)[:, 1:, None])
            total -= float(along.double().sum())
            count += along.numel()
    mean = total / count
    # exp overflows above 709; a strong intervention gets there.
    return math.exp(mean) if mean < 700 else math.inf


def _logits(
    hooked: HookedModel,
    rows: Sequence[Ids],
    reads: range,
    interventions: Sequence[Intervention],
    prompt_length: int,
) -> Float[Tensor, "row read d_vocab"]:
    where = torch.tensor(list(reads)).expand(len(rows), -1)
    # A site must be read; the first costs nothing.
    sites, inputs = [resid_pre(0)], Inputs(torch.tensor(rows))
    with inject(hooked, *interventions, prompt_length=prompt_length):
        reading = hooked.runner.run(inputs, sites=sites, reads=where[:, :1], logit_reads=where)
    assert reading.logits is not None
    return reading.logits.float().cpu()


def _chunks(items: Sequence[T], length: int, size: int | None) -> Iterator[Sequence[T]]:
    size = size or max(1, _BATCH_TOKENS // length)
    return (items[start : start + size] for start in range(0, len(items), size))
