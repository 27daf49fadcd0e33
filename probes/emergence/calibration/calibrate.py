"""Estimates on populations of known information, at the user's own size.

``calibrate("gaussian", n=2000, d=768)`` draws every population of
:func:`ed_interp.probes.emergence.truth.calibration_tasks` with each seed and runs the estimator.

Self-consistency: properties that any estimator of mutual information should have. After Song and
Ermon, "Understanding the limitations of variational mutual information estimators" (ICLR 2020),
who test independence, data processing and additivity; symmetry and growth with n are added.

Cost: 21 populations times ``seeds`` estimates, less than a second each for ``gaussian`` or ``ksg``
at n = 2,000 and d = 768; 10 more for the checks. With a folder, every estimate is kept and an
interrupted run resumes.
"""

from __future__ import annotations

import functools
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.options import takes_options
from ed_interp.probes.emergence.calibration.result import Calibration
from ed_interp.probes.emergence.calibration.rows import (
    CalibrationRow,
    CheckRow,
    allowed,
    bands_of,
    is_right,
)
from ed_interp.probes.emergence.estimators.base import Estimator, flags_of
from ed_interp.probes.emergence.options import CalibrationOptions
from ed_interp.probes.emergence.truth import KnownInformation, calibration_tasks
from ed_interp.progress import Progress, track
from ed_interp.records.files import write_json
from ed_interp.results import keep

_SEED_OF_PERMUTATION = 11


@takes_options(CalibrationOptions)
def calibrate(
    estimator: str | None = None,
    *,
    options: CalibrationOptions,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = None,
) -> Calibration:
    """Estimate against truth for populations of known mutual information.

    >>> calibration = ed_interp.calibrate("gaussian", n=2000, d=768)  # doctest: +SKIP

    Args:
        estimator: A name from ``available_estimators()``.
        options: All settings at once; those given by keyword take precedence.
        out: Run folder to make; an interrupted run in it is resumed. Without it nothing is written.
        overwrite: Replace the run in ``out`` once the new one is complete.
        progress: True for a bar on stderr, or a callable ``(done, total, what)``.

    Raises:
        InvalidInputError: a size, value or option that does not fit.
        UnknownNameError: no such estimator or family.
        RunFolderError: ``out`` exists (and not ``overwrite``) or cannot be written.
    """
    # One noise for both sides, so that the truth behind it is known whatever their widths.
    chosen = options.make_estimator().for_population(d=options.d, n=options.n)
    tasks = calibration_tasks(
        options.d, options.d_y, bits=options.bits, families=options.families or None
    )
    make = functools.partial(_calibration, chosen, tasks, options, progress)
    return keep(make, options=options, out=out, overwrite=overwrite, progress=progress)


def calibrate_estimator(
    estimator: Estimator, *, n: int, d: int, folder: Path | None = None, progress: Progress = None
) -> Calibration:
    """:func:`calibrate` for an estimator that is made already, without the checks."""
    options = CalibrationOptions(estimator=estimator.name, n=n, d=d, checks=False)
    return _calibration(estimator, calibration_tasks(d), options, progress, folder)


def _calibration(
    estimator: Estimator,
    tasks: Sequence[KnownInformation],
    options: CalibrationOptions,
    progress: Progress,
    folder: Path | None,
) -> Calibration:
    # An estimator that adds noise (smoothed) estimates the information that is left behind that
    # noise, so its truth is that of the noisy population: in closed form for Gaussians, integrated
    # for clusters and mixtures; the families for which it is not known are left out and named.
    # (Over the n rows themselves, as a finite population, it is exact but for its Monte Carlo
    # error; what is tested is how well n rows represent the population they were drawn from.)
    noise = estimator.added_noise
    s = noise or 0.0
    truths = [(task, task.through_noise(s, s)) for task in tasks]
    known = [(task, truth) for task, truth in truths if truth is not None]
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    rows: list[CalibrationRow] = []
    with track(progress, f"calibrating {estimator.name}", len(known) * options.seeds) as advance:
        for task, truth in known:
            cells = []
            for seed in range(options.seeds):
                # A file for each estimate: with a trained critic one takes minutes.
                file = None if folder is None else folder / f"{task.name}-{seed}.json"
                cells.append(_cell(estimator, task, options.n, seed, file))
                advance(1)
            rows.append(_row(task, cells, truth))
    checks: tuple[CheckRow, ...] = ()
    if options.checks:
        checks = consistency(estimator, n=options.n, d=options.d, progress=progress)
    settings = {"name": estimator.name, **estimator.to_dict()}
    return Calibration(
        estimator=estimator.name,
        n=options.n,
        d_x=options.d,
        d_y=options.d_y or options.d,
        rows=tuple(rows),
        bands=bands_of(rows),
        checks=checks,
        noise=noise,
        left_out=tuple(dict.fromkeys(task.family for task, truth in truths if truth is None)),
        settings={"estimator": settings, "seeds": options.seeds},
    )


def _cell(
    estimator: Estimator, task: KnownInformation, n: int, seed: int, file: Path | None
) -> dict[str, Any]:
    """One estimate as plain data; read from ``file`` where an earlier run left it."""
    if file is not None and file.exists():
        known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return known
    x, y = task.sample(n, seed=seed)
    start = time.perf_counter()
    terms = estimator.pair(x, y, seed=seed)
    seconds = time.perf_counter() - start
    interval = terms.intervals(seed=seed)
    bits, low, high = float(terms.bits[0]), float(interval.low[0]), float(interval.high[0])
    flags = flags_of(bits=bits, ci_low=low, limit=float(terms.limit), rows=n, own=terms.flags_at(0))
    cell = {"bits": bits, "low": low, "high": high, "seconds": seconds, "flags": list(flags)}
    if file is not None:
        write_json(file, cell)
    return cell


def _row(
    task: KnownInformation, cells: Sequence[Mapping[str, Any]], truth: tuple[float, float]
) -> CalibrationRow:
    values = [cell["bits"] for cell in cells]
    # A median, as one sample on which a training diverged should not decide.
    estimate = statistics.median(values)
    return CalibrationRow(
        population=task.name,
        family=task.family,
        truth=truth[0],
        truth_error=truth[1],
        estimate=estimate,
        low=min(values),
        high=max(values),
        covered=sum(cell["low"] <= truth[0] <= cell["high"] for cell in cells) / len(cells),
        seconds=statistics.median(cell["seconds"] for cell in cells),
        right=is_right(estimate, truth[0]),
        flags=tuple(dict.fromkeys(flag for cell in cells for flag in cell["flags"])),
    )


def consistency(
    estimator: Estimator,
    *,
    n: int = 2000,
    d: int = 8,
    bits: float = 2.0,
    seed: int = 0,
    progress: Progress = None,
) -> tuple[CheckRow, ...]:
    """Run every check on one estimator, with ``n`` Gaussian rows of ``bits`` true information.

    x and y have ``d`` columns, half as many in each of the two blocks for additivity; ``seed`` is
    that of the rows and of the estimator.

    Raises:
        InvalidInputError: fewer than 2 columns or 16 rows.
    """
    if d < 2 or n < 16:
        raise InvalidInputError(
            f"d must be 2 or greater and n 16 or greater for the checks, got d = {d} and n = {n}; "
            "leave the checks out"
        )
    independent, dependent = calibration_tasks(d, bits=(0.0, bits), families=("gaussian",))
    half = calibration_tasks(d // 2, bits=(bits / 2,), families=("gaussian",))[0]
    apart = independent.sample(n, seed=seed)
    # Samples are drawn with seeds of their own: equal seeds would share rows between them.
    x, y = dependent.sample(n, seed=seed + 1)
    first, second = half.sample(n, seed=seed + 2), half.sample(n, seed=seed + 3)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(_SEED_OF_PERMUTATION))
    noisy = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    with track(progress, f"checking {estimator.name}", 10) as advance:

        def value(left: Tensor, right: Tensor) -> float:
            estimate = float(estimator.pair(left, right, seed=seed).bits[0])
            advance(1)
            return estimate

        # The same rows as they are: what most checks below compare with.
        full = value(x, y)
        parts = value(*first) + value(*second)
        whole = value(*(torch.cat(pair, 1) for pair in zip(first, second, strict=True)))
        kept = value(x, y[:, : max(1, d // 2)])
        # A function of y holds no more of x than y itself (data processing), whatever it is.
        rounded = value(x, torch.round(y * 2) / 2)
        less = value(x[: n // 2], y[: n // 2])
        # Estimate, what it should be, and whether it may be less.
        checks = (
            ("independence", "independent x and y share nothing", value(*apart), 0.0, False),
            ("permutation", "rows of y in random order", value(x, y[order]), 0.0, False),
            ("symmetry", "x and y exchanged", value(y, x), full, False),
            ("additivity", "independent blocks add up", whole, parts, False),
            ("data processing", "half of y's columns hold no more", kept, full, True),
            ("coarse graining", "y rounded to halves holds no more", rounded, full, True),
            ("growth with n", "half of the rows give the same", less, full, False),
            ("noise", "noise on x adds nothing", value(noisy, y), full, True),
        )
    return tuple(_check(*check) for check in checks)


def _check(check: str, meaning: str, estimate: float, expected: float, less: bool) -> CheckRow:
    room = allowed(expected)
    holds = estimate <= expected + room if less else abs(estimate - expected) <= room
    return CheckRow(check, meaning, estimate, expected, room, holds)
