"""The study: the bias-injection adapter against its controls, on both bundled models, two tasks.

Use::

    python -m ed_interp.eval.study --out FOLDER

writes one run folder per model and task (``icl-gpt2-country-capital``, ...), as
:mod:`ed_interp.eval.study.experiment` describes them, and prints the tables. Each arm (LoRA of
equal parameter count, bias alone, feedback with shuffled time, with tau at 0 and at infinity, a
random direction, nothing) is swept over its learning rates and run with 5 seeds. Repeating the
command continues where it stopped.

Cost: 4 studies of about 60 trainings of 20 steps and 36 comparisons; under 30 minutes on 2 cores,
in ``--processes 2`` (the default). A few hundred kilobytes of records.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ed_interp.eval.study.experiment import Experiment
    from ed_interp.eval.study.plan import Plan

MODELS = ("icl-gpt2", "icl-gemma2")
TASKS = ("country-capital", "item-category")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; gives the exit status."""
    parser = argparse.ArgumentParser(description="The study of the bias-injection adapter.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run folders")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="of every training")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    asked = parser.parse_args(arguments)
    studies = [(model, task) for model in asked.models for task in asked.tasks]
    if asked.processes > 1 and len(studies) > 1:
        return _in_processes(studies, asked)
    for model, task in studies:
        _run(model, task, asked)
    return 0


def _in_processes(studies: Sequence[tuple[str, str]], asked: argparse.Namespace) -> int:
    """One study a process: they share nothing, so nothing needs to be launched together."""
    waiting, status = list(studies), 0
    running: list[subprocess.Popen[bytes]] = []
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    while waiting or running:
        while waiting and len(running) < asked.processes:
            model, task = waiting.pop(0)
            command = [sys.executable, "-m", "ed_interp.eval.study", "--out", str(asked.out)]
            command += ["--models", model, "--tasks", task, "--processes", "1"]
            command += ["--seeds", str(asked.seeds), "--steps", str(asked.steps)]
            command += ["--quiet"] if asked.quiet else []
            running.append(subprocess.Popen(command, env=alone))
        done = running.pop(0)
        status = max(status, done.wait())
    return status


def plan_of(model: str, task: str, *, seeds: int, steps: int) -> Plan:
    """The plan of one model and task; every arm there is."""
    from ed_interp.eval.study.arms import ARMS
    from ed_interp.eval.study.plan import TREATED, Plan

    names = (TREATED, *(name for name in ARMS if name != TREATED))
    problem = {"kind": "relation", "task": task, "shots": [0, 1, 2, 4]}
    return Plan(
        model,
        problem,
        names,
        seeds=tuple(range(seeds)),
        steps=steps,
        prompts=60,
        watch_prompts=14,
        texts=16,
        decode_rounds=3,
    )


def _report(name: str) -> Callable[[int, int, str], None]:
    """Progress in lines, for several processes in one terminal."""

    def report(done: int, total: int, what: str) -> None:
        if not what.startswith("reading") and not what.startswith("estimating"):
            print(f"{name}: {what} {done}/{total}", file=sys.stderr, flush=True)

    return report


def _print(study: Experiment) -> None:
    """Arms and metrics as a plain table."""
    table = study.summary_frame().pivot(index="arm", columns="metric", values="mean")
    chosen = ["accuracy", "logprob", "forgetting", "divergence", "harmed", "emergence_change"]
    print(f"{study.path.name}, mean over {len(study.plan.seeds)} seeds")
    print(table[[name for name in chosen if name in table]].round(3).to_string())


def _run(model: str, task: str, asked: argparse.Namespace) -> None:
    import warnings

    # Of transformers and PEFT about themselves; none is about a number.
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="peft")
    from ed_interp.eval.study.experiment import Experiment, run_experiment

    out = asked.out / f"{model}-{task}"
    if (out / "run.json").is_file():
        _print(Experiment.load(out))
        return
    study = run_experiment(
        plan_of(model, task, seeds=asked.seeds, steps=asked.steps),
        out,
        keep="tested",
        extra={"command": "python -m ed_interp.eval.study --out FOLDER"},
        progress=None if asked.quiet else _report(out.name),
    )
    _print(study)


if __name__ == "__main__":
    sys.exit(main())
