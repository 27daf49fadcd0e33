"""The noisy channel of the smoothed estimator: normalised states, the noise rule, the draws."""

from __future__ import annotations

import functools
import math
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import InvalidInputError, unknown

Normalisation = Literal["layernorm", "rms", "none"]

DEFAULT_BETA = 1 / 3

# Width up to which blocks are kept for the next caller.
_KEPT_WIDTH = 1024
# Rows drawn from one seed, so that the first rows of a table do not depend on its length.
_BLOCK = 256


def normalise(
    states: Float[Tensor, "*batch d"], how: str = "layernorm"
) -> Float[Tensor, "*batch d"]:
    """Bring every vector to one scale, so that one noise means the same at every layer.

    ``layernorm`` subtracts the mean of the vector and divides by its standard deviation, as a
    pre-norm block does before it reads, without the learned scale; ``rms`` divides by the root
    mean square; ``none`` returns the states. A vector without spread becomes zeros. Half
    precision is raised to float32 first.

    Raises:
        InvalidInputError: for states that are not floating point.
        UnknownNameError: for another ``how``.
    """
    if how not in get_args(Normalisation):
        raise unknown("normalisation", how, get_args(Normalisation))
    if not states.is_floating_point():
        raise InvalidInputError(f"states must be floating point, got {states.dtype}")
    if how == "none":
        return states
    if states.element_size() < 4:
        states = states.float()
    if how == "layernorm":
        states = states - states.mean(-1, keepdim=True)
    peak = states.abs().amax(-1, keepdim=True)
    # Dividing by the peak first keeps the squares from overflowing or underflowing.
    unit = states / torch.where(peak > 0, peak, torch.ones_like(peak))
    size = unit.square().mean(-1, keepdim=True).sqrt()
    return unit / torch.where(size > 0, size, torch.ones_like(size))


def noise_scale(d: int, n: int, beta: float = DEFAULT_BETA) -> float:
    """The noise per normalised coordinate: ``s = beta * sqrt(d / ln n)``.

    ``beta`` alone says how far the channel is from being full, at every width and for every number
    of rows: at the default 1/3 it holds 4.5 times the population.

    Args:
        d: Width of the states.
        n: Number of rows of the whole population; the same for every layer, position, shot count
            and process, otherwise their values cannot be compared.
        beta: Relative noise, above 0.
    """
    # d independent coordinates of unit power seen through noise of variance s^2 carry at most
    # d/2 ln(1 + 1/s^2) ~ d/(2 s^2) = ln n / (2 beta^2) nats (capacity of the Gaussian channel), and
    # a population of n rows holds ln n nats. At beta = 1/sqrt(2) a code that uses every coordinate
    # just fits. Real clouds use few directions, so much less than that comes through.
    #
    # The default lies between the ends of the profile that "ed-interp emergence --noise-profile"
    # prints for the bundled icl-gpt2: at 8 shots, blocks 1 to 3 keep 0.93 to 0.98 of the entropy
    # of the sequences at beta 0.1 (all alike: saturated), 0.27 to 0.65 at 1/3, and 0.01 to 0.07 at
    # 1 (all alike: lost). At every beta between, emergence of the last block rises from 0 shots
    # to 1.
    if d < 1 or n < 2:
        raise InvalidInputError(
            f"d must be 1 or greater and n 2 or greater for the noise rule, got d = {d}, n = {n}"
        )
    if not (math.isfinite(beta) and beta > 0):
        raise InvalidInputError(f"beta must be greater than 0 and finite, got {beta}")
    return beta * math.sqrt(d / math.log(n))


def noise_rows(
    rows: int, d: int, *, seed: int, stream: tuple[int, ...], device: torch.device
) -> Float[Tensor, "rows d"]:
    """Standard normal rows that depend on ``seed`` and ``stream`` alone.

    Drawn in float32 on the CPU in blocks with seeds of their own, then moved: the same numbers on
    every device, for every chunk size and dtype, and the same first rows for every ``rows``.
    """
    blocks = range(-(-rows // _BLOCK))  # rounded up
    # Single tokens are some fifty small populations that need the same noise.
    draw = _kept_block if len(blocks) == 1 and d <= _KEPT_WIDTH else _block
    return torch.cat([draw(seed, stream, block, d) for block in blocks])[:rows].to(device)


def _block(seed: int, stream: tuple[int, ...], block: int, d: int) -> Tensor:
    mixed = np.random.SeedSequence([seed & (2**64 - 1), *stream, block])
    state = int(mixed.generate_state(1, np.uint64)[0]) >> 1
    return torch.empty(_BLOCK, d).normal_(generator=torch.Generator().manual_seed(state))


# At most 64 blocks of 1 MB; never written to, as ``noise_rows`` returns copies.
_kept_block = functools.lru_cache(maxsize=64)(_block)
