"""A controlled study: every arm swept, then trained with every seed and compared; resumable.

Use::

    study = run_experiment(Plan("icl-gpt2", {"kind": "relation", "task": "country-capital"},
                                arms=("bias-injection", "lora", "shuffled")), "runs/capital")
    study.to_frame(); study.summary_frame()

The run folder::

    run.json            {"format": "ed-interp/comparison-run", "version": 1, "plan": {...},
                         "model": {...}, "problem": {...}, "arms": [...], "best": {arm: rate},
                         "trials": [TrialRow...], "summary": [ArmRow...], "environment": {...}}
    trials.parquet      the same rows as a table (columns as in TrialRow)
    summary.parquet     columns as in ArmRow
    comparisons/NAME/   comparison.json, effects.parquet, samples.parquet of each compared trial
    adapters/           the trained adapters (unless they were not to be kept)

Under ``accelerate launch`` trials are shared out over the processes, each in a process of its own,
since training runs in one. Cost: ``arms x rates + arms x seeds`` trainings, of which one per arm
serves both, and ``arms x seeds`` comparisons.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.eval.compare.files import plain, read_as, read_record
from ed_interp.eval.study.plan import Plan, Trial
from ed_interp.eval.study.summary import ArmRow, summarise
from ed_interp.eval.study.trials import Bench, Keep, TrialRow, read_row
from ed_interp.processes import process, wait_for_all
from ed_interp.progress import Progress, track
from ed_interp.records import RunFolder, environment, write_json, write_parquet

if TYPE_CHECKING:
    import pandas as pd

FORMAT = "ed-interp/comparison-run"
VERSION = 1
_LAUNCHED = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A study that has been run, or read back."""

    plan: Plan
    trials: tuple[TrialRow, ...]
    summary: tuple[ArmRow, ...]
    best: Mapping[str, float]
    """The rate each arm was compared at."""
    record: dict[str, Any]
    """All of ``run.json``."""
    path: Path

    @property
    def failures(self) -> tuple[TrialRow, ...]:
        """Trials that failed, or had to be started more than once."""
        return tuple(row for row in self.trials if row.status != "done" or row.attempt > 1)

    def to_frame(self) -> pd.DataFrame:
        """One line per trial, columns as in ``TrialRow``."""
        return _frame(self.trials, TrialRow)

    def summary_frame(self) -> pd.DataFrame:
        """One line per arm and metric, columns as in ``ArmRow``."""
        return _frame(self.summary, ArmRow)

    @classmethod
    def load(cls, folder: str | Path) -> Experiment:
        """Read a run back.

        Raises:
            RunFolderError: no complete run is there, or it is damaged or of another version.
        """
        folder = Path(folder).expanduser()
        data = read_record(folder / "run.json", FORMAT, VERSION)
        try:
            return cls(
                plan=Plan.from_dict(data["plan"]),
                trials=read_as(tuple[TrialRow, ...], data.get("trials"), "trials"),
                summary=read_as(tuple[ArmRow, ...], data.get("summary"), "summary"),
                best={str(arm): float(rate) for arm, rate in data["best"].items()},
                record=data,
                path=folder,
            )
        except (InvalidInputError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunFolderError(
                f"{folder / 'run.json'} is damaged ({error}); make the run again"
            ) from error


def run_experiment(
    plan: Plan,
    out: str | Path,
    *,
    overwrite: bool = False,
    keep: Keep = "all",
    extra: Mapping[str, Any] | None = None,
    progress: Progress = None,
) -> Experiment:
    """Run a plan, or what is left of it, into a folder.

    Args:
        plan: What to do.
        out: The run folder; an interrupted run of the same plan in it is continued, and finished
            trials are not run again. Failed ones are.
        overwrite: Replace a run that is there.
        keep: ``all`` comparisons and adapters, the comparison of the arm under test at its first
            seed (``tested``), or only the ``rows``.
        extra: More for the record (the command line).
        progress: See :mod:`ed_interp.progress`.

    Raises:
        InvalidInputError: a plan that cannot be carried out; or the arm under test failed.
        RunFolderError: the folder is taken, damaged or cannot be written.
    """
    rank, count = process()
    if rank:
        return _help(plan, Path(out), keep)
    Bench(plan, Path(out)).problem  # noqa: B018 - refused before anything is written
    with RunFolder.open(out, plan.to_dict(), overwrite=overwrite) as run:
        write_json(run.folder / "plan.json", plan.to_dict())
        if count > 1:
            wait_for_all()
        bench = Bench(plan, run.folder, keep=keep)
        # Read before anything is trained: what cannot be asked or tested is refused at once.
        bench.panel  # noqa: B018
        swept = _run(bench, plan.sweep(), progress, "learning-rate sweep")
        best = best_rates(swept)
        final = _run(bench, plan.final(best), progress, "comparing arms")
        rows = (*swept, *final)
        tested = [row for row in final if row.arm == plan.tested and row.status == "done"]
        if not tested:
            own = [row.error for row in rows if row.arm == plan.tested and row.error]
            reason = own[0] if own else "it was not run"
            raise InvalidInputError(f"{plan.tested}: {reason}; what is finished is kept")
        summary = summarise(final, plan.tested)
        record = _record(bench, best, rows, summary, extra)
        write_json(run.folder / "run.json", record)
        write_parquet(run.folder / "trials.parquet", _frame(rows, TrialRow))
        write_parquet(run.folder / "summary.parquet", _frame(summary, ArmRow))
        gone = ["trials", *([] if keep == "all" else ["adapters"])]
        for name in gone:
            shutil.rmtree(run.folder / name, ignore_errors=True)
    return Experiment.load(run.path)


def best_rates(rows: Sequence[TrialRow]) -> dict[str, float]:
    """Per arm the rate of the lowest held-out loss; arms whose every trial failed are left out."""
    best: dict[str, TrialRow] = {}
    for row in rows:
        if row.status != "done" or row.eval_loss is None:
            continue
        known = best.get(row.arm)
        if known is None or known.eval_loss is None or row.eval_loss < known.eval_loss:
            best[row.arm] = row
    return {arm: row.rate for arm, row in best.items()}


def _run(
    bench: Bench, trials: Sequence[Trial], progress: Progress, what: str
) -> tuple[TrialRow, ...]:
    """Every trial that is not finished; with several processes, shared out."""
    count = process()[1]
    if count > 1:
        write_json(bench.folder / "pending.json", [dataclasses.asdict(trial) for trial in trials])
        wait_for_all()
        with track(progress, f"{what}, in {count} processes", 1) as advance:
            _share(bench.folder, bench.keep)
            advance(1)
        wait_for_all()
    rows = []
    with track(None if count > 1 else progress, what, len(trials)) as advance:
        for trial in trials:
            row = read_row(bench.folder / "trials" / f"{trial.name}.json")
            if row is None or row.status != "done":
                row = bench.run(trial)
            rows.append(row)
            advance(1)
    return tuple(rows)


def _share(folder: Path, keep: Keep) -> None:
    """Run this process's part of the pending trials in a process that is alone."""
    rank, count = process()
    # Training runs in one process, and this one belongs to a group: a child does not.
    alone = {key: value for key, value in os.environ.items() if key not in _LAUNCHED}
    alone["CUDA_VISIBLE_DEVICES"] = _device_of(os.environ.get("LOCAL_RANK", "0"))
    command = [sys.executable, "-m", "ed_interp.eval.study.worker", str(folder)]
    command += [f"{rank}/{count}", keep]
    subprocess.run(command, env=alone, check=False)


def _device_of(local_rank: str) -> str:
    """The one accelerator of this process, out of those that the launcher was shown."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    devices = shown.split(",") if shown else []
    return devices[int(local_rank) % len(devices)] if devices else local_rank


def _help(plan: Plan, out: Path, keep: Keep) -> Experiment:
    """What every process but the first does: its share of the sweep, then of the seeds."""
    from ed_interp.records.folders import _partial

    folder = _partial(out.expanduser().resolve())
    wait_for_all()
    for _ in ("sweep", "final"):
        wait_for_all()
        _share(folder, keep)
        wait_for_all()
    return Experiment(plan, (), (), {}, {}, out)


def _record(
    bench: Bench,
    best: Mapping[str, float],
    rows: Sequence[TrialRow],
    summary: Sequence[ArmRow],
    extra: Mapping[str, Any] | None,
) -> dict[str, Any]:
    plan, problem = bench.plan, bench.problem
    known = {row.arm: row.parameters for row in rows if row.parameters is not None}
    arms = [
        {**arm.to_dict(), "parameters": known.get(arm.name), "sweep": list(arm.sweep(plan.rates))}
        for arm in plan.every_arm()
    ]
    return {
        "format": FORMAT,
        "version": VERSION,
        "plan": plan.to_dict(),
        "model": bench.base.hooked.describe(),
        "problem": {
            "name": problem.name,
            "about": problem.about,
            "shots": list(problem.shots),
            "examples": len(problem.examples),
            **problem.data,
        },
        "tested": plan.tested,
        "arms": arms,
        "best": dict(best),
        "trials": [plain(row, digits=6) for row in rows],
        "summary": [plain(row, digits=6) for row in summary],
        "environment": environment(),
        **(extra or {}),
    }


def _frame(rows: Sequence[Any], kind: type[Any]) -> pd.DataFrame:
    import pandas as pd

    columns = [field.name for field in dataclasses.fields(kind)]
    return pd.DataFrame([plain(row) for row in rows], columns=columns)
