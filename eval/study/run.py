"""Run a study: every arm swept, then trained with every seed and compared; resumable.

Use::

    result = study(task="country-capital", controls=("lora", "shuffled"), out="runs/capital")
    result.to_frame(); result.to_frame("summary")

Finished trials are kept in the run folder until the study is complete, so that the same call
continues an interrupted one. Under ``accelerate launch`` trials are shared out over the processes,
each in a process of its own, since training runs in one. Cost: ``arms x rates + arms x seeds``
trainings, of which one per arm serves both, and ``arms x seeds`` comparisons.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ed_interp.errors import InvalidInputError
from ed_interp.eval.compare.subjects import open_subject
from ed_interp.eval.study.arms import ARMS, sweep_of
from ed_interp.eval.study.options import StudyOptions
from ed_interp.eval.study.problems import make_problem
from ed_interp.eval.study.result import Study
from ed_interp.eval.study.rows import StudiedArm, Trial, TrialRow
from ed_interp.eval.study.summary import summarise
from ed_interp.eval.study.trials import Bench, control_of
from ed_interp.options import OptionError, takes_options
from ed_interp.processes import gather, process, wait_for_all
from ed_interp.progress import Progress, track
from ed_interp.records import write_json
from ed_interp.results import keep

_LAUNCHED = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@takes_options(StudyOptions)
def study(
    model: Any = None,
    *,
    task: Any = None,
    options: StudyOptions,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = None,
) -> Study:
    """Run a study, or what is left of it.

    Args:
        model: The frozen model: a name, or a live object (in one process).
        task: The task: a name, or a live object (in one process).
        options: All settings at once.
        out: Run folder; an interrupted run of equal options in it is continued, and finished
            trials are not run again. Failed ones are.
        overwrite: Replace the run in `out` once the new one is complete.
        progress: See :mod:`ed_interp.progress`.

    Raises:
        InvalidInputError: options that cannot be carried out; or the arm under test failed.
        ModelLoadError: the model cannot be loaded.
        RunFolderError: the folder is taken, damaged or cannot be written.
    """
    folder = options.checkpoint
    if folder is not None and not (folder / "adapter_config.json").is_file():
        why = "which has no adapter_config.json" if folder.is_dir() else "which does not exist"
        names = f"must be the folder of an adapter, or one of {', '.join(ARMS)}"
        raise OptionError("treated", f"{names}, got {options.treated!r}, {why}")
    problem = make_problem(options.make_task(task), options)
    live = not (isinstance(model, (str, Path)) and isinstance(task, (str, type(None))))
    if live and process()[1] > 1:
        raise InvalidInputError(
            "model and task must be names under accelerate launch, where other processes load "
            "them too, got live objects"
        )
    # Models, tasks and folders of adapters are loaded before there is a run folder.
    base = open_subject(options.load(model))
    # Read before anything is trained: what cannot be prompted or tested is refused at once.
    panel = control_of(options, problem, base)
    panel()  # by every process: they share the prompts out and wait for each other

    def make(work: Path | None) -> Study:
        # Trained adapters pass through files in any case; without `out` they are not kept.
        if work is None:
            with tempfile.TemporaryDirectory() as folder:
                return make(Path(folder) / "work")
        return _study(Bench(options, problem, base, panel, work), progress)

    # A live object has no name that tells one from another: its fingerprint does.
    known = {"model": base.hooked.fingerprint, "task": problem.fingerprint} if live else {}
    record = {**options.to_dict(), **known}
    return keep(make, options=record, out=out, overwrite=overwrite, progress=progress)


def best_rates(rows: Sequence[TrialRow]) -> dict[str, float]:
    """Per arm the rate of the lowest held-out loss; arms whose every trial failed are left out."""
    # By loss on held-out training examples alone: a rate chosen by the prompts of the comparison
    # would fit them.
    best: dict[str, tuple[float, float]] = {}
    for row in rows:
        if row.status == "done" and row.eval_loss is not None:
            known, _ = best.get(row.arm, (math.inf, 0.0))
            if row.eval_loss < known:
                best[row.arm] = (row.eval_loss, row.rate)
    return {arm: rate for arm, (_, rate) in best.items()}


def _study(bench: Bench, progress: Progress) -> Study:
    options, problem, work = bench.options, bench.problem, bench.work
    if process()[0] == 0:
        work.mkdir(parents=True, exist_ok=True)
        # Options name a file of pairs, and do not change with what is in it.
        plan = {"options": options.to_dict(), "pairs": problem.fingerprint}
        file = work / "plan.json"
        if file.exists() and json.loads(file.read_text("utf-8")) != plan:
            raise InvalidInputError(
                "the pairs must be those of the interrupted run, got others: the file has "
                "changed; pass another --out, or --overwrite"
            )
        write_json(file, plan)
    wait_for_all()
    swept = _run(bench, options.sweep(), progress, "learning-rate sweep")
    best = best_rates(swept)
    final = _run(bench, options.final(best), progress, "comparing arms")
    rows = (*swept, *final)
    # Controls may fail; without the arm under test there is nothing to compare them with.
    if not any(row.arm == options.tested and row.status == "done" for row in final):
        errors = [row.error for row in rows if row.arm == options.tested and row.error]
        reason = next(iter(errors), "it has no loss to choose its rate by")
        raise InvalidInputError(f"{options.tested}: {reason}; what is finished is kept")
    counts = {row.arm: row.parameters for row in rows if row.parameters is not None}
    return Study(
        model=bench.base.hooked.describe(),
        problem={
            "name": problem.name,
            "about": problem.about,
            "shots": list(problem.shots),
            "examples": len(problem.examples),
            **problem.data,
        },
        tested=options.tested,
        arms=[
            StudiedArm(**vars(a), parameters=counts.get(a.name), sweep=sweep_of(a, options.rates))
            for a in options.arms()
        ],
        best=best,
        trials=rows,
        summary=summarise(final, options.tested),
        settings={"options": options.to_dict()},
    )


def _run(
    bench: Bench, trials: Sequence[Trial], progress: Progress, what: str
) -> tuple[TrialRow, ...]:
    """Every trial that is not finished; with several processes, shared out."""
    rank, count = process()
    if count > 1:
        if rank == 0:
            pending = [dataclasses.asdict(trial) for trial in trials]
            write_json(bench.work / "pending.json", pending)
        wait_for_all()
        with track(progress if rank == 0 else None, f"{what}, in {count} processes", 1) as advance:
            _share(bench.work, f"{rank}/{count}")
            wait_for_all()
            if rank == 0:
                _share(bench.work, "0/1")  # once more, what failed or was left by one that died
            advance(1)
        wait_for_all()
    rows: list[TrialRow] = []
    with track(None if count > 1 else progress, what, len(trials)) as advance:
        for trial in trials:
            row = bench.row(trial)
            if count > 1 and row is None:
                error = "its process died twice, perhaps for want of memory"
                row = TrialRow(**vars(trial), status="failed", error=error)
            elif row is None or (count == 1 and row.status != "done"):
                row = bench.run(trial)
            rows.append(row)
            advance(1)
    return tuple(gather(rows)[0])


def _share(work: Path, share: str) -> None:
    """Run a part of the pending trials (``0/2``: the first of two) in a process that is alone."""
    # Training runs in one process, and this one belongs to a group: a child does not.
    alone = {key: value for key, value in os.environ.items() if key not in _LAUNCHED}
    # The one accelerator of this process, out of those that the launcher was shown.
    local = os.environ.get("LOCAL_RANK", "0")
    devices = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    alone["CUDA_VISIBLE_DEVICES"] = devices[int(local) % len(devices)] if devices else local
    command = [sys.executable, "-m", "ed_interp.eval.study.trials", str(work), share]
    subprocess.run(command, env=alone, check=False)
