"""The study: the bias-injection adapter against its controls, on both bundled models, two tasks.

Use::

    python -m ed_interp.eval.study --out FOLDER [--picture study.png]

runs ``ed-interp compare`` for each model and task, into ``FOLDER/MODEL-TASK``; runs that are there
are left as they are, and interrupted ones continued. Each arm (LoRA of equal parameter count, bias
alone, feedback with shuffled time, with tau at 0 and at infinity, a random direction, nothing) is
swept over its learning rates and run with 5 seeds. ``--picture`` draws all of them.

Cost: 4 studies of about 60 trainings of 20 steps and 36 comparisons; under 30 minutes on 2 cores,
in ``--processes 2`` (the default). A few hundred kilobytes of records, and a page each.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ed_interp.charts.still import png
from ed_interp.eval.study.charts import learned_chart
from ed_interp.eval.study.result import Study
from ed_interp.records import write_bytes

MODELS = ("icl-gpt2", "icl-gemma2")
TASKS = ("country-capital", "item-category")
SETTINGS = (
    "--prompts=60", "--watch-prompts=14", "--texts=16", "--decode-rounds=3", "--keep=tested",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the studies; returns the exit status."""
    parser = argparse.ArgumentParser(description="The study of the bias-injection adapter.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run folders")
    parser.add_argument("--models", nargs="+", default=MODELS, help="bundled models")
    parser.add_argument("--tasks", nargs="+", default=TASKS, help="built-in tasks")
    parser.add_argument("--seeds", type=int, default=5, help="seeds per arm")
    parser.add_argument("--steps", type=int, default=20, help="steps of every training")
    cores = min(2, os.cpu_count() or 1)
    parser.add_argument("--processes", type=int, default=cores, help="studies to run at once")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    parser.add_argument("--picture", type=Path, help="PNG to draw of all studies")
    settings = parser.parse_args(arguments)
    folders = {
        settings.out / f"{model}-{task}": (f"--model={model}", f"--task={task}")
        for model in settings.models
        for task in settings.tasks
    }
    common = [*SETTINGS, f"--seeds={settings.seeds}", f"--steps={settings.steps}"]
    common += ["--quiet"] if settings.quiet else []
    # Threads of two processes on two cores would only get into each other's way.
    alone = {**os.environ, "OMP_NUM_THREADS": "1"} if settings.processes > 1 else None
    # A complete run holds run.json; an interrupted one lies elsewhere and is continued.
    waiting = [
        [sys.executable, "-m", "ed_interp", "compare", *which, *common, f"--out={folder}"]
        for folder, which in folders.items()
        if not (folder / "run.json").is_file()
    ]
    # One study per process: they share nothing, so nothing needs to be launched together.
    with ThreadPoolExecutor(max(1, settings.processes)) as pool:
        ended = list(pool.map(lambda each: subprocess.run(each, env=alone).returncode, waiting))
    # A study that a signal ended has a negative status, which no maximum would show.
    status = next((code for code in ended if code), 0)
    if settings.picture is not None and status == 0:
        draw_studies(list(folders), settings.picture)
    return status


def draw_studies(folders: Sequence[Path], path: Path) -> Path:
    """Draw studies to ``path``, atomically; every mark is read from their records.

    Raises:
        RunFolderError: a folder that holds no study, or ``path`` cannot be written.
    """
    studies = {folder.name: Study.load(folder).trials for folder in sorted(folders)}
    chart = learned_chart(studies, "What each arm learned, and what it forgot", columns=2)
    return write_bytes(path, png(chart))


if __name__ == "__main__":
    sys.exit(main())
