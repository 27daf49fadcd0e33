"""The arithmetic of the smoothed estimator: kernels exp(B) between rows, and their products.

``Population`` prepares one chain, ``NoiseTables`` holds the noise that all chains share, and
``chain_terms`` walks over the sites chunk by chunk of rows, so that memory stays bounded. See the
module ``smoothed`` for the formula and the cost.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.estimators.noise import noise_rows
from ed_interp.probes.emergence.estimators.rows import (
    check_finite,
    equal_in_all,
    equal_rows,
    first_index,
)

# Bounds of the exponents. exp(-36) vanishes against the own row's 1 in either precision, while exp
# of less, or its products, would be denormal numbers, which the CPU multiplies a hundred times more
# slowly. Chance does not reach 40 (that takes 9 standard deviations); rounding does when the noise
# is below the precision of the states, where exp would overflow.
_LOWEST, _HIGHEST = -36.0, 40.0
# Size of the kernels of a chunk on a CPU: small for the caches, yet large enough that threads do
# not meet at a barrier too often, which on a busy machine costs more than the caches save.
_CPU_BYTES = 32 * 2**20


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
            drawn = [
                noise_rows(
                    self._rows, width, seed=self._seed, stream=(site % 2, pair), device=self._device
                )
                for pair in range(self.pairs)
            ]
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
        joint = equal_in_all(ids)
        first = joint == torch.arange(len(joint), device=device)
        every = bool(first.all())
        merged = torch.zeros(len(joint), dtype=torch.float64)
        merged.index_add_(0, joint.cpu(), weights[counted.cpu()])
        self.exact_weights: Float[Tensor, "point"] = merged[first.cpu()]
        self.weights: Float[Tensor, "point"] = self.exact_weights.to(device, dtype)
        # The cumulated count of first rows numbers the points; a row's point is that of its first.
        self._home = torch.full((rows,), -1, device=device)
        self._home[counted] = (first.cumsum(0) - 1)[joint]
        self.sites = [
            _Site(x if every else x[first], first_index(own[first]), scale, dtype)
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
    """The points of one site in units of its noise.

    ``x`` is centred and may be overwritten; ``ids`` as from ``equal_rows``.
    """

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
