"""Rows of a curve from terms per prompt: estimates, intervals, flags.

Cost: the bootstrap, one small matrix product per shot count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import torch

from ed_interp.models.hooked import HookedModel
from ed_interp.probes.emergence.curve import EmergenceRow, ProfileRow
from ed_interp.probes.emergence.estimators import (
    Estimator,
    flags_of,
    get_estimator,
    noise_scale,
)
from ed_interp.probes.emergence.measure import Read, ShotTerms, estimate
from ed_interp.progress import Progress
from ed_interp.prompts.tokens import TokenPopulation

PROFILE_BETAS = (0.03, 0.1, 0.2, 1 / 3, 0.5, 1.0, 2.0)
"""Noise levels of a profile, as multiples in the noise rule."""


def emergence_rows(
    terms: dict[int, ShotTerms],
    twin: dict[int, ShotTerms] | None,
    hooked: HookedModel,
    population: TokenPopulation,
    level: float,
    resamples: int,
    seed: int,
) -> Iterable[EmergenceRow]:
    """One row per block and shot count; ``twin`` are the terms of the untrained twin."""
    intervals = {
        shots: found.interval(level=level, resamples=resamples, seed=seed)
        for shots, found in terms.items()
    }
    general = []
    if hooked.processed_weights:
        general.append("processed-weights")
    if (population.population.answers or 0) > len(population.prompts):
        general.append("fewer-prompts-than-answers")
    for layer in range(hooked.n_layers):
        for shots, found in terms.items():
            interval, macro_interval = intervals[shots]
            macro = float(found.macro_bits()[layer])
            flags = flags_of(
                bits=macro,
                ci_low=float(macro_interval.low[layer]),
                limit=found.macro_limit,
                rows=found.sequences,
                constant=found.constant[layer],
                half_precision=hooked.dtype in (torch.bfloat16, torch.float16),
                own=found.flags[layer] if found.flags else (),
            )
            yield EmergenceRow(
                layer=layer,
                shots=shots,
                emergence=float(found.bits()[layer]),
                ci_low=float(interval.low[layer]),
                ci_high=float(interval.high[layer]),
                macro=macro,
                micro=float(found.micro_bits()[layer]),
                limit=found.macro_limit - found.micro_limit,
                macro_limit=found.macro_limit,
                untrained=None if twin is None else float(twin[shots].bits()[layer]),
                flags=(*flags, *general),
            )


def noise_profile_rows(
    trained: Read, d_model: int, n: int, name: str, seed: int, progress: Progress
) -> tuple[ProfileRow, ...]:
    """Emergence at every noise level of :data:`PROFILE_BETAS`, from the same activations."""
    rows = []
    for beta in PROFILE_BETAS:
        scale = noise_scale(d_model, n, beta)
        chosen: Estimator = get_estimator(name, noise=scale)
        found = estimate(trained, chosen, seed=seed, progress=progress, what=f"noise {scale:.3g}")
        for shots, terms in found.items():
            triples = zip(terms.bits(), terms.macro_bits(), terms.micro_bits(), strict=True)
            for layer, (bits, macro, micro) in enumerate(triples):
                row = ProfileRow(layer, shots, beta, scale, float(bits), float(macro), float(micro))
                rows.append(row)
    return tuple(sorted(rows, key=dataclasses.astuple))
