"""Steered generation against plain generation of the same length, with the key-value cache.

A vector of random numbers is added at one block, at every block, and at one block for generated
tokens only with a coefficient per row; the other kinds of intervention at one block. All generate
the same number of tokens, greedily, from 4 prompts of 32 tokens. The model of GPT-2 small's size
is what the target is stated for; the bundled ``icl-gpt2`` (4 blocks, width 128) is the worst case,
where a forward pass is little more than the overhead of Python. Before anything is timed, the first
logits are compared with a forward pass whose states were changed by a plain hook.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from harness import Options, Result, Row, Target, Work, base_row, paired, row_of
from subjects import gpt2, hooked
from torch import Tensor

import ed_interp
from ed_interp.models.hooked import HookedModel
from ed_interp.streams.injection import Ablate, Add, Clamp, Intervention, Where, inject

BATCH, PROMPT, NEW = 4, 32, 16
TARGET = Target("at most", 1.03)


def run(options: Options) -> Iterator[Result]:
    """Two tables."""
    new = 8 if options.quick else NEW
    yield _table("a GPT-2-small-sized model", hooked(gpt2()), new, options.rounds_or(9, 3), TARGET)
    bundled = ed_interp.load("icl-gpt2", device="cpu")
    yield _table("icl-gpt2, the worst case", bundled, new, options.rounds_or(25, 5), None)


def _table(name: str, model: HookedModel, new: int, rounds: int, target: Target | None) -> Result:
    torch.manual_seed(1)
    ids = torch.randint(3, model.model.config.vocab_size, (BATCH, PROMPT))
    middle = f"blocks.{model.n_layers // 2}.hook_resid_post"
    vector = torch.randn(model.d_model)
    every = [f"blocks.{layer}.hook_resid_post" for layer in range(model.n_layers)]
    rows = torch.tensor([1.0, 2.0, -1.0, 0.0])
    generated = Where(phase="generation")
    kinds: dict[str, list[Intervention]] = {
        "add at one block": [Add(vector, middle)],
        "add at every block": [Add(vector, site) for site in every],
        "add per row, generated tokens only, decaying": [
            Add(vector, middle, coefficient=rows, where=generated, decay=8.0)
        ],
        "ablate at one block": [Ablate(vector, middle)],
        "clamp at one block": [Clamp(vector, middle, value=2.0)],
    }
    note = _checked(model, ids, vector, middle)
    work = {kind: _work(model, ids, new, what) for kind, what in kinds.items()}
    taken = paired(_work(model, ids, new, []), work, rounds=rounds, label=name)
    rows_of = [base_row("plain generate", taken)]
    rows_of += [row_of(kind, taken[kind], target=target) for kind in kinds]
    return Result(
        f"injection: steered generation, {name}",
        "time / plain",
        (*rows_of, Row("the first logits against a plain hook", note=note)),
        f"{BATCH} x {PROMPT} tokens, {new} new ones, cache, float32, {torch.get_num_threads()} "
        "thread(s); the context is entered each time; median of paired ratios of CPU time",
    )


def _work(model: HookedModel, ids: Tensor, new: int, what: list[Intervention]) -> Work:
    def work() -> Any:
        with contextlib.ExitStack() as stack:
            if what:
                stack.enter_context(inject(model, *what))
            return model.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=new,
                min_new_tokens=new,
                pad_token_id=0,
            )

    return work


def _checked(model: HookedModel, ids: Tensor, vector: Tensor, site: str) -> str:
    block: Any = model.runner.blocks[model.site(site).layer]  # type: ignore[attr-defined]

    def plain_hook(_: Any, __: Any, output: Any) -> Any:
        return (output[0] + vector, *output[1:]) if isinstance(output, tuple) else output + vector

    logits: Callable[[], Tensor] = lambda: model.model(ids).logits  # noqa: E731
    with torch.no_grad():
        with inject(model, Add(vector, site)):
            ours = logits()
        handle = block.register_forward_hook(plain_hook)
        expected = logits()
        handle.remove()
    off = float((ours - expected).abs().max())
    return f"{'equal' if off < 1e-4 else 'DIFFERENT'} (by {off:.1g})"
