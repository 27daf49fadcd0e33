"""Training a dictionary against the peers, and what the dictionaries are worth.

First table: time from model and text to a dictionary of a stated quality, icl-gpt2, the output of
block 2, 1,024 latents, 16 active. Every trainer is given the same text, the same number of latents
and the learning-rate schedule it is to be used with; the number of training tokens of each is the
first of a fixed list whose result explains enough of the variance of the same held-out states.
Only then are the runs timed, in turns. Peers:

- SAELens's own runner on a TransformerBridge of the same weights, with our learning rate, batch
  size and schedule (its defaults, batches of 4,096 and a rate of 3e-4, are for runs a thousand
  times as long: here they make 30 steps);
- dictionary_learning's top-k trainer, with its default learning rate and with ours. It reads
  through our reader, since its own buffer does not run with this version of nnsight.

Second table: top-k and spike-and-slab trained on as many tokens, at matched L0, measured on
held-out text: reconstruction, cross-entropy recovered, living features.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from harness import Options, Result, Row, Target, base_row, missing, paired, row_of, say

from ed_interp.models.load import load
from ed_interp.probes import dictionaries
from ed_interp.probes.dictionaries.reader import Batches, stream_states
from ed_interp.probes.dictionaries.text import Windows, text_source

MODEL, SITE = "icl-gpt2", "blocks.2.hook_resid_post"
LATENTS, K, BATCH, WINDOW, LR = 1024, 16, 512, 128, 2e-3
FVU = 0.06
BUDGETS = (61_440, 81_920, 122_880, 184_320, 276_480, 414_720)
NOT_SLOWER = Target("at least", 1 / 1.1)
TOKENS = 300_000

Encoder = Callable[[torch.Tensor], torch.Tensor]
Trainer = Callable[[int], Encoder]
"""From a number of training tokens to what reconstructs."""


def run(options: Options) -> Iterator[Result]:
    """Two tables."""
    os.environ["WANDB_MODE"] = "disabled"
    yield _speed(options)
    yield _worth(options)


def _speed(options: Options) -> Result:
    fvu = 0.2 if options.quick else FVU
    hooked = load(MODEL)
    site = hooked.site(SITE)
    texts = _documents(hooked, 500_000)
    windows = Windows(text_source(texts), hooked, window=WINDOW)
    held = windows.once("held-out", seed=1, tokens=15_000)
    states = torch.cat([part.states for part in stream_states(hooked, site, held)])

    trainers: dict[str, Trainer] = {"ours": _ours(hooked, texts)}
    trainers["SAELens's runner, our learning rate and schedule"] = _runner(hooked, texts)
    absent: list[Row] = []
    if importlib.util.find_spec("dictionary_learning") is None:
        absent.append(missing("dictionary_learning", "dictionary-learning"))
    else:
        trainers |= {
            "dictionary_learning, its learning rate": _dictionary_learning(hooked, windows, None),
            "dictionary_learning, our learning rate": _dictionary_learning(hooked, windows, LR),
        }
    budgets: dict[str, int] = {}
    reached: dict[str, float] = {}
    for name, train in trainers.items():
        for tokens in BUDGETS:
            say(f"dictionaries: {name}, {tokens} tokens")
            with _silent():
                found = _unexplained(train(tokens), states)
            reached[name] = found
            if found <= fvu:
                budgets[name] = tokens
                break
    if "ours" not in budgets:
        rows = [Row("ours", note=f"did not reach {fvu} in {BUDGETS[-1]} tokens")]
        return Result("dictionaries: time to a stated quality", "time / ours", tuple(rows))

    def work(name: str) -> Callable[[], Any]:
        def once() -> Any:
            with _silent():
                return trainers[name](budgets[name])

        return once

    peers = {name: work(name) for name in budgets if name != "ours"}
    found_times = paired(
        work("ours"), peers, rounds=options.rounds_or(3, 1), label="dictionaries", warm=True
    )
    rows = [
        base_row(f"ours, {budgets['ours']:,} tokens", found_times, f"FVU {reached['ours']:.3f}")
    ]
    rows += [
        row_of(
            f"{name}, {budgets[name]:,} tokens",
            found_times[name],
            target=NOT_SLOWER,
            note=f"FVU {reached[name]:.3f}",
        )
        for name in peers
    ]
    rows += [
        Row(name, note=f"FVU {reached[name]:.3f} after {BUDGETS[-1]:,} tokens: not reached")
        for name in trainers
        if name not in budgets
    ]
    return Result(
        f"dictionaries: from model and text to an FVU of at most {fvu}",
        "time / ours",
        (*rows, *absent),
        f"{MODEL}, {SITE}, {LATENTS} latents, {K} active, {torch.get_num_threads()} thread(s); "
        "median of paired ratios of CPU time",
    )


def _documents(hooked: Any, tokens: int) -> list[str]:
    """Long documents, so that every reader makes full windows of them."""
    stream = Windows(text_source(), hooked, window=64).once("train", seed=7, tokens=tokens)
    pieces = [hooked.tokenizer.decode(ids) for ids in stream]
    return ["\n".join(pieces[start : start + 60]) for start in range(0, len(pieces), 60)]


@torch.no_grad()
def _unexplained(reconstruct: Encoder, states: torch.Tensor) -> float:
    left = (reconstruct(states) - states).square().sum()
    return float(left / (states - states.mean(0)).square().sum())


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without the bars and the remarks of the peers."""
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    logging.disable(logging.NOTSET)


def _ours(hooked: Any, texts: list[str]) -> Trainer:
    def train(tokens: int) -> Encoder:
        return dictionaries.train(
            hooked, site=SITE, text=texts, latents=LATENTS, k=K, tokens=tokens, window=WINDOW
        ).reconstruct

    return train


def _runner(hooked: Any, texts: list[str]) -> Trainer:
    import datasets

    from ed_interp.models.transformer_lens import to_transformer_lens
    from ed_interp.probes.dictionaries import backend  # noqa: F401  (SAELens, quietly)

    with _silent():
        bridge = to_transformer_lens(hooked.model, tokenizer=copy.deepcopy(hooked.tokenizer))
    data = datasets.Dataset.from_dict({"text": texts})

    def train(tokens: int) -> Encoder:
        from sae_lens import (
            LanguageModelSAERunnerConfig,
            LanguageModelSAETrainingRunner,
            LoggingConfig,
            TopKTrainingSAEConfig,
        )

        steps = tokens // BATCH
        config = LanguageModelSAERunnerConfig(
            sae=TopKTrainingSAEConfig(
                d_in=hooked.d_model,
                d_sae=LATENTS,
                k=K,
                normalize_activations="expected_average_only_in",
                decoder_init_norm=1.0,
            ),
            model_name=MODEL,
            hook_name=SITE,
            dataset_path="texts",
            is_dataset_tokenized=False,
            streaming=False,
            context_size=WINDOW,
            prepend_bos=False,
            sequence_separator_token=None,
            training_tokens=tokens,
            # Windows to shuffle among: 8,192 tokens, more than its default of 20.
            n_batches_in_buffer=64,
            n_batches_for_norm_estimate=16,
            train_batch_size_tokens=BATCH,
            lr=LR,
            lr_warm_up_steps=steps // 20,
            lr_decay_steps=steps // 5,
            dead_feature_window=max(10, min(1000, steps // 10, 200_000 // BATCH)),
            device="cpu",
            output_path=None,
            checkpoint_path=None,
            logger=LoggingConfig(log_to_wandb=False),
        )
        runner = LanguageModelSAETrainingRunner(
            config, override_dataset=data, override_model=bridge
        )
        made = runner.run()
        return lambda states: made.decode(made.encode(states))

    return train


def _dictionary_learning(hooked: Any, windows: Windows, lr: float | None) -> Trainer:
    from dictionary_learning.trainers.top_k import TopKTrainer

    def train(tokens: int) -> Encoder:
        steps = tokens // BATCH
        trainer = TopKTrainer(
            steps=steps,
            activation_dim=hooked.d_model,
            dict_size=LATENTS,
            k=K,
            layer=2,
            lm_name=MODEL,
            lr=lr,
            # Its default of 1,000 is for runs a hundred times as long.
            warmup_steps=max(1, steps // 20),
            decay_start=steps - steps // 5,
            seed=0,
            device="cpu",
        )
        batches = Batches(
            hooked,
            hooked.site(SITE),
            windows,
            batch_size=BATCH,
            blocks_of=max(1, min(steps, 128)),
            seed=0,
        )
        for step in range(steps):
            trainer.update(step, next(batches))
        return lambda states: trainer.ae(states)

    return train


def _worth(options: Options) -> Result:
    tokens = 100_000 if options.quick else TOKENS
    rows: list[Row] = []
    kept: dict[str, Any] = {}

    def measured(name: str, k: int, kind: str) -> Any:
        say(f"dictionaries: {name}")
        made = dictionaries.train(
            MODEL,
            site=SITE,
            architecture=kind,
            latents=LATENTS,
            k=k,
            tokens=tokens,
            seed=options.seed,
        )
        return dictionaries.measure(made, MODEL, tokens=60_000, tasks=(), absorption=False)

    kept["top-k"] = measured("top-k", K, "topk")
    kept["spike-slab"] = measured("spike-slab", K, "spike-slab")
    # Whatever L0 it settled at: top-k is given as many.
    matched = round(kept["spike-slab"].l0)
    if matched != K:
        kept[f"top-k, {matched} active"] = measured("matched top-k", matched, "topk")
    for name, found in kept.items():
        numbers = found.summary()
        plain = name == "top-k"
        rows += [
            Row(f"{name}: L0", (found.l0,)),
            Row(f"{name}: fraction of variance unexplained", (found.fvu,)),
            Row(
                f"{name}: cross-entropy recovered, of zero ablation",
                (numbers["ce_recovered_zero"],),
                target=Target("at least", 0.9) if plain else None,
                note=f"{found.recovered.against_zero_low:.4f} to "
                f"{found.recovered.against_zero_high:.4f}",
            ),
            Row(
                f"{name}: cross-entropy recovered, of mean ablation",
                (numbers["ce_recovered_mean"],),
                note=f"{found.recovered.against_mean_low:.4f} to "
                f"{found.recovered.against_mean_high:.4f}",
            ),
            Row(
                f"{name}: share of dead latents",
                (found.dead / LATENTS,),
                target=Target("at most", 0.1) if plain else None,
                note=f"{found.living} living",
            ),
            Row(f"{name}: monosemanticity", (numbers["monosemanticity"],)),
        ]
    return Result(
        "dictionaries: top-k and spike-and-slab at matched L0",
        "value",
        tuple(rows),
        f"{MODEL}, {SITE}, {LATENTS} latents, {tokens:,} training tokens, seed {options.seed}; "
        "held-out generated text, no text file",
    )
