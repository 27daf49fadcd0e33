"""`preflight`: will steering along this difference work? Looked at before anything is steered.

Four numbers per site, from the states that a direction is found from:

- *separation*: AUC and d' of held-out texts along the mean difference of the other texts (five
  folds, so a direction cannot score the noise it was fitted to).
- *agreement*: mean cosine between the differences of different pairs (Tan et al. 2024, arXiv
  2407.12404; Braun et al. 2025, arXiv 2505.22637, find that both predict how reliably a vector
  steers, and for which samples it does the opposite).
- *stability*: mean cosine between the mean differences of two random halves.
- *size*: length of the mean difference over the root mean square length of the states.

Thresholds are rules of thumb, not laws; they are arguments of :meth:`Preflight.warnings`. Low
numbers predict failure; high ones do not promise success (only a sweep with controls does). Cost:
the forward passes, then milliseconds a site.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.probes.directions.find import check_gap
from ed_interp.probes.directions.pairs import Contrast
from ed_interp.probes.directions.states import ContrastStates, read_states
from ed_interp.progress import Progress
from ed_interp.models.sites import Site

if TYPE_CHECKING:
    import pandas as pd

FOLDS = 5
FEWEST = 4
"""Texts a class below which nothing can be said."""


@dataclasses.dataclass(frozen=True, slots=True)
class PreflightRow:
    """One site."""

    site: str
    auc: float
    """Held out: probability that a positive text lies further along than a negative one."""
    d_prime: float
    """Held out: distance of the class means along the direction, in pooled standard deviations."""
    agreement: float | None
    """Mean cosine between the differences of two pairs, -1 to 1; None without pairs."""
    stability: float
    """Mean cosine between mean differences of random halves, -1 to 1."""
    size: float
    """Length of the mean difference, relative to that of the states."""


@dataclasses.dataclass(frozen=True)
class Preflight:
    """How steerable two classes look, per site."""

    rows: tuple[PreflightRow, ...]
    model: str
    texts: str
    count: tuple[int, int]
    """Positive and negative texts."""

    def to_frame(self) -> pd.DataFrame:
        """One row per site, columns as in :class:`PreflightRow`."""
        import pandas as pd

        return pd.DataFrame([dataclasses.asdict(row) for row in self.rows])

    @property
    def best(self) -> PreflightRow:
        """The site with the greatest product of agreement (or stability) and d', each above 0."""

        def promise(row: PreflightRow) -> tuple[float, float]:
            pull = row.stability if row.agreement is None else row.agreement
            return max(0.0, pull) * max(0.0, row.d_prime), row.auc

        return max(self.rows, key=promise)

    def warnings(
        self, *, auc: float = 0.75, agreement: float = 0.1, stability: float = 0.7
    ) -> tuple[str, ...]:
        """What predicts failure at the best site; empty if nothing does.

        Args:
            auc: Held-out separation below which the classes overlap too much.
            agreement: Cosine below which pairs point in unrelated directions.
            stability: Cosine below which half the data gives another direction.
        """
        row, found = self.best, []
        if row.auc < auc:
            found.append(f"the classes overlap (held-out AUC {row.auc:.2f}, below {auc:g})")
        if row.agreement is not None and row.agreement < agreement:
            found.append(
                f"the pairs disagree (mean cosine {row.agreement:.2f}, below {agreement:g}): some "
                "samples will be steered the wrong way"
            )
        if row.stability < stability:
            found.append(
                f"half of the texts gives another direction (cosine {row.stability:.2f}, below "
                f"{stability:g}): use more texts"
            )
        return tuple(found)

    @property
    def verdict(self) -> str:
        """One line: what to expect, at which site."""
        row = self.best
        numbers = f"AUC {row.auc:.2f}, d' {row.d_prime:.1f}, stability {row.stability:.2f}"
        if row.agreement is not None:
            numbers += f", agreement {row.agreement:.2f}"
        found = self.warnings()
        if found:
            return f"steering is likely to fail, even at {row.site} ({numbers}): {'; '.join(found)}"
        return f"nothing speaks against steering at {row.site} ({numbers})"

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "model": self.model,
            "texts": self.texts,
            "count": list(self.count),
            "verdict": self.verdict,
            "warnings": list(self.warnings()),
            "rows": [dataclasses.asdict(row) for row in self.rows],
        }

    def save(self, path: str | Path) -> Path:
        """Write :meth:`to_dict` as JSON, whole or not at all."""
        from ed_interp.records import write_json

        return write_json(Path(path), self.to_dict())

    def _repr_html_(self) -> str:
        import html

        table = self.to_frame().to_html(index=False, float_format=lambda value: f"{value:.3g}")
        return f"<p>{html.escape(self.verdict)}</p>{table}"


def preflight(
    model: Any,
    contrast: Contrast | ContrastStates,
    *,
    sites: Sequence[str | Site] | None = None,
    halves: int = 50,
    seed: int = 0,
    batch_size: int | None = None,
    progress: Progress = None,
) -> Preflight:
    """Measure separation, agreement and stability at every site.

    Args:
        model: Anything :func:`ed_interp.load` takes.
        contrast: The texts, or their states.
        sites: Hook points; default the output of every block.
        halves: Random halvings for the stability.
        seed: Of folds and halvings.
        batch_size: Texts a batch.
        progress: See :mod:`ed_interp.progress`.

    Raises:
        InvalidInputError: fewer than four texts a class, or classes with the same mean.
    """
    if isinstance(contrast, ContrastStates):
        states = contrast
    else:
        states = read_states(model, contrast, sites=sites, batch_size=batch_size, progress=progress)
    count = (len(states.positive), len(states.negative))
    if min(count) < FEWEST:
        raise InvalidInputError(
            f"{states.name!r} has {count[0]} positive and {count[1]} negative texts: at least "
            f"{FEWEST} of each are needed to say how steerable they are"
        )
    if halves < 1:
        raise InvalidInputError(f"halves={halves}: at least 1 is expected")
    check_gap(states)
    rows = tuple(
        _row(states.at(site), np.random.default_rng(seed), halves) for site in states.sites
    )
    return Preflight(rows, states.model.name, states.name, count)


def _row(states: ContrastStates, rng: np.random.Generator, halves: int) -> PreflightRow:
    positive, negative = states.positive[:, 0].double(), states.negative[:, 0].double()
    auc, d_prime = _separation(positive, negative, states.paired, rng)
    size = torch.cat([positive, negative]).pow(2).sum(-1).mean().sqrt()
    return PreflightRow(
        states.sites[0].name,
        auc,
        d_prime,
        agreement_of(states.differences[:, 0]) if states.paired else None,
        _stability(positive, negative, states.paired, rng, halves),
        float(states.gap[0].norm() / size),
    )


def agreement_of(differences: Tensor) -> float:
    """Mean cosine between the rows of ``pair d_model``, over all pairs of different rows.

    In closed form, ``(|sum of unit rows|^2 - n) / (n (n - 1))``; rows of length 0 count as
    orthogonal to all others.
    """
    units = torch.nn.functional.normalize(differences.double(), dim=-1)
    count = len(units)
    total = units.sum(0).pow(2).sum() - units.pow(2).sum()
    return float(total / (count * (count - 1)))


def _separation(
    positive: Tensor, negative: Tensor, paired: bool, rng: np.random.Generator
) -> tuple[float, float]:
    """AUC and d' of every sample along the difference of the other folds.

    Projections on different directions have no common scale: each fold is measured from the middle
    of the other folds' classes, in units of their distance, and then all are pooled.
    """
    folds = [_folds(len(positive), rng)]
    folds.append(folds[0] if paired else _folds(len(negative), rng))
    pooled: list[list[Tensor]] = [[], []]
    for fold in range(FOLDS):
        held = [torch.from_numpy(numbers == fold) for numbers in folds]
        if not (held[0].any() and held[1].any()):
            continue
        means = positive[~held[0]].mean(0), negative[~held[1]].mean(0)
        direction = means[0] - means[1]
        unit = max(float(direction @ direction), 1e-300)
        for found, side, part in zip(pooled, (positive, negative), held, strict=True):
            found.append((side[part] - (means[0] + means[1]) / 2) @ direction / unit)
    above, below = (torch.cat(found) for found in pooled)
    higher = (above[:, None] > below[None]).double()
    higher = higher + 0.5 * (above[:, None] == below[None]).double()
    spread = float((above.var(unbiased=True) + below.var(unbiased=True)) / 2) ** 0.5
    prime = float(above.mean() - below.mean()) / max(spread, 1e-300)
    return float(higher.mean()), prime


def _folds(count: int, rng: np.random.Generator) -> np.ndarray[Any, np.dtype[np.int64]]:
    return rng.permutation(np.arange(count, dtype=np.int64) % FOLDS)


def _stability(
    positive: Tensor, negative: Tensor, paired: bool, rng: np.random.Generator, halves: int
) -> float:
    """Mean cosine between the mean differences of two halves of the texts."""
    found = []
    for _ in range(halves):
        first = _half(len(positive), rng)
        second = first if paired else _half(len(negative), rng)
        one, other = (
            positive[part].mean(0) - negative[its].mean(0)
            for part, its in ((first, second), (~first, ~second))
        )
        found.append(float(torch.nn.functional.cosine_similarity(one, other, dim=0)))
    return float(np.mean(found))


def _half(count: int, rng: np.random.Generator) -> Tensor:
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[torch.from_numpy(rng.permutation(count)[: count // 2])] = True
    return chosen
