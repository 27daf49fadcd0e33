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

A head's output is its slice of the input of attention's output projection; what it adds to the
stream is that slice through the projection, without the bias. Families that normalise attention's
output before adding it (Gemma 2 and 3) are handled by carrying each prompt's own scale of that norm
along, so the parts still add up to what arrives in the stream. The projection module itself is
called, so adapters on it count.

Cost: forward passes over ``prompts`` for the means; for choosing heads one more pass over
``prompts`` corrupted prompts per head. Memory: one ``layer head d_head`` table.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ed_interp.errors import CaptureError, InvalidInputError, OptionError
from ed_interp.models.families import module_of
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load
from ed_interp.models.runners import Inputs, TransformersRunner
from ed_interp.models.sites import Site, resid_post, resid_pre
from ed_interp.progress import Progress, track
from ed_interp.prompts.population import draw
from ed_interp.prompts.tasks import LabelledTask, as_task
from ed_interp.prompts.tokens import Ids, ShotTokens, tokenize
from ed_interp.streams.direction import Direction
from ed_interp.streams.paths import read_separate

if TYPE_CHECKING:
    import pandas as pd

Head = tuple[int, int]
Corrupted = Literal["zero_shot", "shuffled"]
SHARE_OF_GREATEST = 0.1
_PROJECTIONS = ("c_proj", "o_proj", "out_proj", "dense")
_ATTENTIONS = ("self_attn", "attn", "attention", "self_attention")
_BATCH_TOKENS = 4096


@dataclasses.dataclass(frozen=True)
class HeadMeans:
    """Mean outputs of all heads at the last token of some prompts."""

    outputs: Float[Tensor, "layer head d_head"]
    """Input of the output projection."""
    scaled: Float[Tensor, "layer head d_head"]
    """The same times each prompt's scale of the norm after the projection; equal without one."""


def attn_out(layer: int) -> Site:
    """Where block ``layer``'s attention is added to the stream."""
    return Site(f"blocks.{layer}.hook_attn_out", layer, "attn_out")


@dataclasses.dataclass(frozen=True)
class Heads:
    """The attention heads of a ``transformers`` model."""

    hooked: HookedModel
    projections: tuple[nn.Module, ...] = dataclasses.field(repr=False)
    norms: tuple[nn.Module | None, ...] = dataclasses.field(repr=False)
    """The norm between projection and stream of every block; None without one."""
    count: int
    """Heads per block."""

    @classmethod
    def of(cls, hooked: HookedModel) -> Heads:
        """Find them by structure; a TransformerLens model is refused."""
        runner = hooked.runner
        if not isinstance(runner, TransformersRunner):
            kind = type(hooked.model).__name__
            raise CaptureError(f"heads must be those of a transformers model, got a {kind}")
        projections, norms = [], []
        for layer, block in enumerate(runner.blocks):
            projections.append(_projection_of(block, layer))
            writer, _ = module_of(runner.base, runner.blocks, attn_out(layer))
            # What writes to the stream is attention itself, or a norm after it.
            inside = any(module is projections[-1] for module in writer.modules())
            norms.append(None if inside else writer)
        return cls(hooked, tuple(projections), tuple(norms), runner.config.num_attention_heads)

    @torch.no_grad()
    def means(self, rows: Sequence[Ids]) -> HeadMeans:
        """Mean outputs at the last token of every row."""
        total = torch.zeros(())
        ordered = sorted(rows, key=len, reverse=True)
        while ordered:
            size = max(1, _BATCH_TOKENS // len(ordered[0]))
            outputs, scales = self._read(ordered[:size])
            scaled = outputs * scales[..., None, None]
            total = total.to(outputs) + torch.stack([outputs.sum(1), scaled.sum(1)])
            ordered = ordered[size:]
        return HeadMeans(*(total / len(rows)).float().cpu())

    def _read(self, batch: Sequence[Ids]) -> tuple[Tensor, Tensor]:
        """Outputs ``layer row head d_head`` and scales ``layer row``, in float64."""
        width = len(batch[0])
        # Padded on the right: in a causal model no token before the padding sees it.
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in batch])
        last = torch.tensor([len(row) - 1 for row in batch])
        # Input and output, by block.
        projected: dict[int, tuple[Tensor, Tensor]] = {}
        normed: dict[int, tuple[Tensor, Tensor]] = {}

        def at_last(hidden: Tensor) -> Tensor:
            # OPT flattens rows and positions inside its blocks.
            hidden = hidden.view(len(batch), -1, hidden.shape[-1])
            return hidden[torch.arange(len(batch)), last].double()

        def record(kept: dict[int, Any], layer: int, _: nn.Module, args: Any, out: Tensor) -> None:
            kept[layer] = (at_last(args[0]), at_last(out))

        with contextlib.ExitStack() as stack:
            for kept, modules in ((projected, self.projections), (normed, self.norms)):
                for layer, module in enumerate(modules):
                    if module is not None:
                        hook = functools.partial(record, kept, layer)
                        stack.callback(module.register_forward_hook(hook).remove)
            final = resid_post(len(self.projections) - 1)
            self.hooked.runner.run(Inputs(ids), sites=[final], reads=last[:, None])
        if len(projected) < len(self.projections):
            seen = f"{len(projected)} of {len(self.projections)} output projections were seen"
            raise CaptureError(f"hooks did not fire: {seen}; the model skipped or replaced modules")
        # By block number: hooks fire in the order in which the model runs its blocks.
        outputs = torch.stack([projected[layer][0] for layer in sorted(projected)])
        scales = torch.ones_like(outputs[..., 0])
        for layer, (before, after) in normed.items():
            # The norm returns scale * gain * before. The least-squares scale is exact up to
            # rounding, and unlike a division of single channels it is safe where one is 0.
            direction = before * self._gain(layer).double()
            scales[layer] = (after * direction).sum(-1) / direction.pow(2).sum(-1)
        return outputs.reshape(*scales.shape, self.count, -1), scales

    def _gain(self, layer: int) -> Tensor:
        """Per-channel weight of the norm after the projection."""
        # An RMS norm maps a constant vector to its weight; at 1,000 its epsilon vanishes.
        norm = self.norms[layer]
        weight = next(self.projections[layer].parameters())
        ones = torch.ones(self.hooked.d_model, dtype=weight.dtype, device=weight.device)
        return ones if norm is None else norm((ones * 1000)[None])[0]

    @torch.no_grad()
    def written(
        self, means: HeadMeans, heads: Sequence[tuple[int, int]]
    ) -> dict[int, Float[Tensor, " d_model"]]:
        """By block: what the chosen (layer, head) add to the stream together, without bias."""
        written = {}
        for layer in sorted({layer for layer, _ in heads}):
            projection = self.projections[layer]
            weight = next(projection.parameters())
            kept = torch.zeros_like(means.scaled[layer])
            chosen = [head for block, head in heads if block == layer]
            kept[chosen] = means.scaled[layer][chosen]
            # Projected together with zeros, whose image is the bias, and subtracted.
            both = torch.stack([kept.flatten(), torch.zeros_like(kept).flatten()])[:, None]
            out = projection(both.to(weight.device, weight.dtype))[:, 0]
            written[layer] = ((out[0] - out[1]) * self._gain(layer)).float().cpu()
        return written

    @contextlib.contextmanager
    def replaced(self, layer: int, head: int, output: Float[Tensor, " d_head"]) -> Iterator[None]:
        """One head's output at the last position of rows of equal length, set to ``output``."""
        width = output.shape[0]

        def before(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            # A copy: the tensor belongs to attention, which may use it again.
            hidden = args[0].clone()
            hidden[..., -1, head * width : (head + 1) * width] = output.to(hidden)
            return (hidden, *args[1:])

        with self.projections[layer].register_forward_pre_hook(before):
            yield


def _projection_of(block: nn.Module, layer: int) -> nn.Module:
    children = [getattr(block, name, None) for name in _ATTENTIONS]
    attention = next((child for child in children if isinstance(child, nn.Module)), nn.Module())
    named = attention.named_modules()
    matches: list[nn.Module] = [m for name, m in named if name.rsplit(".", 1)[-1] in _PROJECTIONS]
    if len(matches) != 1:
        raise CaptureError(
            f"attention in block {layer} ({type(block).__name__}) must have one output projection "
            f"named {', '.join(_PROJECTIONS)}, got {len(matches)}; function vectors need one"
        )
    return matches[0]


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
            wanted = f"must be 1 to {len(order)}, the heads of {self.model}"
            raise OptionError("heads", f"{wanted}, got {heads}")
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
    reader, named = Heads.of(hooked), _labelled(task)
    drawn: dict[str, Any] = {"shots": shots, "prompts": prompts, "seed": seed}
    if heads is None or isinstance(heads, int):
        chosen = head_effects(hooked, [named], progress=progress, **drawn).chosen(heads)
    elif isinstance(heads, HeadEffects):
        chosen = heads.chosen()
    else:
        chosen = tuple(sorted((int(layer), int(head)) for layer, head in heads))
    # Twice the same head would be added twice.
    if not chosen or len(set(chosen)) < len(chosen):
        raise InvalidInputError(f"heads must name each (layer, head) once, got {list(chosen)}")
    limits = f"{hooked.name} has blocks 0 to {hooked.n_layers - 1} of {reader.count} heads"
    for layer, head in chosen:
        if not (0 <= layer < hooked.n_layers and 0 <= head < reader.count):
            raise InvalidInputError(f"no head {(layer, head)}: {limits}")
    written = reader.written(_means(reader, named, **drawn), chosen)
    if placement == "own":
        vectors = {attn_out(layer): vector for layer, vector in written.items()}
    else:
        vectors = {hooked.site(placement): torch.stack(list(written.values())).sum(0)}
    place = placement if isinstance(placement, str) else placement.name
    kept = [list(head) for head in chosen]
    settings = {"task": named.name, "heads": kept, "placement": place, **drawn}
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
