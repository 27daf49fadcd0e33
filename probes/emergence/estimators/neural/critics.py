"""Critics: functions of (x, y) with a first axis of members, as plain tables of stacked weights.

- :class:`Separable`: c(x, y) = u(x) + v(y) + phi(x) . psi(y). One matrix product scores all pairs
  of a batch, so ten times as many separate pairs are seen for the same time.
- :class:`Concat`: an MLP on (x, y) side by side, as in MINE and the emergence paper; every pair of
  rows is a pass of its own, so separate pairs are few.

Initial weights depend on the seed and the fold alone. Where a critic corrects a reference, its last
layer starts at zero, so it starts at the reference exactly.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.probes.emergence.estimators.neural.sampling import START, uniforms

Weights = dict[str, Tensor]
"""Name -> ``member ...``."""
Rows = Float[Tensor, "member row _"]

SLOPE = 0.01
"""Slope of the LeakyReLU below 0, as in the emergence paper."""


@dataclasses.dataclass(frozen=True)
class Separable:
    """u(x) + v(y) + phi(x) . psi(y), each side one MLP."""

    hidden: tuple[int, ...] = (64, 64)
    embedding: int = 16

    def start(
        self, d_x: int, d_y: int, streams: Sequence[int], *, seed: int, neutral: bool
    ) -> Weights:
        """Initial weights: Xavier normal; for ``neutral`` the last layer of y and u are zero."""
        weights: Weights = {}
        for side, width in (("x", d_x), ("y", d_y)):
            sizes = (width, *self.hidden, self.embedding + 1)
            weights |= xavier(sizes, streams, seed=seed, prefix=side)
            last = weights[f"{side}.{len(sizes) - 2}.weight"]
            # The last output of each side is u or v. One side at zero makes the product zero, and
            # the other must not be zero as well, or neither would have a gradient.
            last[..., -1] = 0
            if neutral and side == "y":
                last.zero_()
        return weights


@dataclasses.dataclass(frozen=True)
class Concat:
    """An MLP on the concatenation of x and y; the widths of :func:`halving` unless given."""

    hidden: tuple[int, ...] | None = None

    def start(
        self, d_x: int, d_y: int, streams: Sequence[int], *, seed: int, neutral: bool
    ) -> Weights:
        """Initial weights: Xavier normal, zero biases; for ``neutral`` the last layer is zero."""
        hidden = halving(d_x + d_y) if self.hidden is None else self.hidden
        sizes = (d_x + d_y, *hidden, 1)
        weights = xavier(sizes, streams, seed=seed, prefix="xy")
        if neutral:
            weights[f"xy.{len(sizes) - 2}.weight"].zero_()
        return weights

    def scores(self, weights: Weights, x: Rows, y: Rows) -> Float[Tensor, "member row"]:
        """The learned c of every row."""
        return mlp(weights, "xy", torch.cat([x, y], dim=-1))[-1][..., 0]


Critic = Separable | Concat


def halving(width: int) -> tuple[int, ...]:
    """Hidden widths of the paper's critic: half, a quarter, ... down to 3 (or less).

    >>> halving(1536)
    (768, 384, 192, 96, 48, 24, 12, 6, 3)
    """
    widths: list[int] = []
    while width // 2 >= 3:
        width //= 2
        widths.append(width)
    return tuple(widths) or (3,)


def xavier(sizes: Sequence[int], streams: Sequence[int], *, seed: int, prefix: str) -> Weights:
    """Layers with Xavier-normal weights (Glorot and Bengio 2010), ``member in out``, zero biases.

    Members of equal ``streams`` start alike.
    """
    weights: Weights = {}
    side = sum(map(ord, prefix))  # a number for the name, so that both sides start differently
    for layer, (before, after) in enumerate(itertools.pairwise(sizes)):
        deviation = math.sqrt(2 / (before + after))
        drawn = {}
        for stream in dict.fromkeys(streams):
            numbers = uniforms(before * after, seed, stream, START, side, layer).clamp(min=1e-12)
            normal = torch.special.ndtri(numbers).reshape(before, after)
            drawn[stream] = (normal * deviation).float()
        weights[f"{prefix}.{layer}.weight"] = torch.stack([drawn[stream] for stream in streams])
        weights[f"{prefix}.{layer}.bias"] = torch.zeros(len(streams), 1, after)
    return weights


def mlp(weights: Weights, prefix: str, x: Rows) -> list[Rows]:
    """Linear layers with LeakyReLU between them: the input, every layer's output as it goes on."""
    layers = sum(1 for name in weights if name.startswith(f"{prefix}.")) // 2
    outputs = [x]
    for layer in range(layers):
        weight, bias = weights[f"{prefix}.{layer}.weight"], weights[f"{prefix}.{layer}.bias"]
        out = torch.baddbmm(bias, outputs[-1], weight)
        last = layer == layers - 1
        outputs.append(out if last else torch.nn.functional.leaky_relu(out, SLOPE))
    return outputs


def mlp_gradients(weights: Weights, prefix: str, outputs: list[Rows], slope: Rows) -> Weights:
    """Derivatives in the weights, from the outputs of ``mlp`` and the derivative in the last."""
    # Written out, since in small batched products the bookkeeping of automatic differentiation
    # costs more than the arithmetic.
    gradients: Weights = {}
    for layer in reversed(range(len(outputs) - 1)):
        name = f"{prefix}.{layer}.weight"
        gradients[name] = outputs[layer].mT @ slope
        gradients[f"{prefix}.{layer}.bias"] = slope.sum(1, keepdim=True)
        if layer:
            slope = slope @ weights[name].mT
            # The sign of a LeakyReLU's output is that of its input, which need not be kept.
            slope = torch.where(outputs[layer] > 0, slope, slope * SLOPE)
    return gradients
