"""Mutual information through a noisy channel, without training: the estimator ``smoothed``.

Goldfeld, van den Berg, Greenewald, Melnyk, Nguyen, Kingsbury, Polyanskiy, "Estimating Information
Flow in Deep Neural Networks" (ICML 2019): isotropic Gaussian noise of standard deviation s is added
to both representations of a finite weighted population, and

    I(X_s; Y_s) = E[log2 p(x, y) - log2 p(x) - log2 p(y)],   p(x) = sum_j w_j N(x; x_j, s^2 I)

is exact but for the Monte Carlo average over the noise. With ``x = x_i + s e`` the exponents are
taken relative to the own row, B_ij = -(|x_i - x_j|^2 / (2 s^2) + e . (x_i - x_j) / s), so B_ii is 0
and the constants |e|^2 / 2 cancel between the three logarithms. B exceeds 0 only by chance (it is
normal with mean -u^2/2 and variance u^2), never by much: the kernels exp(B) can be multiplied as
they are, one exponential per site instead of three log-sum-exps per block.

What differs from the plain method, none of which changes the expectation of an estimate:
- a chain of sites shares the kernel of each site between its two blocks;
- the noise comes in pairs e, -e, which share a matrix product; rows do not share noise, since
  their errors would then be correlated and a bootstrap over rows would not see it (tried: sharing
  among 4 rows made the Monte Carlo error up to 1.8 times larger);
- batch elements share their noise, and so do every other site: differences between shot counts or
  blocks have less Monte Carlo error, and results do not depend on how a batch was cut;
- rows equal at a site are one point of its mixture, exactly; rows equal at all sites are one row.

Cost for each site and batch element: ``(1 + samples / 2) * 2 n^2 d`` operations in matrix products
and ``samples * n^2`` exponentials; memory ``max_bytes`` beside the states and ``samples`` noise
tables of the size of one site.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.estimators.base import DEFAULT_MAX_BYTES, Terms, check_chain
from ed_interp.probes.emergence.estimators.kernels import NoiseTables, Population, chain_terms
from ed_interp.probes.emergence.estimators.noise import DEFAULT_BETA, noise_scale
from ed_interp.probes.emergence.estimators.rows import entropy_bits, population_weights

_DRAWS = 4096
_MAX_SAMPLES = 64


def default_samples(n: int) -> int:
    """Noise samples per row: about 4,096 draws in all, an even number from 2 to 64.

    At that many, the Monte Carlo error of a thousand rows is a third to two thirds of the sampling
    error that the interval shows (which holds both), so more would hardly narrow it.
    """
    return 2 * min(_MAX_SAMPLES // 2, max(1, round(_DRAWS / (2 * n))))


@dataclass(frozen=True, kw_only=True)
class Smoothed:
    """The ``smoothed`` estimator; see the module for what it computes and costs."""

    noise: float | Sequence[float] | None = None
    """Noise per coordinate of the states, one for all sites or one per site. ``None``: the rule
    :func:`noise_scale` with ``beta`` and the number of rows, which supposes states of unit scale
    (:func:`normalise`). 0 is the noiseless limit: the information between row identities."""
    beta: float = DEFAULT_BETA
    """Relative noise of the rule; without effect when ``noise`` is given."""
    samples: int | None = None
    """Noise samples per row, rounded up to an even number; ``None``: :func:`default_samples`."""
    dtype: torch.dtype = torch.float32
    """Precision of the computation: float32 or float64."""

    def __post_init__(self) -> None:
        if self.samples is not None and self.samples < 1:
            raise InvalidInputError(f"samples must be at least 1, found {self.samples}")
        if self.dtype not in (torch.float32, torch.float64):
            raise InvalidInputError(f"dtype must be float32 or float64, found {self.dtype}")
        given = self.noise if isinstance(self.noise, Sequence) else [self.noise]
        if any(s is not None and not (math.isfinite(s) and s >= 0) for s in given):
            raise InvalidInputError(f"noise must be finite and not negative, found {self.noise}")

    @property
    def name(self) -> str:
        """The name in the registry."""
        return "smoothed"

    def pair(
        self,
        x: Float[Tensor, "row d_x"],
        y: Float[Tensor, "row d_y"],
        *,
        weights: Shaped[Tensor, "row"] | None = None,
        seed: int = 0,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Terms:
        """Information between ``x`` and ``y``: terms of shape ``1 row``.

        Raises:
            InvalidInputError: see :meth:`chain`.
        """
        if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
            raise InvalidInputError(
                "a pair needs two tables with one row per prompt, found shapes "
                f"{tuple(x.shape)} and {tuple(y.shape)}"
            )
        check_chain(x.expand(2, *x.shape))
        check_chain(y.expand(2, *y.shape))
        return self._run([[x, y]], (), weights, seed, max_bytes)

    def chain(
        self,
        states: Float[Tensor, "*batch site row d"],
        *,
        weights: Shaped[Tensor, "*#batch row"] | None = None,
        seed: int = 0,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> Terms:
        """Information between neighbouring sites, on the device of the states.

        Args:
            states: representations of one population, normalised.
            weights: frequencies of the rows, in any unit; rows of weight 0 have no effect.
            seed: of the noise. The same seed gives the same numbers for every chunk size, batch
                grouping and number of processes.
            max_bytes: working memory.

        Raises:
            InvalidInputError: NaN or infinite states or weights, negative or all-zero weights,
                states that are not floating point, fewer than two sites or rows, a shape that does
                not fit.
        """
        check_chain(states)
        batch = states.shape[:-3]
        flat = states.reshape(-1, *states.shape[-3:])
        return self._run([list(one) for one in flat], tuple(batch), weights, seed, max_bytes)

    @torch.no_grad()
    def _run(
        self,
        chains: list[list[Tensor]],
        batch: tuple[int, ...],
        weights: Tensor | None,
        seed: int,
        max_bytes: int,
    ) -> Terms:
        rows, device, count = len(chains[0][0]), chains[0][0].device, len(chains[0])
        widths = [x.shape[1] for x in chains[0]]
        normal = population_weights(weights, batch, rows)
        flat_weights = normal.expand(*batch, rows).reshape(-1, rows)
        counted = int((normal > 0).reshape(-1, rows).any(0).sum())
        scales = self._scales(widths, counted)
        samples = 2 * math.ceil(self.samples / 2) if self.samples else default_samples(counted)
        tables = NoiseTables(counted, samples // 2, seed, self.dtype, device)
        terms = torch.zeros(len(chains), count - 1, rows, dtype=self.dtype, device=device)
        limits: list[float] = []
        for index, (sites, row_weights) in enumerate(zip(chains, flat_weights, strict=True)):
            population = Population(sites, row_weights, scales, self.dtype)
            found = chain_terms(population, tables, max_bytes)
            terms[index] = population.spread(found)
            limits.append(entropy_bits(population.exact_weights))
        return Terms(
            terms=terms.reshape(*batch, count - 1, rows),
            weights=normal,
            limit=torch.tensor(limits, dtype=torch.float64).reshape(batch),
            settings={
                "estimator": self.name,
                "noise": scales[0] if len(set(scales)) == 1 else scales,
                "beta": self.beta if self.noise is None else None,
                "samples": samples,
                "seed": seed,
                "dtype": str(self.dtype).removeprefix("torch."),
            },
        )

    def _scales(self, widths: list[int], rows: int) -> list[float]:
        if self.noise is None:
            return [noise_scale(width, max(2, rows), self.beta) for width in widths]
        if not isinstance(self.noise, Sequence):
            return [float(self.noise)] * len(widths)
        if len(self.noise) != len(widths):
            raise InvalidInputError(
                f"found {len(self.noise)} noise scales for {len(widths)} sites; give one or all"
            )
        return [float(s) for s in self.noise]
