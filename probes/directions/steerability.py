"""`preflight`: will steering along this difference work? Measured before anything is steered.

Four numbers per site, from the states that a direction is found from:

- *separation*: AUC and d' of held-out texts along the mean difference of the other texts (five
  folds, so a direction cannot score the noise it was fitted to).
- *agreement*: mean cosine between the differences of different pairs (Tan et al. 2024, arXiv
  2407.12404; Braun et al. 2025, arXiv 2505.22637, find that both predict how reliably a vector
  steers, and for which samples it does the opposite).
- *stability*: mean cosine between the mean differences of two random halves.
- *size*: length of the mean difference over the root mean square length of the states.

The thresholds are rules of thumb and arguments of :meth:`Preflight.warnings`. Low numbers predict
failure; high ones do not promise success (only a sweep with controls does). Cost: the forward
passes, then milliseconds per site.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.options import takes_options
from ed_interp.probes.directions.options import ContrastOptions, PreflightOptions
from ed_interp.probes.directions.pairs import Contrast, ContrastStates, check_gap, read_states
from ed_interp.progress import Progress
from ed_interp.results import Result
from ed_interp.tables import Table, plain_table

FOLDS = 5
FEWEST = 4
"""Texts per class below which nothing can be said."""


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
class Preflight(Result):
    """How steerable two classes look, per site."""

    KIND = "preflight"
    rows: tuple[PreflightRow, ...]
    model: str
    texts: str
    count: tuple[int, int]
    """Positive and negative texts."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def best(self) -> PreflightRow:
        """The site with the greatest product of agreement (or stability) and d', each above 0."""

        def promise(row: PreflightRow) -> tuple[float, float]:
            # Either factor alone can be large where steering fails: both must be.
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
            stability: Cosine below which half of the texts yields another direction.
        """
        row = self.best
        checks = (
            (row.auc, auc, "the classes overlap (held-out AUC {:.2f}, below {:g})"),
            (row.agreement, agreement, "the pairs disagree (mean cosine {:.2f}, below {:g}): some "
             "samples will be steered the wrong way"),
            (row.stability, stability, "half of the texts yields another direction (cosine {:.2f}, "
             "below {:g}): use more texts"),
        )  # fmt: skip
        return tuple(
            text.format(value, least)
            for value, least, text in checks
            if value is not None and value < least
        )

    @property
    def verdict(self) -> str:
        """One line: what to expect, at which site."""
        row = self.best
        numbers = f"AUC {row.auc:.2f}, d' {row.d_prime:.1f}, stability {row.stability:.2f}"
        if row.agreement is not None:
            numbers += f", agreement {row.agreement:.2f}"
        if reasons := "; ".join(self.warnings()):
            return f"steering is likely to fail, even at {row.site} ({numbers}): {reasons}"
        return f"no warning signs for steering at {row.site} ({numbers})"

    def title(self) -> str:
        return f"Preflight of {self.texts} in {self.model}"

    def headline(self) -> str:
        return self.verdict

    def how(self) -> str:
        return (
            f"{self.count[0]} positive and {self.count[1]} negative texts. AUC and d' are of "
            f"held-out texts along the mean difference of the others ({FOLDS} folds). Agreement "
            "is the mean cosine between the differences of two pairs, stability that between the "
            "mean differences of two random halves. Low numbers predict failure; high ones do not "
            "promise success: sweep the direction against controls."
        )

    def tables(self) -> list[Table]:
        about, heads = "Will it steer?", {"auc": "AUC", "d_prime": "d'"}
        formats = {"d_prime": ".1f"}
        return [plain_table("preflight", about, self.rows, heads=heads, formats=formats,
                            number=".2f", terminal=True)]  # fmt: skip


@takes_options(PreflightOptions)
def preflight(
    model: Any = None,
    pairs: Contrast | ContrastStates | str | Path | None = None,
    *,
    options: PreflightOptions,
    progress: Progress = None,
) -> Preflight:
    """Measure separation, agreement and stability at every site.

    Args:
        model: Anything :func:`ed_interp.load` takes.
        pairs: The texts, a file of them, or their states.
        progress: See :mod:`ed_interp.progress`.

    Raises:
        InvalidInputError: fewer than four texts per class, or classes with the same mean.
    """
    states = states_of(model, pairs, options, progress)
    count = (len(states.positive), len(states.negative))
    if min(count) < FEWEST:
        raise InvalidInputError(
            f"{states.name!r} must hold {FEWEST} or more texts of each class to say whether they "
            f"will steer, got {count[0]} positive and {count[1]} negative"
        )
    check_gap(states)
    rows = tuple(_row(states, place, options) for place in range(len(states.sites)))
    settings = {"options": options.to_dict(), "data": states.data}
    return Preflight(rows, states.model.name, states.name, count, settings)


def states_of(
    model: Any, pairs: Any, options: ContrastOptions, progress: Progress
) -> ContrastStates:
    """The states that options describe; ``pairs`` is a contrast, a file of one, or its states."""
    if isinstance(pairs, ContrastStates):
        if options.sites is not None or options.batch_size is not None:
            raise InvalidInputError("sites and batch_size do not apply to states already read")
        return pairs
    if pairs is None:
        raise InvalidInputError("pairs must be a contrast, its states or a file, got none")
    if not isinstance(pairs, Contrast):
        # Before the model is loaded: a file with a mistake is refused at once.
        read = options.read or "-1"
        index = read.removeprefix("-").isdecimal()
        pairs = Contrast.from_file(pairs, read=int(read) if index else read)
    elif options.read is not None:
        raise InvalidInputError("read does not apply to a Contrast, whose texts say where")
    hooked, sites, size = options.load(model), options.sites, options.batch_size
    return read_states(hooked, pairs, sites=sites, batch_size=size, progress=progress)


def _row(states: ContrastStates, place: int, options: PreflightOptions) -> PreflightRow:
    # Each site draws the same folds and halves, so sites compare on the same texts.
    rng = np.random.default_rng(options.seed)
    positive, negative = states.positive[:, place].double(), states.negative[:, place].double()
    auc, d_prime = _separation(positive, negative, states.paired, rng)
    size = torch.cat([positive, negative]).pow(2).sum(-1).mean().sqrt()
    return PreflightRow(
        states.sites[place].name,
        auc,
        d_prime,
        agreement_of(positive - negative) if states.paired else None,
        _stability(positive, negative, states.paired, rng, options.halves),
        float((positive.mean(0) - negative.mean(0)).norm() / size),
    )


def agreement_of(differences: Tensor) -> float:
    """Mean cosine between the rows of ``pair d_model``, over all pairs of different rows.

    In closed form, ``(|sum of unit rows|^2 - n) / (n (n - 1))``; rows of length 0 count as
    orthogonal to all others.
    """
    units = torch.nn.functional.normalize(differences.double(), dim=-1)
    total = units.sum(0).pow(2).sum() - units.pow(2).sum()
    return float(total / (len(units) * (len(units) - 1)))


def _separation(
    positive: Tensor, negative: Tensor, paired: bool, rng: np.random.Generator
) -> tuple[float, float]:
    """AUC and d' of every sample along the difference of the other folds.

    Projections on different directions have no common scale: each fold is measured from the middle
    of the other folds' classes, in units of their distance, and then all are pooled.
    """
    folds = [_folds(len(positive), rng)]
    # Both texts of a pair are held out together: they share most of their words.
    folds.append(folds[0] if paired else _folds(len(negative), rng))
    sides: list[list[Tensor]] = [[], []]
    for fold in range(FOLDS):
        held = [torch.from_numpy(numbers == fold) for numbers in folds]
        if not (held[0].any() and held[1].any()):
            continue
        means = positive[~held[0]].mean(0), negative[~held[1]].mean(0)
        direction = means[0] - means[1]
        # Classes without a gap or a spread: large numbers rather than a division by 0.
        unit = max(float(direction @ direction), 1e-300)
        for pooled, side, part in zip(sides, (positive, negative), held, strict=True):
            # 0 is the middle between the other folds' means, which lie at -1/2 and 1/2.
            pooled.append((side[part] - (means[0] + means[1]) / 2) @ direction / unit)
    above, below = (torch.cat(pooled) for pooled in sides)
    # Ties count half, as in the Mann-Whitney statistic, which the AUC is.
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
    cosines = []
    for _ in range(halves):
        first = _half(len(positive), rng)
        second = first if paired else _half(len(negative), rng)
        one = positive[first].mean(0) - negative[second].mean(0)
        other = positive[~first].mean(0) - negative[~second].mean(0)
        cosines.append(float(torch.nn.functional.cosine_similarity(one, other, dim=0)))
    return float(np.mean(cosines))


def _half(count: int, rng: np.random.Generator) -> Tensor:
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[torch.from_numpy(rng.permutation(count)[: count // 2])] = True
    return chosen
