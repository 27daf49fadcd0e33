"""The same prompt continued with and without interventions, with the log-probability of each token.

Greedy unless a temperature is given; with one, both continuations draw from the same seed. Cost:
two runs of ``generate`` per prompt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ed_interp.errors import InvalidInputError
from ed_interp.eval.steering.options import ApplyOptions
from ed_interp.eval.steering.plan import direction_of, selector_of
from ed_interp.eval.steering.rows import Continuation, SideBySide
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load
from ed_interp.models.runners import TransformersRunner, evaluation_mode
from ed_interp.options import takes_options
from ed_interp.progress import Progress, track
from ed_interp.results import Result
from ed_interp.streams.direction import Direction
from ed_interp.streams.injection import Add, Intervention, inject
from ed_interp.streams.injection.where import Selector
from ed_interp.tables import Table


@dataclasses.dataclass(frozen=True)
class SteeredTexts(Result):
    """Prompts, each continued without and with a direction. Made by :func:`continued`."""

    KIND = "steered-texts"
    model: str
    method: str
    """How the direction was found."""
    sites: tuple[str, ...]
    coefficient: float
    where: str
    """Tokens that were steered."""
    seed: int
    prompts: tuple[SideBySide, ...]
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def title(self) -> str:
        return f"{self.coefficient:g} times {self.method} in {self.model}"

    def headline(self) -> str:
        return f"Added at {', '.join(self.sites)}; tokens: {self.where}."

    def tables(self) -> list[Table]:
        rows = [(item.prompt, item.unsteered.text, item.steered.text) for item in self.prompts]
        heads, words = ("prompt", "unsteered", "steered"), frozenset(range(3))
        return [Table(name="prompts", caption="", heads=heads, rows=rows, text=words)]


@takes_options(ApplyOptions)
def continued(
    model: Any = None,
    direction: Direction | str | Path | None = None,
    prompts: Sequence[str] | None = None,
    *,
    where: Selector | str | None = None,
    options: ApplyOptions,
    progress: Progress = None,
) -> SteeredTexts:
    """Continue prompts without and with a direction.

    Args:
        model: Anything :func:`ed_interp.load` takes, on ``transformers``.
        direction: A direction, or a file of one.
        prompts: Texts.
        where: Tokens to steer: a selector, or a name.
        progress: See :mod:`ed_interp.progress`.
    """
    vectors, tokens = direction_of(direction, options), selector_of(where)
    added = Add(vectors, coefficient=options.coefficient, where=tokens)
    hooked = options.load(model)
    sampling = {n: getattr(options, n) for n in ("max_new_tokens", "temperature", "seed")}
    rows = []
    with track(progress, "continuing", len(options.prompts)) as advance:
        for prompt in options.prompts:
            rows.append(side_by_side(hooked, prompt, [added], **sampling))
            advance(1)
    return SteeredTexts(
        model=hooked.name,
        method=vectors.provenance.method,
        sites=tuple(vectors.vectors),
        coefficient=options.coefficient,
        where=options.where,
        seed=options.seed,
        prompts=tuple(rows),
        settings={"options": options.to_dict()},
    )


def side_by_side(
    model: Any,
    prompt: str,
    interventions: Sequence[Intervention],
    *,
    max_new_tokens: int = 20,
    temperature: float = 0.0,
    seed: int = 0,
) -> SideBySide:
    """Continue ``prompt`` without and with ``interventions``, as ``inject`` takes them.

    The model is anything :func:`ed_interp.load` takes, on ``transformers``. A temperature of 0 is
    greedy; otherwise both continuations are drawn from the same ``seed``.

    Raises:
        InvalidInputError: a prompt that is empty or leaves no room, or a TransformerLens model.
    """
    hooked = load(model)
    if not isinstance(hooked.runner, TransformersRunner):
        kind = type(hooked.model).__name__
        raise InvalidInputError(f"generation needs a transformers model, got a {kind}")
    if hooked.tokenizer is None:
        raise InvalidInputError(f"{hooked.name} needs a tokenizer to be prompted; pass tokenizer=")
    tokens: list[int] = hooked.tokenizer(prompt)["input_ids"]
    if not tokens:
        raise InvalidInputError(f"prompt must hold at least one token, got {prompt!r}")
    window = hooked.context_window
    if max_new_tokens < 1 or (window is not None and len(tokens) + max_new_tokens > window):
        many = f"{len(tokens)} prompt tokens and {max_new_tokens} new ones (1 or more)"
        raise InvalidInputError(f"{many} must fit into a context window of {window}")
    if not temperature >= 0:
        raise InvalidInputError(f"temperature must be 0 (greedy) or greater, got {temperature}")
    sampling: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": temperature > 0}
    if temperature:
        # From the whole distribution: transformers keeps the 50 likeliest tokens by default.
        sampling |= {"temperature": temperature, "top_k": 0}
    tokenizer = hooked.tokenizer
    # A single row is not padded, but generate warns about a tokenizer without the token.
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    sampling["pad_token_id"] = pad
    ids = torch.tensor([tokens], device=hooked.device)
    both = (_continued(hooked, ids, some, sampling, seed) for some in ((), tuple(interventions)))
    return SideBySide(prompt, *both)


def _continued(
    hooked: HookedModel,
    ids: torch.Tensor,
    interventions: Sequence[Intervention],
    sampling: dict[str, Any],
    seed: int,
) -> Continuation:
    with (
        # The caller's random state is left as it was.
        torch.random.fork_rng(devices=[] if ids.device.type == "cpu" else None),
        torch.no_grad(),
        evaluation_mode(hooked.model),
        inject(hooked, *interventions),
    ):
        # Both continuations of a prompt draw the same numbers: they differ by the steering alone.
        torch.manual_seed(seed)
        output = hooked.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            return_dict_in_generate=True,
            output_logits=True,
            **sampling,
        )
    new = output.sequences[0, ids.shape[1] :]
    # The logits are those of the model; `scores` would be those after temperature.
    logits = torch.stack(output.logits)[: len(new), 0].float()
    along = logits.log_softmax(-1).gather(-1, new[:, None])[:, 0]
    tokens = tuple(hooked.tokenizer.decode([token]) for token in new.tolist())
    text = hooked.tokenizer.decode(new, skip_special_tokens=True)
    return Continuation(text, tokens, tuple(along.tolist()))
