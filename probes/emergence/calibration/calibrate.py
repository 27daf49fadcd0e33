"""Estimates on populations of known information, at the user's own size.

``calibrate("gaussian", n=2000, d=768)`` draws every population of
:func:`ed_interp.probes.emergence.truth.calibration_tasks` with each seed and runs the estimator.

Cost: 21 populations times ``seeds`` estimates, less than a second each for ``gaussian`` or ``ksg``
at n = 2,000 and d = 768. With a folder, every estimate is kept and an interrupted run resumes.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ed_interp.options import takes_options
from ed_interp.probes.emergence.calibration.consistency import consistency
from ed_interp.probes.emergence.calibration.options import CalibrationOptions
from ed_interp.probes.emergence.calibration.result import Calibration
from ed_interp.probes.emergence.calibration.rows import CalibrationRow, bands_of, is_right
from ed_interp.probes.emergence.estimators.base import Estimator, flags_of
from ed_interp.probes.emergence.truth import KnownInformation, calibration_tasks
from ed_interp.progress import Progress, track
from ed_interp.records.files import write_json
from ed_interp.results import keep


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

    def make(folder: Path | None) -> Calibration:
        return _calibration(chosen, tasks, options, folder, progress)

    return keep(make, options=options, out=out, overwrite=overwrite, progress=progress)


def calibrate_estimator(
    estimator: Estimator, *, n: int, d: int, folder: Path | None = None, progress: Progress = None
) -> Calibration:
    """:func:`calibrate` for an estimator that is made already, without the checks."""
    options = CalibrationOptions(estimator=estimator.name, n=n, d=d, checks=False)
    return _calibration(estimator, calibration_tasks(d), options, folder, progress)


def _calibration(
    estimator: Estimator,
    tasks: Sequence[KnownInformation],
    options: CalibrationOptions,
    folder: Path | None,
    progress: Progress,
) -> Calibration:
    # An estimator that adds noise (smoothed) estimates the information that is left behind that
    # noise, so its truth is that of the noisy population: in closed form for Gaussians, integrated
    # for clusters and mixtures; the families for which it is not known are left out and named.
    # (Over the n rows themselves, as a finite population, it is exact but for its Monte Carlo
    # error; what is tested is how well n rows represent the population they were drawn from.)
    noise = estimator.added_noise
    truths = {task.name: _truth(task, noise) for task in tasks}
    known = [(task, truth) for task in tasks if (truth := truths[task.name]) is not None]
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
    checks = (
        consistency(estimator, n=options.n, d=options.d, progress=progress)
        if options.checks
        else ()
    )
    return Calibration(
        estimator=estimator.name,
        n=options.n,
        d_x=options.d,
        d_y=options.d_y or options.d,
        rows=tuple(rows),
        bands=bands_of(rows),
        checks=checks,
        noise=noise,
        left_out=tuple(dict.fromkeys(task.family for task in tasks if truths[task.name] is None)),
        settings={
            "estimator": {"name": estimator.name, **estimator.to_dict()},
            "seeds": options.seeds,
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
    flags = flags_of(bits=bits, ci_low=low, limit=float(terms.limit), rows=n, own=terms.flags_at(0))
    cell = {"bits": bits, "low": low, "high": high, "seconds": seconds, "flags": list(flags)}
    if file is not None:
        write_json(file, cell)
    return cell


def _truth(task: KnownInformation, noise: float | None) -> tuple[float, float] | None:
    """Information of a population behind the noise, and its standard error; None if not known."""
    return task.through_noise(noise, noise) if noise else (task.bits, task.error)


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
