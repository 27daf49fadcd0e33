"""The same prompt continued with and without interventions, with the log-probability of each token.

Greedy unless a temperature is given; with one, both continuations draw from the same seed. Cost:
two runs of ``generate``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load
from ed_interp.models.runners import TransformersRunner, evaluation_mode
from ed_interp.streams.injection import Intervention, inject


@dataclasses.dataclass(frozen=True)
class Continuation:
    """What the model wrote behind a prompt."""

    text: str
    tokens: tuple[str, ...]
    """Each on its own, as the tokenizer shows it."""
    logprobs: tuple[float, ...]
    """Log-probability of each in nats, given everything before it, under the interventions that it
    was written with and before temperature."""


@dataclasses.dataclass(frozen=True)
class SideBySide:
    """One prompt, continued twice."""

    prompt: str
    unsteered: Continuation
    steered: Continuation

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)


def side_by_side(
    model: Any,
    prompt: str,
    interventions: Sequence[Intervention],
    *,
    max_new_tokens: int = 20,
    temperature: float = 0.0,
    seed: int = 0,
) -> SideBySide:
    """Continue ``prompt`` without and with ``interventions``.

    Args:
        model: Anything :func:`ed_interp.load` takes, on ``transformers``.
        prompt: Text.
        interventions: See :func:`ed_interp.streams.injection.inject`.
        max_new_tokens: At most so many.
        temperature: 0 is greedy.
        seed: Of the sampling.

    Raises:
        InvalidInputError: an empty prompt, a prompt that leaves no room, no tokenizer, a
            TransformerLens model, or an intervention that does not fit.
    """
    hooked = load(model)
    ids = _prompt_ids(hooked, prompt, max_new_tokens)
    if not temperature >= 0:
        raise InvalidInputError(f"temperature={temperature}: 0 (greedy) or above is expected")
    plain, steered = (
        _continued(hooked, ids, some, max_new_tokens, temperature, seed)
        for some in ((), tuple(interventions))
    )
    return SideBySide(prompt, plain, steered)


def _prompt_ids(hooked: HookedModel, prompt: str, max_new_tokens: int) -> torch.Tensor:
    if not isinstance(hooked.runner, TransformersRunner):
        raise InvalidInputError(
            f"a {type(hooked.model).__name__} is not continued here; load the transformers model"
        )
    if hooked.tokenizer is None:
        raise InvalidInputError(
            "a prompt is text, and this model has no tokenizer; pass tokenizer="
        )
    ids: list[int] = hooked.tokenizer(prompt)["input_ids"]
    if not ids:
        raise InvalidInputError(f"prompt={prompt!r} gives no tokens")
    window = hooked.context_window
    if max_new_tokens < 1 or (window is not None and len(ids) + max_new_tokens > window):
        raise InvalidInputError(
            f"{len(ids)} prompt tokens and {max_new_tokens} new ones: {hooked.name} has a context "
            f"window of {window}; at least 1 new token"
        )
    return torch.tensor([ids], device=hooked.device)


def _continued(
    hooked: HookedModel,
    ids: torch.Tensor,
    interventions: Sequence[Intervention],
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> Continuation:
    tokenizer = hooked.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {}
    with (
        torch.random.fork_rng(devices=[] if ids.device.type == "cpu" else None),
        torch.no_grad(),
        evaluation_mode(hooked.model),
        inject(hooked, *interventions),
    ):
        torch.manual_seed(seed)
        output = hooked.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_new_tokens,
            pad_token_id=pad,
            return_dict_in_generate=True,
            output_logits=True,
            **(sampling or {"do_sample": False}),
        )
    new = output.sequences[0, ids.shape[1] :]
    logits = torch.stack(output.logits)[: len(new), 0].float()
    along = logits.log_softmax(-1).gather(-1, new[:, None])[:, 0]
    return Continuation(
        tokenizer.decode(new, skip_special_tokens=True),
        tuple(tokenizer.decode([token]) for token in new.tolist()),
        tuple(along.tolist()),
    )
