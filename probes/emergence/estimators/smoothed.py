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
and ``samples * n^2`` exponentials; memory ``max_bytes``, the states, and ``samples`` noise tables
of the size of one site.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch

from ed_interp.errors import InvalidInputError
from ed_interp.options import OptionError, option
from ed_interp.probes.emergence.estimators.base import Batch, ChainEstimator, Terms
from ed_interp.probes.emergence.estimators.kernels import NoiseTables, Population, chain_terms
from ed_interp.probes.emergence.estimators.noise import DEFAULT_BETA, noise_scale
from ed_interp.probes.emergence.estimators.registry import register
from ed_interp.probes.emergence.estimators.rows import entropy_bits

PROFILE_BETAS = (0.03, 0.1, 0.2, DEFAULT_BETA, 0.5, 1.0, 2.0)
"""Relative noise of a noise profile."""

_DRAWS = 4096
_MAX_SAMPLES = 64


def default_samples(n: int) -> int:
    """Noise samples per row: about 4,096 draws in all, an even number from 2 to 64."""
    # At that many, the Monte Carlo error of a thousand rows is a third to two thirds of the
    # sampling error that the interval shows (which holds both), so more would hardly narrow it.
    return 2 * min(_MAX_SAMPLES // 2, max(1, round(_DRAWS / (2 * n))))


@register("smoothed")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Smoothed(ChainEstimator):
    """The ``smoothed`` estimator; see the module for what it computes and costs."""

    citation = (
        "Z. Goldfeld, E. van den Berg, K. Greenewald, I. Melnyk, N. Nguyen, B. Kingsbury, "
        "Y. Polyanskiy: Estimating Information Flow in Deep Neural Networks. arXiv:1810.05728"
    )

    noise: float | tuple[float, ...] | None = option(
        None,
        "Noise standard deviation per coordinate: one for all sites, or one per site. 0 is "
        "the noiseless limit: the information between row identities.",
        shown="beta * sqrt(d / ln n), for states of unit scale",
    )
    beta: float | None = option(None, "Scale of the default noise rule.", shown="1/3", above=0)
    samples: int | None = option(
        None,
        "Noise samples per row, rounded up to an even number.",
        shown="about 4,096 in all, from 2 to 64",
        min=1,
    )
    dtype: Literal["float32", "float64"] = option("float32", "Precision of the computation.")

    def __post_init__(self) -> None:
        super().__post_init__()
        # One number or several: a choice of types that the base leaves to the class.
        scales = self.noise if isinstance(self.noise, (tuple, list)) else (self.noise,)
        for scale in scales:
            number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
            if scale is not None and not (number and math.isfinite(scale) and scale >= 0):
                raise OptionError("noise", f"must be 0 or greater and finite, got {self.noise!r}")
        if self.noise is not None:
            floats = tuple(float(scale) for scale in scales if scale is not None)
            object.__setattr__(self, "noise", floats if scales is self.noise else floats[0])
        if self.noise is not None and self.beta is not None:
            raise InvalidInputError(
                "noise and beta must not both be given, since beta only sets the noise; drop one"
            )

    def for_population(self, *, d: int, n: int) -> Smoothed:
        """The noise of the rule made definite, the same for every site, shot count and process."""
        if self.noise is not None:
            return self
        noise = noise_scale(d, n, self.beta or DEFAULT_BETA)
        return dataclasses.replace(self, noise=noise, beta=None)

    def variants(self) -> tuple[tuple[float, Smoothed], ...]:
        """The same estimator at the seven levels of :data:`PROFILE_BETAS`."""
        return tuple((b, dataclasses.replace(self, noise=None, beta=b)) for b in PROFILE_BETAS)

    @property
    def added_noise(self) -> float | None:
        """Noise per coordinate, once it is definite and the same at all sites."""
        return None if isinstance(self.noise, tuple) else self.noise

    @torch.no_grad()
    def run(self, batch: Batch, *, seed: int, max_bytes: int) -> Terms:
        """Terms of every chain, on the device of the states.

        The same seed gives the same numbers for every chunk size, batch grouping and number of
        processes.
        """
        first = batch.chains[0]
        dtype: torch.dtype = getattr(torch, self.dtype)
        counted = int((batch.flat(batch.weights) > 0).any(0).sum())
        scales = self._scales([x.shape[1] for x in first], counted)
        samples = 2 * math.ceil(self.samples / 2) if self.samples else default_samples(counted)
        tables = NoiseTables(counted, samples // 2, seed, dtype, first[0].device)
        terms, limits = [], []
        # One population at a time: each holds a copy of its sites.
        for sites, own in batch.each():
            population = Population(sites, own, scales, dtype)
            terms.append(population.spread(chain_terms(population, tables, max_bytes)))
            limits.append(entropy_bits(population.exact_weights))
        used = {
            "noise": scales[0] if len(set(scales)) == 1 else scales,
            "beta": (self.beta or DEFAULT_BETA) if self.noise is None else None,
            "samples": samples,
        }
        return batch.result(torch.stack(terms), limits, self.recorded(seed=seed, **used), {})

    def _scales(self, widths: list[int], rows: int) -> list[float]:
        if self.noise is None:
            return [noise_scale(d, max(2, rows), self.beta or DEFAULT_BETA) for d in widths]
        if not isinstance(self.noise, tuple):
            return [self.noise] * len(widths)
        if len(self.noise) != len(widths):
            raise InvalidInputError(
                f"noise must be one number or one for each of {len(widths)} sites, got "
                f"{len(self.noise)} numbers"
            )
        return list(self.noise)
