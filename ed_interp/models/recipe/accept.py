"""What a bundled model must do to ship, measured on its weights.

1. TransformerLens's head detector finds an induction head (score 0.5 or greater) on repeated
   sequences of random words.
2. Accuracy is near chance at 0 shots, and on pairs of no training prompt it reaches 80% of its
   ceiling (the best over 0 to 16 shots) by 8 shots.
3. The cross-entropy of plain text from the same grammar, with unseen fact sentences, is at most
   half of its unigram entropy.

Cost: about 20 s on one CPU core; the head detector holds one sequence's activations at a time.
"""

import math
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ed_interp.errors import CaptureError
from ed_interp.models.recipe.corpus import Corpus, prompt
from ed_interp.models.recipe.tables import Pair, chance, held_out, relations, trained, words
from ed_interp.models.transformer_lens import to_transformer_lens

MAX_SHOTS = 16
BATCH = 64
INDUCTION_SCORE = 0.5
CEILING_SHARE = 0.8
CEILING_SHOTS = 8
CHANCE_MARGIN = 0.1
ENTROPY_SHARE = 0.5
LOGIT_TOLERANCE = 1e-3
UNIT = 12
COPIES = 5


@torch.inference_mode()
def answered(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, questions: list[tuple[str, str]]
) -> list[bool]:
    """For each (prompt, answer): whether every token of the answer is the most likely one."""
    right: list[bool] = []
    for start in range(0, len(questions), BATCH):
        chunk = questions[start : start + BATCH]
        heads = [tokenizer(text)["input_ids"] for text, _ in chunk]
        tails = [tokenizer(f" {a}", add_special_tokens=False)["input_ids"] for _, a in chunk]
        rows = [head + tail for head, tail in zip(heads, tails, strict=True)]
        # Padded on the right: in a causal model no earlier token attends to the padding.
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=model.device)
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        best = logits.argmax(-1).tolist()
        for head, tail, row in zip(heads, tails, best, strict=True):
            # The prediction of a token is at the position before it.
            right.append(row[len(head) - 1 : len(head) + len(tail) - 1] == tail)
    return right


def questions_for(
    name: str, *, seed: int, shots: int, prompts: int, queries: str = "held out"
) -> list[tuple[str, str]]:
    """(prompt, answer) of one relation with demonstrations from trained pairs.

    ``queries`` are ``held out`` pairs, each equally often, or ``trained`` ones at random.
    """
    known = trained(seed)[name]
    pool: tuple[Pair, ...] = held_out(seed)[name] if queries == "held out" else known
    rng = random.Random(f"questions {seed} {name} {shots} {queries}")
    questions = []
    for k in range(prompts):
        query = pool[k % len(pool)] if queries == "held out" else rng.choice(pool)
        others = [pair for pair in known if pair != query]
        demonstrations = rng.sample(others, min(shots, len(others)))
        questions.append((prompt(demonstrations, query[0]), query[1]))
    return questions


def shot_accuracy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    shots: list[int],
    prompts: int = 24,
    queries: str = "held out",
) -> dict[str, dict[int, float]]:
    """Accuracy by relation and shot count (see :func:`questions_for`)."""

    def accuracy(name: str, k: int) -> float:
        questions = questions_for(name, seed=seed, shots=k, prompts=prompts, queries=queries)
        right = answered(model, tokenizer, questions)
        return sum(right) / len(right)

    return {name: {k: accuracy(name, k) for k in shots} for name in relations()}


def mean_curve(accuracy: dict[str, dict[int, float]]) -> dict[int, float]:
    """Accuracy by shot count, the mean over relations."""
    shots = next(iter(accuracy.values()))
    return {k: sum(row[k] for row in accuracy.values()) / len(accuracy) for k in shots}


@torch.inference_mode()
def text_entropies(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, seed: int, documents: int = 60
) -> tuple[float, float]:
    """Cross-entropy and unigram entropy of unseen plain text, nats per token.

    The unigram entropy is that of the token frequencies of the scored text itself: no model that
    ignores context can do better.
    """
    total, count = 0.0, 0
    frequency: Counter[int] = Counter()
    for text in Corpus(seed=seed, stream="held-out text").held_out_text(documents=documents):
        ids = tokenizer(text)["input_ids"]
        logits = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits
        scores, targets = logits[0, :-1].float().cpu(), torch.tensor(ids[1:])
        total += float(torch.nn.functional.cross_entropy(scores, targets, reduction="sum"))
        count += len(ids) - 1
        frequency.update(ids[1:])
    unigram = -sum(n / count * math.log(n / count) for n in frequency.values())
    return total / count, unigram


@torch.inference_mode()
def induction_scores(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, seed: int, count: int = 10
) -> list[list[float]]:
    """The detector's induction score of every head, ``[layer][head]``.

    The mean over ``count`` sequences: random distinct words in random order, ``COPIES`` times.
    """
    from transformer_lens.head_detector import detect_head

    bridge: Any = to_transformer_lens(model, tokenizer=tokenizer)
    # The detector makes token ids itself: with a begin token only if the model's tokenizer adds it.
    bridge.cfg.default_prepend_bos = bool(tokenizer("")["input_ids"])
    # Scores of a copy that computes something else would mean nothing.
    ids = torch.arange(5, 100, device=model.device).unsqueeze(0)
    expected = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    worst = float((expected - bridge(ids)).abs().max())
    if worst > LOGIT_TOLERANCE:
        raise CaptureError(
            f"the logits of the TransformerLens bridge must be within {LOGIT_TOLERANCE} of the "
            f"model's, got a difference of {worst:.1e}; use another version of TransformerLens"
        )
    # The first copy has nothing to look back to, so a perfect head scores about 1 - 1 / COPIES.
    rng = random.Random(f"induction {seed}")
    units = ("".join(f" {w}" for w in rng.sample(words(), UNIT)) for _ in range(count))
    heads = torch.stack([detect_head(bridge, unit * COPIES, "induction_head") for unit in units])
    return list(heads.mean(0).tolist())


@dataclass(frozen=True)
class Acceptance:
    """The measured numbers of one model."""

    induction_score: float
    """The best head's score by TransformerLens's detector, of at most 0.8 on five copies."""
    induction_head: tuple[int, int]
    """(layer, head) of that head."""
    accuracy: dict[int, float]
    """Accuracy on held-out pairs by shot count, mean over relations."""
    accuracy_by_relation: dict[str, dict[int, float]]
    """The same for each relation."""
    trained_accuracy: dict[int, float]
    """Accuracy on trained pairs by shot count, for comparison."""
    chance: float
    """Accuracy of guessing the relation at 0 shots on held-out pairs, mean over relations."""
    ceiling: float
    """The best of ``accuracy`` over 0 to 16 shots."""
    text_cross_entropy_nats: float
    """On unseen plain text, per token."""
    text_unigram_entropy_nats: float
    """Of the same text, per token."""

    def failures(self) -> list[str]:
        """The criteria that do not hold, one sentence each; empty when the model may ship."""
        zero, known, at = self.accuracy[0], self.trained_accuracy[0], self.accuracy[CEILING_SHOTS]
        text, unigram = self.text_cross_entropy_nats, self.text_unigram_entropy_nats
        # A model that saw a word in prompts of some relations guesses among these, so held-out
        # pairs are below chance at 0 shots, and chance is only an upper bound. On trained pairs
        # accuracy must be close to it on both sides.
        limit = self.chance + CHANCE_MARGIN
        criteria = {
            f"the induction score must be {INDUCTION_SCORE} or greater, got "
            f"{self.induction_score:.2f}": self.induction_score >= INDUCTION_SCORE,
            f"accuracy at 0 shots must be at most {limit:.2f}, {CHANCE_MARGIN} above chance, got "
            f"{zero:.2f}": zero <= limit,
            f"accuracy at 0 shots on trained pairs must be within {CHANCE_MARGIN} of chance, "
            f"{self.chance:.2f}, got {known:.2f}": abs(known - self.chance) <= CHANCE_MARGIN,
            f"accuracy at {CEILING_SHOTS} shots must be {CEILING_SHARE:.0%} of the ceiling, "
            f"{self.ceiling:.2f}, or greater, got {at:.2f}": at >= CEILING_SHARE * self.ceiling,
            f"the ceiling must be 0.3 above chance, {self.chance:.2f}, or greater, got "
            f"{self.ceiling:.2f}": self.ceiling >= self.chance + 0.3,
            f"text cross-entropy must be at most {ENTROPY_SHARE:.0%} of the unigram entropy, "
            f"{unigram:.2f} nats, got {text:.2f} nats": text <= ENTROPY_SHARE * unigram,
        }
        return [sentence for sentence, holds in criteria.items() if not holds]


def accept(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    shots: list[int] | None = None,
    prompts: int = 24,
) -> Acceptance:
    """Measure every criterion on ``model``, made with ``seed``.

    ``shots`` holds 0 and 8, and is 0 to 16 by default; ``prompts`` are asked per relation and shot.
    """
    model.eval()
    counts = list(range(MAX_SHOTS + 1)) if shots is None else shots
    by_relation = shot_accuracy(model, tokenizer, seed=seed, shots=counts, prompts=prompts)
    curve = mean_curve(by_relation)
    known = shot_accuracy(
        model, tokenizer, seed=seed, shots=[0, 1, 2, 4, 8], prompts=prompts, queries="trained"
    )
    scores = induction_scores(model, tokenizer, seed=seed)
    best = max((score, (k, h)) for k, layer in enumerate(scores) for h, score in enumerate(layer))
    cross_entropy, unigram = text_entropies(model, tokenizer, seed=seed)
    groups = [[chance(source) for source, _ in pairs] for pairs in held_out(seed).values()]
    return Acceptance(
        induction_score=best[0],
        induction_head=best[1],
        accuracy=curve,
        accuracy_by_relation=by_relation,
        trained_accuracy=mean_curve(known),
        chance=sum(sum(group) / len(group) for group in groups) / len(groups),
        ceiling=max(curve.values()),
        text_cross_entropy_nats=cross_entropy,
        text_unigram_entropy_nats=unigram,
    )
