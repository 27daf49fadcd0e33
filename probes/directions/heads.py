"""What single attention heads write to the stream at the last token, and replacing it.

A head's output is its slice of the input of attention's output projection; what it adds to the
stream is that slice through the projection, without the bias. Families that normalise attention's
output before adding it (Gemma 2 and 3) are handled by carrying each prompt's own scale of that norm
along, so the parts still add up to what arrives in the stream. The projection module itself is
called, so adapters on it count. Cost of reading: the forward passes; memory one
``layer head d_head`` table.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ed_interp.errors import CaptureError
from ed_interp.models.families import module_of
from ed_interp.models.hooked import HookedModel
from ed_interp.models.runners import Inputs, TransformersRunner
from ed_interp.models.sites import Site, resid_post
from ed_interp.prompts.tokens import Ids

_PROJECTIONS = ("c_proj", "o_proj", "out_proj", "dense")
_ATTENTIONS = ("self_attn", "attn", "attention", "self_attention")
_BATCH_TOKENS = 4096
"""Tokens in a batch, about."""


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
    matches = [module for name, module in named if name.rsplit(".", 1)[-1] in _PROJECTIONS]
    if len(matches) != 1:
        raise CaptureError(
            f"attention in block {layer} ({type(block).__name__}) must have one output projection "
            f"named {', '.join(_PROJECTIONS)}, got {len(matches)}; function vectors need one"
        )
    projection: nn.Module = matches[0]
    return projection
