"""Function vectors: what a few attention heads write after demonstrations, added without them.

Todd, Li, Sharma, Mueller, Wallace and Bau (2024, arXiv 2310.15213): the mean output of some heads
at the last token of in-context prompts. Heads are chosen by their average indirect effect: how much
the right answer gains when one head's output in a prompt without the task is replaced by its mean
over prompts with it.

What differs here, each an option:

- *corrupted prompts* are queries without demonstrations (``corrupted="zero_shot"``). Todd et al.
  shuffle the labels (``"shuffled"``); a model that recognises the task from the answers alone
  loses nothing by that, and then no head has an effect.
- *placement*: every head's mean is added in its own block, where attention is added to the stream
  (``placement="own"``). Todd et al. add the sum at one block (``placement="blocks.2..."``), which
  is too late for the blocks before it that a head of an early block feeds. In a model of few
  blocks this matters; :mod:`ed_interp.eval.steering.recovery` measures both.
- *number of heads*: those with at least a tenth of the greatest effect, rather than a fixed number.

Cost: forward passes over ``prompts`` for the means; for choosing heads one more pass over
``prompts`` corrupted prompts per head.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load
from ed_interp.models.sites import Site, resid_pre
from ed_interp.probes.directions.heads import HeadMeans, Heads, attn_out
from ed_interp.progress import Progress, track
from ed_interp.prompts.population import draw
from ed_interp.prompts.tasks import LabelledTask, as_task
from ed_interp.prompts.tokens import ShotTokens, tokenize
from ed_interp.streams.direction import Direction
from ed_interp.streams.paths import read_separate

if TYPE_CHECKING:
    import pandas as pd

Head = tuple[int, int]
Corrupted = Literal["zero_shot", "shuffled"]
SHARE_OF_GREATEST = 0.1


@dataclasses.dataclass(frozen=True)
class HeadEffects:
    """Average indirect effect of every head; :func:`function_vector` chooses heads by it."""

    effects: Float[Tensor, "layer head"]
    """Mean gain in probability of the right answer's first token, each task weighing the same."""
    model: str
    tasks: tuple[str, ...]

    def chosen(self, heads: int | None = None) -> tuple[Head, ...]:
        """The ``heads`` heads of greatest effect; None: all of a tenth of the greatest or more."""
        flat = self.effects.flatten()
        order = flat.argsort(descending=True).tolist()
        top = float(flat[order[0]])
        if top <= 0:
            raise InvalidInputError(
                f"no head of {self.model} restores the answers of {', '.join(self.tasks)} "
                f"(greatest effect {top:.2g}); does the model learn this task in context at all?"
            )
        if heads is None:
            heads = int((flat.double() >= SHARE_OF_GREATEST * top).sum())
        if not 1 <= heads <= len(order):
            wanted = f"heads must be 1 to {len(order)}, the heads of {self.model}"
            raise InvalidInputError(f"{wanted}, got {heads}")
        # A place in the flattened table is layer * width + head.
        width = self.effects.shape[1]
        return tuple(sorted(divmod(place, width) for place in order[:heads]))

    def to_frame(self) -> pd.DataFrame:
        """One row per head: ``layer``, ``head``, ``effect``, ``chosen``; greatest first."""
        import pandas as pd

        kept = set(self.chosen()) if float(self.effects.max()) > 0 else set()
        rows = [
            (layer, head, effect, (layer, head) in kept)
            for layer, line in enumerate(self.effects.tolist())
            for head, effect in enumerate(line)
        ]
        rows.sort(key=lambda row: -row[2])
        return pd.DataFrame(rows, columns=["layer", "head", "effect", "chosen"])


def head_effects(
    model: Any,
    tasks: Sequence[Any],
    *,
    shots: int = 8,
    prompts: int = 48,
    corrupted: Corrupted = "zero_shot",
    seed: int = 0,
    progress: Progress = None,
) -> HeadEffects:
    """Average indirect effect of every head over ``tasks``.

    Args:
        model: Anything :func:`ed_interp.load` takes, on ``transformers``.
        tasks: Labelled tasks: names, objects or sequences of pairs.
        shots: Demonstrations in the prompts that are averaged.
        prompts: Prompts per task, with and without the task in them.
        corrupted: How the task is removed from a prompt: ``zero_shot`` or ``shuffled``.
        seed: Random seed of the prompts.
        progress: See :mod:`ed_interp.progress`.

    Raises:
        CaptureError: an architecture whose heads cannot be read one by one.
    """
    hooked = load(model)
    heads = Heads.of(hooked)
    subjects = [_labelled(task) for task in tasks]
    if not subjects:
        raise InvalidInputError("tasks must name at least one task to choose heads by, got none")
    if corrupted not in ("zero_shot", "shuffled"):
        raise InvalidInputError(f"corrupted must be zero_shot or shuffled, got {corrupted!r}")
    count = 0 if corrupted == "zero_shot" else shots
    total = torch.zeros(hooked.n_layers, heads.count)
    with track(progress, "effect of heads", len(subjects) * total.numel()) as advance:
        for task in subjects:
            means = _means(heads, task, shots, prompts, seed)
            # Another seed than that of the means: a head must help on queries it was not read on.
            queries = _corrupted(task, hooked.tokenizer, count, prompts, seed + 1)
            plain = _probability(hooked, queries, count)
            for layer in range(hooked.n_layers):
                for head in range(heads.count):
                    # What the head writes with the task in the prompt, put where the task is not.
                    with heads.replaced(layer, head, means.outputs[layer, head]):
                        total[layer, head] += _probability(hooked, queries, count) - plain
                    advance(1)
    return HeadEffects(total / len(subjects), hooked.name, tuple(task.name for task in subjects))


def function_vector(
    model: Any,
    task: Any,
    *,
    heads: Sequence[Head] | HeadEffects | int | None = None,
    shots: int = 8,
    prompts: int = 48,
    placement: str | Site = "own",
    seed: int = 0,
    progress: Progress = None,
) -> Direction:
    """The function vector of a task: add it at the last token of a prompt.

    Args:
        model: Anything :func:`ed_interp.load` takes, on ``transformers``.
        task: A labelled task: a name, an object or a sequence of pairs.
        heads: (layer, head) to sum over, or the effects to choose them by; a number or None
            chooses by effects on this task.
        shots: As for :func:`head_effects`, like ``seed``, ``progress`` and what it raises.
        prompts: Number of prompts that are averaged.
        placement: ``own`` for every head in its own block, or one site for the sum.
    """
    hooked = load(model)
    reader = Heads.of(hooked)
    named = _labelled(task)
    if heads is None or isinstance(heads, int):
        drawn: dict[str, Any] = {"shots": shots, "prompts": prompts, "seed": seed}
        chosen = head_effects(hooked, [named], progress=progress, **drawn).chosen(heads)
    elif isinstance(heads, HeadEffects):
        chosen = heads.chosen()
    else:
        chosen = tuple(sorted((int(layer), int(head)) for layer, head in heads))
    # Twice the same head would be added twice.
    if not chosen or len(set(chosen)) < len(chosen):
        raise InvalidInputError(f"heads must name each (layer, head) once, got {list(chosen)}")
    for layer, head in chosen:
        if not (0 <= layer < hooked.n_layers and 0 <= head < reader.count):
            heads_of = (
                f"{hooked.name} has blocks 0 to {hooked.n_layers - 1} of {reader.count} heads"
            )
            raise InvalidInputError(f"no head {(layer, head)}: {heads_of}")
    written = reader.written(_means(reader, named, shots, prompts, seed), chosen)
    if placement == "own":
        vectors = {attn_out(layer): vector for layer, vector in written.items()}
    else:
        vectors = {hooked.site(placement): torch.stack(list(written.values())).sum(0)}
    place = placement if isinstance(placement, str) else placement.name
    settings: dict[str, Any] = {"task": named.name, "heads": [list(head) for head in chosen]}
    settings |= {"placement": place, "shots": shots, "prompts": prompts, "seed": seed}
    return Direction.of(hooked, vectors, method="function_vector", settings=settings)


def _labelled(task: Any) -> LabelledTask:
    named = as_task(task)
    if not isinstance(named, LabelledTask):
        kind = f"{named.name!r}, a {type(named).__name__}"
        raise InvalidInputError(f"task must be one task with inputs and outputs, got {kind}")
    return named


def _means(heads: Heads, task: LabelledTask, shots: int, prompts: int, seed: int) -> HeadMeans:
    """Mean head outputs at the last token of in-context prompts of ``task``."""
    population = draw(task, prompts=prompts, shots=(shots,), seed=seed)
    tokens = tokenize(population, heads.hooked.tokenizer).prompts
    return heads.means([prompt.sequence(shots) for prompt in tokens])


def _corrupted(
    task: LabelledTask, tokenizer: Any, shots: int, prompts: int, seed: int
) -> list[ShotTokens]:
    """Prompts from which the task cannot be inferred, with the first token of the right answers.

    Without shots the query alone; with shots (Todd et al.) demonstrations whose outputs were
    redistributed among the inputs.
    """
    inputs, outputs = map(list, zip(*task.pairs, strict=True))
    if shots:
        random.Random(seed).shuffle(outputs)
    dealt = dataclasses.replace(task, pairs=tuple(zip(inputs, outputs, strict=True)))
    population = draw(dealt, prompts=prompts, shots=(shots,), seed=seed)
    if shots:
        # The prompts are drawn from the shuffled pairs, so their own answers are shuffled too.
        template = task.template
        right = {template.query(input): template.answer(output) for input, output in task.pairs}
        answered = [
            dataclasses.replace(prompt, answer=right[prompt.query or ""])
            for prompt in population.prompts
        ]
        population = dataclasses.replace(population, prompts=tuple(answered))
    tokens = tokenize(population, tokenizer).prompts
    # As in the paper, only the first token of the answer is scored.
    return [dataclasses.replace(prompt, answer=prompt.answer[:1]) for prompt in tokens]


def _probability(hooked: HookedModel, prompts: Sequence[ShotTokens], shots: int) -> float:
    """Mean probability of the answer's first token; rows are grouped by length, not padded."""
    reading = read_separate(hooked.runner, prompts, (shots,), [resid_pre(0)], True)
    assert reading.logprob is not None
    return float(reading.logprob.exp().mean())
