"""Finding directions: extraction against steering-vectors, and what function vectors restore.

*Extraction*: the mean difference at all 12 block outputs of a GPT-2-small-sized model with random
weights, from pairs of texts of 8 to 64 words (log-uniform, as instructions, answers and short
passages come), against ``steering_vectors.train_steering_vector`` at its default batch size (1) and
at the batch size that is best for it here. Both are given the same texts and tokenizer, and their
vectors are compared before anything is timed. Ours chooses its batches by itself.

*Function vectors* on the bundled model: share of the accuracy gap between zero and eight shots that
is recovered without demonstrations, one ratio per seed; see ``ed_interp.eval.steering.recovery``.
"""

from __future__ import annotations

import importlib.util
import random
import statistics
import warnings
from collections.abc import Iterator
from typing import Any

import tokenizers
import torch
from harness import (
    Options,
    Result,
    Row,
    Target,
    Work,
    base_row,
    missing,
    paired,
    row_of,
    say,
    timed,
)
from subjects import gpt2
from transformers import PreTrainedTokenizerFast

from ed_interp.eval.steering.recovery import OWN, RANDOM, STATE, SUM, recovery
from ed_interp.models.hooked import HookedModel
from ed_interp.probes.directions.find import find_direction
from ed_interp.probes.directions.pairs import Contrast

PAIRS, WORDS = 48, 2000
BATCH_SIZES = (2, 4, 8, 16, 32)
BEST, DEFAULT = Target("at least", 1.3), Target("at least", 10.0)
HALF, NOTHING = Target("at least", 0.5), Target("at most", 0.1)
TOLERANCE = 1e-6


def run(options: Options) -> Iterator[Result]:
    """Two tables."""
    yield _extraction(options)
    yield _recovered(options)


def _extraction(options: Options) -> Result:
    torch.manual_seed(0)
    model = gpt2()
    tokenizer = _tokenizer()
    hooked = HookedModel.wrap(model, tokenizer, name="gpt2-random")
    pairs = _pairs(12 if options.quick else PAIRS, seed=options.seed)
    contrast = Contrast.of(pairs)

    def ours() -> Any:
        return find_direction(hooked, contrast)

    title = "extraction: mean difference at 12 blocks of a GPT-2-small-sized model"
    if importlib.util.find_spec("steering_vectors") is None:
        row = missing("steering-vectors", "steering-vectors")
        return Result(title, "time / ours", (row,))
    best, note = _best_batch_size(model, tokenizer, pairs)
    work: dict[str, Work] = {
        f"steering-vectors, batch size {best} (its best here)": _theirs(
            model, tokenizer, pairs, best
        ),
        "steering-vectors, batch size 1 (its default)": _theirs(model, tokenizer, pairs, 1),
    }
    direction = ours()
    targets = dict(zip(work, (BEST, DEFAULT), strict=True))
    notes = {}
    for name, theirs in work.items():
        vectors = theirs().layer_activations
        off = max(
            float((vectors[site.layer] - direction[site]).abs().max()) for site in direction.sites
        )
        verdict = "vectors equal ours" if off < TOLERANCE else "VECTORS DIFFER from ours"
        notes[name] = f"{verdict} (by {off:.1g})"
    found = paired(ours, work, rounds=options.rounds_or(5, 2), label="directions", warm=True)
    rows = [base_row("ours", found)]
    rows += [
        row_of(name, found[name], target=targets[name], note=f"{notes[name]}; {note}")
        for name in work
    ]
    lengths = [len(text.split()) for pair in pairs for text in pair]
    return Result(
        title,
        "time / ours",
        tuple(rows),
        f"{len(pairs)} pairs, {min(lengths)} to {max(lengths)} words (median "
        f"{statistics.median(lengths):g}), float32, {torch.get_num_threads()} thread(s); median of "
        "paired ratios of CPU time",
    )


def _recovered(options: Options) -> Result:
    seeds = range(2 if options.quick else 5)
    say(f"directions: function vectors, {len(seeds)} seeds")
    taken, found = timed(lambda: recovery("icl-gpt2", seeds=seeds))
    targets = {OWN: HALF, RANDOM: NOTHING}
    frame = found.to_frame()
    rows = []
    for kind in (OWN, RANDOM, SUM, STATE):
        part = frame[frame.vector == kind]
        sites = ", ".join(sorted(set(part.site)))
        strengths = ", ".join(f"{value:g}" for value in sorted(set(part.coefficient)))
        note = f"accuracy {part.accuracy.mean():.3f}; at {sites}, strength {strengths}"
        rows.append(Row(kind, tuple(part.recovered), target=targets.get(kind), note=note))
    heads = sorted({str(list(chosen)) for chosen in found.heads})
    return Result(
        "function vectors on icl-gpt2: share of the gap between 0 and 8 shots that is recovered",
        "recovered",
        tuple(rows),
        f"accuracy on held-out pairs {frame.zero_shot.mean():.3f} at 0 shots and "
        f"{frame.eight_shot.mean():.3f} at 8, mean of 24 relations; {len(seeds)} seeds; heads "
        f"{' or '.join(heads)}; {taken.cpu:.0f} s of CPU time",
    )


def _theirs(model: Any, tokenizer: Any, pairs: list[tuple[str, str]], size: int) -> Work:
    from steering_vectors import train_steering_vector

    def work() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return train_steering_vector(model, tokenizer, pairs, batch_size=size)

    return work


def _best_batch_size(model: Any, tokenizer: Any, pairs: list[tuple[str, str]]) -> tuple[int, str]:
    """The size at which steering-vectors is fastest here, by the least of two runs each."""
    seconds = {}
    for size in BATCH_SIZES:
        say(f"directions: steering-vectors at batch size {size}")
        work = _theirs(model, tokenizer, pairs, size)
        seconds[size] = min(timed(work)[0].cpu for _ in range(2))
    best = min(seconds, key=lambda size: seconds[size])
    return best, "CPU s by batch size " + ", ".join(f"{k}: {v:.1f}" for k, v in seconds.items())


def _tokenizer() -> PreTrainedTokenizerFast:
    """Words to ids, one each; nothing is downloaded."""
    words = {"<pad>": 0} | {f"w{number}": number + 1 for number in range(WORDS)}
    model = tokenizers.models.WordLevel(words, unk_token="<pad>")
    plain = tokenizers.Tokenizer(model)
    plain.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="<pad>", padding_side="right"
    )


def _pairs(count: int, *, seed: int) -> list[tuple[str, str]]:
    """Pairs that share most of their text, of 8 to 64 words, log-uniform."""
    rng = random.Random(seed)

    def words(number: int) -> str:
        return " ".join(f"w{rng.randrange(WORDS)}" for _ in range(number))

    found = []
    for _ in range(count):
        length = round(8 * 8 ** rng.random())
        shared = words(length - 2)
        found.append((f"{shared} {words(2)}", f"{shared} {words(rng.randint(1, 3))}"))
    return found
