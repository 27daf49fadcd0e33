"""What a bundled model must do to ship, measured on its weights.

1. TransformerLens's own head detector finds an induction head (score at least 0.5) on repeated
   sequences of random words.
2. Accuracy is near chance at 0 shots, and on pairs that no training prompt held it passes 80% of
   its ceiling (the best over 0 to 16 shots) by 8 shots. A model that has met a word in prompts of
   some relations guesses among these, so held-out pairs lie below chance at 0 shots: there,
   chance is a bound; on trained pairs it is met from both sides.
3. Plain text from the same grammar, its fact sentences unseen, is modelled at under half of its
   unigram entropy.

Cost: about 20 s on one CPU core; the head detector holds one sequence's activations at a time.
"""

import math
import random
from collections import Counter
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ed_interp.models.recipe.corpus import Corpus, prompt
from ed_interp.models.recipe.tables import Pair, chance, held_out, relations, trained

MAX_SHOTS = 16
INDUCTION_SCORE = 0.5
CEILING_SHARE = 0.8
CEILING_SHOTS = 8
CHANCE_MARGIN = 0.1
ENTROPY_SHARE = 0.5


def pad_rows(rows: list[list[int]], *, value: int = 0) -> Int[Tensor, "row pos"]:
    """Rows of ids, padded on the right: in a causal model nothing before the padding sees it."""
    width = max(map(len, rows))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows])


@torch.inference_mode()
def predictions(model: PreTrainedModel, rows: list[list[int]]) -> list[list[int]]:
    """The most likely next token after each token of each row."""
    ids = pad_rows(rows).to(model.device)
    best = (
        model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
        .logits.argmax(-1)
        .cpu()
    )
    return [best[k, : len(row)].tolist() for k, row in enumerate(rows)]


def answered(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: list[tuple[str, str]],
    *,
    batch: int = 64,
) -> list[bool]:
    """For each (prompt, answer): whether every token of the answer is the most likely one."""
    right: list[bool] = []
    for start in range(0, len(questions), batch):
        chunk = questions[start : start + batch]
        heads = [tokenizer(text)["input_ids"] for text, _ in chunk]
        tails = [tokenizer(f" {a}", add_special_tokens=False)["input_ids"] for _, a in chunk]
        best = predictions(model, [h + t for h, t in zip(heads, tails, strict=True)])
        for head, tail, row in zip(heads, tails, best, strict=True):
            right.append(row[len(head) - 1 : len(head) + len(tail) - 1] == tail)
    return right


def questions_for(
    name: str, *, seed: int, shots: int, prompts: int, queries: str = "held out"
) -> list[tuple[str, str]]:
    """(prompt, answer) of one relation with demonstrations from trained pairs.

    Args:
        queries: ``held out`` asks for the pairs no training prompt held, each equally often;
            ``trained`` asks for trained pairs, which are then left out of the demonstrations.
    """
    known = trained(seed)[name]
    asked: tuple[Pair, ...] = held_out(seed)[name] if queries == "held out" else known
    rng = random.Random(f"questions {seed} {name} {shots} {queries}")
    questions = []
    for k in range(prompts):
        query = asked[k % len(asked)] if queries == "held out" else rng.choice(asked)
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
    return {
        name: {
            k: sum(right) / len(right)
            for k in shots
            for right in [
                answered(
                    model,
                    tokenizer,
                    questions_for(name, seed=seed, shots=k, prompts=prompts, queries=queries),
                )
            ]
        }
        for name in relations()
    }


def mean_curve(accuracy: dict[str, dict[int, float]]) -> dict[int, float]:
    """Accuracy by shot count, each relation weighing the same."""
    shots = next(iter(accuracy.values()))
    return {k: sum(row[k] for row in accuracy.values()) / len(accuracy) for k in shots}


def mean_chance(*, seed: int) -> float:
    """Chance on held-out queries at 0 shots, each relation weighing the same."""
    per_relation = [
        sum(chance(source) for source, _ in pairs) / len(pairs) for pairs in held_out(seed).values()
    ]
    return sum(per_relation) / len(per_relation)


@torch.inference_mode()
def text_entropies(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, seed: int, documents: int = 60
) -> tuple[float, float]:
    """Cross-entropy and unigram entropy of unseen plain text, nats per token.

    The unigram entropy is that of the token frequencies of the very text that is scored: no
    model that ignores context can do better on it.
    """
    total, count = 0.0, 0
    frequency: Counter[int] = Counter()
    for text in Corpus(seed=seed, stream="held-out text").held_out_text(documents=documents):
        ids = tokenizer(text)["input_ids"]
        logits = model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits
        total += float(
            torch.nn.functional.cross_entropy(
                logits[0, :-1].float().cpu(), torch.tensor(ids[1:]), reduction="sum"
            )
        )
        count += len(ids) - 1
        frequency.update(ids[1:])
    unigram = -sum(n / count * math.log(n / count) for n in frequency.values())
    return total / count, unigram


@dataclass(frozen=True)
class Acceptance:
    """The measured numbers of one model, and whether each criterion holds."""

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
    """Accuracy of guessing the relation at 0 shots, on the held-out pairs."""
    ceiling: float
    """The best of ``accuracy`` over 0 to 16 shots."""
    text_cross_entropy_nats: float
    """On unseen plain text, per token."""
    text_unigram_entropy_nats: float
    """Of the same text, per token."""

    def failures(self) -> list[str]:
        """The criteria that do not hold, one sentence each; empty when the model may ship."""
        found = []
        if self.induction_score < INDUCTION_SCORE:
            found.append(f"induction score {self.induction_score:.2f} is under {INDUCTION_SCORE}")
        if self.accuracy[0] > self.chance + CHANCE_MARGIN:
            found.append(
                f"accuracy at 0 shots is {self.accuracy[0]:.2f}, more than {CHANCE_MARGIN} above "
                f"chance, {self.chance:.2f}"
            )
        if abs(self.trained_accuracy[0] - self.chance) > CHANCE_MARGIN:
            found.append(
                f"accuracy at 0 shots on trained pairs is {self.trained_accuracy[0]:.2f}, not "
                f"within {CHANCE_MARGIN} of chance, {self.chance:.2f}"
            )
        if self.accuracy[CEILING_SHOTS] < CEILING_SHARE * self.ceiling:
            found.append(
                f"accuracy at {CEILING_SHOTS} shots is {self.accuracy[CEILING_SHOTS]:.2f}, under "
                f"{CEILING_SHARE:.0%} of the ceiling, {self.ceiling:.2f}"
            )
        if self.ceiling < self.chance + 0.3:
            found.append(f"the ceiling, {self.ceiling:.2f}, hardly rises above chance")
        if self.text_cross_entropy_nats > ENTROPY_SHARE * self.text_unigram_entropy_nats:
            found.append(
                f"text cross-entropy {self.text_cross_entropy_nats:.2f} nats is over "
                f"{ENTROPY_SHARE:.0%} of the unigram entropy, "
                f"{self.text_unigram_entropy_nats:.2f} nats"
            )
        return found

    def to_record(self) -> dict[str, object]:
        """As JSON values, the verdict included."""
        return {**asdict(self), "failures": self.failures()}


def accept(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    seed: int,
    shots: list[int] | None = None,
    prompts: int = 24,
) -> Acceptance:
    """Measures every criterion on ``model``; ``seed`` is the one the recipe was run with.

    Args:
        shots: shot counts to measure; 0 to 16 unless told. Must hold 0 and 8.
        prompts: questions for each relation and shot count.
    """
    from ed_interp.models.recipe.induction import induction_scores

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
    return Acceptance(
        induction_score=best[0],
        induction_head=best[1],
        accuracy=curve,
        accuracy_by_relation=by_relation,
        trained_accuracy=mean_curve(known),
        chance=mean_chance(seed=seed),
        ceiling=max(curve.values()),
        text_cross_entropy_nats=cross_entropy,
        text_unigram_entropy_nats=unigram,
    )
