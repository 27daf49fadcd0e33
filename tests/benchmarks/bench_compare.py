"""A comparison against the forward passes it needs; and how often it finds something in nothing.

What is needed: for each of two models the packed prompts with their answers, the single tokens, and
neutral text; timed as those bare passes by the same runners. What is timed against it is a whole
comparison: drawing nothing, but checking the adapter's before-state, choosing the path, scoring,
estimating emergence, divergence, every test and interval. Measuring decoding speed is work of its
own that was asked for, and is left out of both.

    python tests/benchmarks/run.py compare
    python tests/benchmarks/bench_compare.py --null 200     # false alarms, some 5 minutes

The null: ``icl-gpt2`` against itself, both with independent noise in the stream after block 0, on
the same prompts and texts; there is nothing to find. An alarm is any effect of any family
(behaviour, relations, forgetting, emergence) at the corrected 5% level. It fails (exit 1) if more
than 5% of the runs raise one.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import random
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from harness import Options, Result, Row, Target, base_row, paired, row_of
from subjects import gpt2, relation

from ed_interp.eval.compare.control import open_panel
from ed_interp.eval.compare.subjects import Subject, open_subject
from ed_interp.models.hooked import HookedModel
from ed_interp.models.runners import Inputs
from ed_interp.models.sites import resid_post
from ed_interp.probes.emergence.measure import read
from ed_interp.streams.injection import Transform, inject

SHOTS = range(9)
NOISE = 0.1
"""Of the null, in standard deviations of the state it is added to."""


def run(options: Options) -> Iterator[Result]:
    """The ratio, on GPT-2 small (``--quick``: a smaller one)."""
    sizes = {"blocks": 6, "width": 384} if options.quick else {}
    prompts, texts = (40, 10) if options.quick else (100, 20)
    control = HookedModel.wrap(gpt2(**sizes), name="gpt2-random")
    treated = HookedModel.wrap(_adapted(control.model), name="lora")
    population = relation(prompts, shots=SHOTS, seed=options.seed)
    rng = random.Random(options.seed)
    vocabulary = control.config.vocab_size
    windows = tuple(tuple(rng.randrange(vocabulary) for _ in range(128)) for _ in range(texts))

    def whole() -> None:
        panel = open_panel(control, on=population, watch=None, texts=(), cost=False)
        questions = dataclasses.replace(panel.questions, texts=windows)
        dataclasses.replace(panel, questions=questions).compare(treated)

    def needed() -> None:
        for model in (control, treated):
            read(
                model, population, position="zero", normalisation="layernorm", answers=True,
                path="packed", batch_size=None, folder=None, progress=None,
            )  # fmt: skip
            _text_pass(model, windows)

    rounds = options.rounds_or(5, 2)
    found = paired(needed, {"compare": whole}, rounds=rounds, label="compare")
    rows: list[Row] = [
        base_row("forward passes of both models", found),
        row_of("whole comparison", found["compare"], target=Target("at most", 1.2)),
    ]
    setting = (
        f"{prompts} prompts, shots 0 to 8, {texts} texts of 128 tokens; frozen model and LoRA, "
        f"{control.n_layers} blocks, width {control.d_model}, random weights; CPU time"
    )
    title = "compare: a whole comparison against the forward passes it needs"
    yield Result(title, "time / passes", tuple(rows), setting)


def _adapted(base: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=8, target_modules=["c_attn"], fan_in_fan_out=True)
    model = get_peft_model(copy.deepcopy(base), config).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data += 0.02 * torch.randn_like(parameter)
    return model


def _text_pass(model: HookedModel, windows: tuple[tuple[int, ...], ...]) -> None:
    ids = torch.tensor(windows)
    reads = torch.arange(ids.shape[1] - 1).expand(len(ids), -1)
    last = [resid_post(model.n_layers - 1)]
    size = max(1, 2**25 // model.config.vocab_size // ids.shape[1])
    for start in range(0, len(ids), size):
        part = slice(start, start + size)
        model.runner.run(
            Inputs(ids[part], valid=torch.ones_like(ids[part], dtype=torch.bool)),
            sites=last,
            reads=reads[part, :1],
            logit_reads=reads[part],
        )


def false_alarms(runs: int, *, prompts: int = 40, texts: int = 24) -> list[str]:
    """What was found in nothing, one line per run with an alarm."""
    hooked = open_subject("icl-gpt2").hooked
    found = []
    for number in range(runs):
        sides = [_noisy(hooked, 2 * number + side) for side in (0, 1)]
        panel = open_panel(
            sides[0], on="mixed-country", shots=(0, 4), prompts=prompts, seed=number,
            watch=("present-past", "number-ordinal", "noun-french"), watch_prompts=16,
            watch_shots=(2,), texts=texts, text_tokens=64,
            resamples=100, path="separate",
            cost=False, samples=False,
        )  # fmt: skip
        held = panel.compare(sides[1]).significant()
        if held:
            best = held[0]
            found.append(f"run {number}: {best.family} {best.name} {best.metric} {best.p_holm:.3g}")
            print(found[-1], file=sys.stderr)
        print(f"{number + 1}/{runs}: {len(found)} alarms", file=sys.stderr, flush=True)
    return found


def _noisy(hooked: HookedModel, seed: int) -> Subject:
    """The model with noise of its own in the stream of every prompt and text.

    Single tokens are left alone: a token's state is one number for all prompts that hold it, so
    noise there would be a difference between the models, and not between samples.
    """
    generator = torch.Generator().manual_seed(seed)

    def add(states: torch.Tensor, selected: torch.Tensor) -> torch.Tensor:
        if states.shape[1] == 1:
            return states
        spread = NOISE * states.std(dim=-1, keepdim=True)
        return states + spread * torch.randn(states.shape, generator=generator)

    written = Transform("blocks.0.hook_resid_post", add)
    return Subject(
        f"noise {seed}", "steered", hooked, scope=lambda: inject(hooked, written, strict=False)
    )


def main() -> int:
    """The null, from the command line."""
    parser = argparse.ArgumentParser(description="False alarms of a comparison.")
    parser.add_argument("--null", type=int, default=200, help="runs")
    runs = parser.parse_args().null
    warnings.filterwarnings("ignore", category=FutureWarning)
    torch.set_num_threads(1)
    found = false_alarms(runs)
    print(f"{len(found)} of {runs} runs of nothing raised an alarm ({len(found) / runs:.1%})")
    for line in found:
        print(line)
    return 1 if len(found) > 0.05 * runs else 0


if __name__ == "__main__":
    sys.exit(main())
