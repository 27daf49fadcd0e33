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
import functools
import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.options import OptionError, option
from ed_interp.probes.emergence.estimators.base import Batch, ChainEstimator, Terms
from ed_interp.probes.emergence.estimators.noise import DEFAULT_BETA, noise_rows, noise_scale
from ed_interp.probes.emergence.estimators.registry import register
from ed_interp.probes.emergence.estimators.rows import (
    check_finite,
    entropy_bits,
    equal_in_all,
    equal_rows,
    first_index,
)

PROFILE_BETAS = (0.03, 0.1, 0.2, DEFAULT_BETA, 0.5, 1.0, 2.0)
"""Relative noise of a noise profile."""

_DRAWS = 4096
_MAX_SAMPLES = 64
# Bounds of the exponents. exp(-36) vanishes against the own row's 1 in either precision, while exp
# of less, or its products, would be denormal numbers, which the CPU multiplies a hundred times more
# slowly. Chance does not reach 40 (that takes 9 standard deviations); rounding does when the noise
# is below the precision of the states, where exp would overflow.
_LOWEST, _HIGHEST = -36.0, 40.0
# Size of the kernels of a chunk on a CPU: small for the caches, yet large enough that threads do
# not meet at a barrier too often, which on a busy machine costs more than the caches save.
_CPU_BYTES = 32 * 2**20


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
        """Terms on the device of the states; equal for any chunk size, grouping and processes."""
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


class NoiseTables:
    """The noise of even and of odd sites: one table for each pair of samples."""

    def __init__(
        self, rows: int, pairs: int, seed: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.pairs = pairs
        self._rows, self._seed, self._dtype, self._device = rows, seed, dtype, device
        self._drawn: dict[tuple[int, int], Tensor] = {}

    def piece(self, site: int, width: int, start: int, stop: int) -> Float[Tensor, "pair chunk d"]:
        """Noise of the rows ``start`` to ``stop`` at a site."""
        # The two sites of a block need independent noise; every other site can share.
        key = (site % 2, width)
        if key not in self._drawn:
            draw = functools.partial(noise_rows, self._rows, width, seed=self._seed)
            streams = [(site % 2, pair) for pair in range(self.pairs)]
            drawn = [draw(stream=stream, device=self._device) for stream in streams]
            self._drawn[key] = torch.stack(drawn).to(self._dtype)
        return self._drawn[key][:, start:stop]


class Population:
    """One chain, compacted: rows that weigh nothing dropped, rows equal at every site merged."""

    def __init__(
        self, sites: list[Tensor], weights: Tensor, scales: list[float], dtype: torch.dtype
    ) -> None:
        rows, device = len(weights), sites[0].device
        # A weight that is 0 in the working precision would leave log 0 behind.
        counted = (weights.to(dtype) > 0).to(device)
        whole = bool(counted.all())
        # Centred in the precision of the input, so that a large common offset costs no digits.
        centred = [_centre(x if whole else x[counted], site) for site, x in enumerate(sites)]
        ids = [equal_rows(x) for x in centred]
        first, point = torch.unique(equal_in_all(ids), return_inverse=True)
        merged = torch.bincount(point.cpu(), weights[counted.cpu()])
        self.exact_weights: Float[Tensor, "point"] = merged
        self.weights: Float[Tensor, "point"] = self.exact_weights.to(device, dtype)
        self._home = torch.full((rows,), -1, device=device)
        self._home[counted] = point
        self.sites = [
            _Site(x if len(first) == len(x) else x[first], first_index(own[first]), scale, dtype)
            for x, own, scale in zip(centred, ids, scales, strict=True)
        ]

    def spread(self, terms: Float[Tensor, "block point"]) -> Float[Tensor, "block row"]:
        """Terms of the points given back to the rows; 0 for rows that weigh nothing."""
        return torch.where(self._home >= 0, terms[:, self._home.clamp(min=0)], 0)


def _centre(x: Tensor, site: int) -> Tensor:
    """A centred copy of the rows, at least in float32."""
    x = x.detach().float() if x.element_size() < 4 else x.detach()
    mean = x.mean(0)
    # One bad value makes the mean bad, so good tables need no look at every value.
    if not bool(torch.isfinite(mean).all()):
        check_finite(x, site)
        raise InvalidInputError(
            f"the rows at site {site} must have a finite sum, got an overflow of {x.dtype}; "
            "convert them with .double()"
        )
    return x - mean


class _Site:
    """The points of one site in units of its noise; ``x`` is centred and may be overwritten."""

    def __init__(self, x: Tensor, ids: Tensor, scale: float, dtype: torch.dtype) -> None:
        self.z: Float[Tensor, "point d"] = (x.div_(scale) if scale > 0 else x).to(dtype)
        self.half = torch.linalg.vector_norm(self.z, dim=-1).square() / 2
        # Squared distances reach 4 |z|^2 and must not overflow; noise that small is none at all.
        self.noiseless = scale == 0 or not float(self.half.max()) < torch.finfo(dtype).max / 8
        chosen, self.column = torch.unique(ids, return_inverse=True)
        """Representatives of equal points, and the column of each point among them."""
        self.distinct = None if len(chosen) == len(ids) else chosen


def chain_terms(
    population: Population, tables: NoiseTables, max_bytes: int
) -> Float[Tensor, "block point"]:
    """Row terms of every block in bits, averaged over the noise samples."""
    weights, sites = population.weights, population.sites
    points, device = len(weights), weights.device
    terms = torch.empty(len(sites) - 1, points, dtype=weights.dtype, device=device)
    row_bytes = points * weights.element_size()
    # Two sets of kernels, the exponents, the products with the noise, and a copy for equal rows.
    held = 4 * tables.pairs + 2 + 2 * tables.pairs
    chunk = max(1, min(points, max_bytes // (row_bytes * held)))
    if device.type == "cpu":
        chunk = min(chunk, max(32, _CPU_BYTES // (row_bytes * 2 * tables.pairs)))
    buffers = [weights.new_empty(2, tables.pairs, chunk, points) for _ in range(2)]
    for start in range(0, points, chunk):
        stop = min(points, start + chunk)
        before, now = (buffer[..., : stop - start, :] for buffer in buffers)
        log_before = weights.new_empty(0)
        for index, site in enumerate(sites):
            _kernels(site, index, tables, start, stop, out=now)
            log_now = torch.log2(now @ weights)
            if index > 0:
                # The kernel before is not needed again, so the product may overwrite it.
                joint = torch.log2(before.mul_(now) @ weights)
                samples = joint.sub_(log_before).sub_(log_now)
                terms[index - 1, start:stop] = samples.mean((0, 1))
            before, now, log_before = now, before, log_now
    return terms


def _kernels(
    site: _Site, index: int, tables: NoiseTables, start: int, stop: int, *, out: Tensor
) -> None:
    """exp(B) of the points ``start`` to ``stop`` against all, ``sign pair chunk point``."""
    mine = torch.arange(start, stop, device=out.device)
    if site.noiseless:
        out.copy_(site.column[mine, None] == site.column)
        return
    others = site.z if site.distinct is None else site.z[site.distinct]
    half = site.half if site.distinct is None else site.half[site.distinct]
    # -|z_i - z_j|^2 / 2 = z_i . z_j - |z_j|^2 / 2 - |z_i|^2 / 2; rounding may leave it above 0,
    # and the own column, which is 0, must not show a rounding error at all.
    distance = torch.addmm(half[None], site.z[start:stop], others.T, beta=-1)
    distance.sub_(site.half[start:stop, None]).clamp_(max=0)
    distance[mine - start, site.column[mine]] = 0
    noise = tables.piece(index, site.z.shape[1], start, stop)
    pushed = noise @ others.T
    if site.distinct is not None:
        distance, pushed = distance[:, site.column], pushed[..., site.column]
    # e . (z_j - z_i); the second of a pair of samples is the first with its sign turned.
    pushed.sub_(pushed[:, mine - start, mine].unsqueeze(-1))
    torch.add(distance, pushed, out=out[0])
    torch.sub(distance, pushed, out=out[1])
    out.clamp_(_LOWEST, _HIGHEST).exp_()
