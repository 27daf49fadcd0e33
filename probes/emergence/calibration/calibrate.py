"""Estimates on populations of known information, at the user's own size.

``calibrate("gaussian", n=2000, d=768)`` draws every population of
:func:`ed_interp.probes.emergence.truth.calibration_tasks` with each seed and runs the estimator.

An estimator that adds noise (``smoothed``) estimates the information that is left behind that
noise, so its truth is that of the noisy population: in closed form for Gaussians, integrated for
clusters and mixtures; the families for which it is not known are left out and named. (Over the n
rows themselves, as a finite population, that estimator is exact but for its Monte Carlo error;
what is calibrated here is what the n rows say of the population they were drawn from.)

Cost: 21 populations times ``seeds`` estimates, less than a second each for ``gaussian`` or ``ksg``
at n = 2,000 and d = 768. With a folder, every estimate is kept and an interrupted run goes on.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.calibration.consistency import CheckRow, consistency
from ed_interp.probes.emergence.calibration.result import Calibration, CalibrationRow
from ed_interp.probes.emergence.estimators import Estimator, flags_of, get_estimator
from ed_interp.probes.emergence.truth import DEFAULT_BITS, KnownInformation, calibration_tasks
from ed_interp.progress import Progress, track
from ed_interp.records import environment, write_json

DEFAULT_SEEDS = 3


def calibrate(
    estimator: str = "smoothed",
    *,
    n: int = 2000,
    d: int = 768,
    d_y: int | None = None,
    bits: Sequence[float] = DEFAULT_BITS,
    families: Sequence[str] | None = None,
    seeds: int = DEFAULT_SEEDS,
    options: Mapping[str, Any] | None = None,
    checks: bool = False,
    folder: str | Path | None = None,
    progress: Progress = None,
) -> Calibration:
    """Estimate against truth for populations of known mutual information.

    Args:
        estimator: a name from ``available_estimators()``.
        n: rows of every sample.
        d: columns of x.
        d_y: columns of y; as many as x unless given.
        bits: true values.
        families: of populations; all by default.
        seeds: samples of every population.
        options: of the estimator, such as ``{"noise": 0.5}``.
        checks: also run the self-consistency checks.
        folder: keep every estimate there and go on from them.
        progress: True for a bar on stderr, or a callable ``(done, total, what)``.

    Raises:
        InvalidInputError: a size, value or option that does not fit.
        UnknownNameError: no such estimator or family.
    """
    if n < 4:
        raise InvalidInputError(f"n={n}: a calibration needs at least 4 rows")
    if seeds < 1:
        raise InvalidInputError(f"seeds={seeds}: at least 1 is needed")
    chosen = get_estimator(estimator, **(options or {}))
    tasks = calibration_tasks(d, d_y, bits=bits, families=families)
    kept = None if folder is None else Path(folder)
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
    rows: list[CalibrationRow] = []
    left_out: dict[str, None] = {}
    noise: float | None = None
    with track(progress, f"calibrating {estimator}", len(tasks) * seeds) as advance:
        for task in tasks:
            if noise is not None and task.noisy is None:
                left_out[task.family] = None
                advance(seeds)
                continue
            cells = []
            for seed in range(seeds):
                file = None if kept is None else kept / f"{task.name}-{seed}.json"
                cells.append(_cell(chosen, task, n, seed, file))
                advance(1)
            noise = cells[0]["noise"]
            row = _row(task, cells, noise)
            if row is None:
                left_out[task.family] = None
            else:
                rows.append(row)
    found: tuple[CheckRow, ...] = ()
    if checks:
        found = consistency(estimator, n=n, d=d, options=options, progress=progress)
    return Calibration(
        estimator=estimator,
        n=n,
        d_x=d,
        d_y=d if d_y is None else d_y,
        rows=tuple(rows),
        checks=found,
        noise=noise,
        left_out=tuple(left_out),
        settings={
            "options": dict(options or {}),
            "bits": list(bits),
            "seeds": seeds,
            "environment": environment(),
        },
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
    noise = terms.settings.get("noise")
    cell = {
        "bits": bits,
        "low": low,
        "high": high,
        "seconds": seconds,
        "noise": float(noise) if isinstance(noise, (int, float)) else None,
        "flags": list(
            flags_of(bits=bits, ci_low=low, limit=float(terms.limit), rows=n, own=terms.flags_at(0))
        ),
    }
    if file is not None:
        write_json(file, cell)
    return cell


def _row(
    task: KnownInformation, cells: Sequence[Mapping[str, Any]], noise: float | None
) -> CalibrationRow | None:
    truth = task.through_noise(noise, noise) if noise else (task.bits, task.error)
    if truth is None:
        return None
    values = [cell["bits"] for cell in cells]
    return CalibrationRow(
        population=task.name,
        family=task.family,
        truth=truth[0],
        truth_error=truth[1],
        estimate=statistics.median(values),
        low=min(values),
        high=max(values),
        covered=sum(cell["low"] <= truth[0] <= cell["high"] for cell in cells) / len(cells),
        seconds=statistics.median(cell["seconds"] for cell in cells),
        flags=tuple(dict.fromkeys(flag for cell in cells for flag in cell["flags"])),
    )
