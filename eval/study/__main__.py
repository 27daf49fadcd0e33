"""The study: the bias-injection adapter against its controls, on both bundled models, two tasks.

Use::

    python -m ed_interp.eval.study --out FOLDER

writes one run folder per model and task (``icl-gpt2-country-capital``, ...), as
:mod:`ed_interp.eval.study.result` describes them, and prints the tables. Each arm (LoRA of equal
parameter count, bias alone, feedback with shuffled time, with tau at 0 and at infinity, a random
direction, nothing) is swept over its learning rates and run with 5 seeds. Repeating the command
continues where it stopped.

Cost: 4 studies of about 60 trainings of 20 steps and 36 comparisons; under 30 minutes on 2 cores,
in ``--processes 2`` (the default). A few hundred kilobytes of records, and a page each.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from ed_interp.eval.study.options import StudyOptions

MODELS = ("icl-gpt2", "icl-gemma2")
TASKS = ("country-capital", "item-category")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the studies; returns the exit status."""
    parser = argparse.ArgumentParser(description="The study of the bias-injection adapter.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run folders")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="steps of every training")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    settings = parser.parse_args(arguments)
    studies = [(model, task) for model in settings.models for task in settings.tasks]
    if settings.processes > 1 and len(studies) > 1:
        return _in_processes(studies, settings)
    for model, task in studies:
        _run(model, task, settings)
    return 0


def _in_processes(studies: Sequence[tuple[str, str]], settings: argparse.Namespace) -> int:
    """One study per process: they share nothing, so nothing needs to be launched together."""
    waiting, status = list(studies), 0
    running: list[subprocess.Popen[bytes]] = []
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    while waiting or running:
        while waiting and len(running) < settings.processes:
            model, task = waiting.pop(0)
            command = [sys.executable, "-m", "ed_interp.eval.study", "--out", str(settings.out)]
            command += ["--models", model, "--tasks", task, "--processes", "1"]
            command += ["--seeds", str(settings.seeds), "--steps", str(settings.steps)]
            command += ["--quiet"] if settings.quiet else []
            running.append(subprocess.Popen(command, env=alone))
        status = max(status, running.pop(0).wait())
    return status


def options_of(model: str, task: str, *, seeds: int, steps: int) -> StudyOptions:
    """The settings of one model and task; every arm."""
    return StudyOptions(
        model=model,
        task=task,
        seeds=seeds,
        steps=steps,
        prompts=60,
        watch_prompts=14,
        texts=16,
        decode_rounds=3,
        keep="tested",
    )


def _report(name: str) -> Callable[[int, int, str], None]:
    """Progress in lines, for several processes in one terminal."""

    def report(done: int, total: int, what: str) -> None:
        if not what.startswith("reading") and not what.startswith("estimating"):
            print(f"{name}: {what} {done}/{total}", file=sys.stderr, flush=True)

    return report


def _run(model: str, task: str, settings: argparse.Namespace) -> None:
    from ed_interp.eval.study.result import Study
    from ed_interp.eval.study.run import study

    # Warnings of transformers and PEFT about themselves; none is about a number.
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="peft")
    out = settings.out / f"{model}-{task}"
    if (out / "run.json").is_file():
        result = Study.load(out)
    else:
        result = study(
            options=options_of(model, task, seeds=settings.seeds, steps=settings.steps),
            out=out,
            progress=None if settings.quiet else _report(out.name),
        )
    table = result.to_frame("summary").pivot(index="arm", columns="metric", values="mean")
    metrics = ["accuracy", "logprob", "forgetting", "divergence", "harmed", "emergence_change"]
    print(f"{out.name}, mean over {result.options.seeds} seeds")
    print(table[[name for name in metrics if name in table]].round(3).to_string())


if __name__ == "__main__":
    sys.exit(main())
