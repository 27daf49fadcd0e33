"""Estimators of mutual information against known truth, and against peers; training together.

    python tests/benchmarks/run.py estimators
    python tests/benchmarks/bench_estimators.py --cells cells.json --seeds 2 --minutes 30

The second form keeps every cell (task, seed, method) in a JSON file and goes on from there, so that
a long run can be cut into pieces. A round is one task and seed: every method gets the same rows,
one after the other, so the ratio of two methods' times is paired. Errors are |estimate - truth| in
bits. Peers are run at their own settings, but for the steps where a line says so: this machine is a
CPU. Peers that are not installed get a line that says what to install.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Options, Result, Row, Target, number, say, timed
from numpy.typing import NDArray

from ed_interp.probes.emergence.estimators import available_estimators, get_estimator
from ed_interp.probes.emergence.truth import KnownInformation, ground_truth_tasks

Array = NDArray[np.float32]
Method = Callable[[Array, Array, int], float]
"""(x, y, seed) -> bits."""
Cell = dict[str, Any]

ROWS = 5000
DEFAULT = "auto"
OURS = ("auto", "gaussian", "ksg", "latent", "infonce", "smile", "nwj", "mine-heldout")
MINE_STEPS, MIST_STEPS, LMI_EPOCHS = 200, 1000, 30
TENTH, THIRD = Target("at least", 10), Target("at most", 1 / 3)
PEERS = {
    "scikit-learn": ("sklearn", "1 column a side only"),
    "latentmi ksg": ("latentmi", "its k-nearest-neighbour part"),
    "torch-mist smile": ("torch_mist", f"its default, {MIST_STEPS} of 5,000 steps"),
    "latentmi": ("latentmi", f"its default, {LMI_EPOCHS} of 300 epochs"),
}


def ours(name: str, **options: Any) -> Method:
    """One of our estimators, as anybody would call it."""

    def run(x: Array, y: Array, seed: int) -> float:
        found = get_estimator(name, **options).pair(torch.tensor(x), torch.tensor(y), seed=seed)
        return float(found.bits[0])

    return run


def methods() -> dict[str, Method]:
    """All that can be run here: ours, then the peers that are installed."""
    known = available_estimators()
    found = {name: ours(name) for name in OURS if name in known}
    found[f"mine, {MINE_STEPS} steps"] = ours("mine", steps=MINE_STEPS)
    runs = {
        "scikit-learn": _scikit,
        "latentmi ksg": _latentmi_ksg,
        "torch-mist smile": _torch_mist,
        "latentmi": _latentmi,
    }
    for name, (package, _) in PEERS.items():
        if importlib.util.find_spec(package) is not None:
            found[name] = runs[name]
    return found


def _scikit(x: Array, y: Array, seed: int) -> float:
    from sklearn.feature_selection import mutual_info_regression

    if x.shape[1] > 1 or y.shape[1] > 1:
        return float("nan")
    return float(mutual_info_regression(x, y[:, 0], random_state=seed)[0] / np.log(2))


def _latentmi_ksg(x: Array, y: Array, seed: int) -> float:
    from latentmi import ksg

    np.random.seed(seed)
    return float(np.mean(ksg.mi(x, y)))


def _latentmi(x: Array, y: Array, seed: int) -> float:
    from latentmi import lmi

    # It was written for numpy 1.
    if not hasattr(np, "NaN"):
        np.NaN = np.nan  # type: ignore[attr-defined]
    np.random.seed(seed)
    torch.manual_seed(seed)
    found, _, _ = lmi.estimate(x.astype(float), y.astype(float), epochs=LMI_EPOCHS)
    return float(np.nanmean(found))


def _torch_mist(x: Array, y: Array, seed: int) -> float:
    from torch_mist.utils.estimation import estimate_mi

    torch.manual_seed(seed)
    rows = len(x) * 4 // 5
    data = {"x": torch.tensor(x), "y": torch.tensor(y)}
    found = estimate_mi(
        data={name: table[:rows] for name, table in data.items()},
        test_data={name: table[rows:] for name, table in data.items()},
        estimator="smile",
        hidden_dims=[64, 64],
        max_iterations=MIST_STEPS,
        verbose=False,
        logger=False,
    )
    return float(found[0] if isinstance(found, tuple) else found) / float(np.log(2))


class Cells:
    """Results by (task, seed, method), in a file if one is given."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self.known: dict[str, Cell] = {}
        if file is not None and file.exists():
            self.known = json.loads(file.read_text("utf-8"))["cells"]

    def fill(self, tasks: int, seeds: int, only: set[str] | None, until: float) -> None:
        """Run what is missing, the cheap methods of all tasks first."""
        chosen = {name: run for name, run in methods().items() if only is None or name in only}
        late = [name for name in chosen if name in ("torch-mist smile", "latentmi")]
        turns = [{k: v for k, v in chosen.items() if k not in late}] + [
            {k: chosen[k]} for k in late
        ]
        for turn in turns:
            for seed in range(seeds):
                for task in ground_truth_tasks()[:tasks]:
                    for name, run in turn.items():
                        key = f"{task.name}|{seed}|{name}"
                        if key not in self.known and time.monotonic() < until:
                            say(f"estimators: {task.name}, seed {seed}, {name}")
                            self.known[key] = _cell(task, seed, run)
                            self._write()

    def _write(self) -> None:
        if self._file is not None:
            part = self._file.with_name(self._file.name + ".part")
            part.write_text(json.dumps({"rows": ROWS, "cells": self.known}, indent=0), "utf-8")
            os.replace(part, self._file)

    def table(self) -> dict[str, dict[tuple[str, int], Cell]]:
        """Method -> (task, seed) -> cell, methods in their order."""
        found: dict[str, dict[tuple[str, int], Cell]] = {}
        for name in [*methods(), *PEERS]:
            for key, cell in self.known.items():
                task, seed, method = key.split("|")
                if method == name:
                    found.setdefault(name, {})[task, int(seed)] = cell
        return found


def _cell(task: KnownInformation, seed: int, run: Method) -> Cell:
    x, y = (side.numpy() for side in task.sample(ROWS, seed=seed))
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            taken, bits = timed(lambda: run(x, y, seed))
        except Exception as error:
            return {"truth": task.bits, "error": f"{type(error).__name__}: {error}"[:200]}
    if not np.isfinite(bits):
        return {"truth": task.bits, "error": "no value"}
    return {"truth": task.bits, "bits": bits, "cpu": taken.cpu, "wall": taken.wall}


def run(options: Options) -> Iterator[Result]:
    """Accuracy on the suite, then the cost of training together."""
    cells = Cells(None)
    cells.fill(4 if options.quick else 99, options.rounds_or(2, 1), None, float("inf"))
    yield accuracy(cells)
    yield together(options)


def accuracy(cells: Cells) -> Result:
    """Median error and time of every method; each method's time over that of ours, paired."""
    table = cells.table()
    base = _good(table.get(DEFAULT, {}))
    best_peer = min(
        (
            _median_error(_common(table[name], base))
            for name in PEERS
            if _common(table.get(name, {}), base)
        ),
        default=float("nan"),
    )
    rows = []
    for name, own in table.items():
        good = _good(own)
        shared = _common(own, base)
        ratios = tuple(good[key]["cpu"] / base[key]["cpu"] for key in shared)
        worst = max(shared, key=lambda key: _error(good[key]), default=None)
        note = f"median error {number(_median_error(shared))} bits"
        if worst is not None:
            note += f", worst {number(_error(good[worst]))} ({worst[0]})"
        note += f"; ours on the same {number(_median_error({key: base[key] for key in shared}))}"
        if name in PEERS:
            note += f"; {PEERS[name][1]}"
        if len(own) > len(good):
            note += f"; {len(own) - len(good)} without a value"
        cpu = statistics.median(cell["cpu"] for cell in good.values()) if good else None
        wall = statistics.median(cell["wall"] for cell in good.values()) if good else None
        target = TENTH if name in PEERS else None
        rows.append(Row(name, ratios, cpu, wall, target, note))
    for name, (package, _) in PEERS.items():
        if name not in table:
            there = importlib.util.find_spec(package) is not None
            install = f"not installed: pip install --no-deps {package.replace('_', '-')}"
            rows.append(Row(name, note="not run" if there else install))
    setting = (
        f"{len({key[0] for key in base})} tasks, n = {ROWS}, seeds "
        f"{sorted({key[1] for key in base})}; best peer's median error {number(best_peer)} bits"
    )
    return Result("estimators: known information", f"time / {DEFAULT}", tuple(rows), setting)


def errors_markdown(cells: Cells) -> str:
    """The table of median absolute errors in bits, task by task, for the README."""
    table = {name: _good(own) for name, own in cells.table().items()}
    lines = [
        "| task | truth | " + " | ".join(table) + " |",
        "|---|---|" + "---|" * len(table),
    ]
    tasks = dict.fromkeys(key[0] for own in table.values() for key in own)
    for task in tasks:
        cells_of = {
            name: [cell for key, cell in own.items() if key[0] == task]
            for name, own in table.items()
        }
        truth = next(cell["truth"] for own in cells_of.values() for cell in own)
        entries = [
            f"{statistics.median(map(_error, own)):.3f}" if own else "" for own in cells_of.values()
        ]
        lines.append(f"| {task} | {truth:.3f} | " + " | ".join(entries) + " |")
    medians = [f"**{_median_error(own):.3f}**" if own else "" for own in table.values()]
    lines.append("| **median** | | " + " | ".join(medians) + " |")
    times = [
        f"{statistics.median(cell['cpu'] for cell in own.values()):.3g}" if own else ""
        for own in table.values()
    ]
    lines.append("| CPU s, median | | " + " | ".join(times) + " |")
    return "\n".join(lines)


def together(
    options: Options,
    *,
    blocks: int = 12,
    shots: int = 9,
    names: tuple[str, ...] = ("infonce", "mine-heldout"),
) -> Result:
    """One call of ``chain`` for all pairs against one call of ``pair`` for each."""
    rows, width = 500, 64
    if options.quick:
        blocks, shots = 4, 3
    states = _walk(shots, blocks + 1, rows, width)
    found = []
    for name in names:
        estimator = get_estimator(name, steps=100, every=25)
        estimator.pair(states[0, 0], states[0, 1])
        ratios, differences, inside = [], [], 0
        for turn in range(options.rounds_or(1, 1)):
            say(f"estimators: {name} together, round {turn + 1}")
            taken, many = timed(lambda one=estimator: one.chain(states))
            interval = many.intervals(resamples=200)
            cost = 0.0
            inside = 0
            for shot in range(shots):
                for block in range(blocks):
                    one, terms = timed(
                        lambda s=shot, b=block, e=estimator: e.pair(states[s, b], states[s, b + 1])
                    )
                    cost += one.cpu
                    bits = float(terms.bits[0])
                    differences.append(abs(bits - float(many.bits[shot, block])))
                    inside += interval.low[shot, block] <= bits <= interval.high[shot, block]
            ratios.append(taken.cpu / cost)
        note = f"largest difference {number(max(differences))} bits, {inside} of {shots * blocks} "
        found.append(
            Row(name, tuple(ratios), taken.cpu, taken.wall, THIRD, note + "inside the interval")
        )
    setting = (
        f"{blocks} blocks x {shots} shot counts, {rows} rows, width {width}, 100 steps at most"
    )
    return Result("estimators: training together", "together / one by one", tuple(found), setting)


def _walk(shots: int, sites: int, rows: int, width: int) -> torch.Tensor:
    """States like a residual stream: every site is the one before and some news."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(shots, sites, rows, width, generator=generator)
    for site in range(1, sites):
        states[:, site] = 0.8 * states[:, site - 1] + 0.6 * states[:, site]
    return states


def _good(own: Mapping[tuple[str, int], Cell]) -> dict[tuple[str, int], Cell]:
    return {key: cell for key, cell in own.items() if "bits" in cell}


def _common(
    own: Mapping[tuple[str, int], Cell], base: Mapping[tuple[str, int], Cell]
) -> dict[tuple[str, int], Cell]:
    return {key: cell for key, cell in _good(own).items() if key in base}


def _error(cell: Cell) -> float:
    return float(abs(cell["bits"] - cell["truth"]))


def _median_error(own: Mapping[tuple[str, int], Cell]) -> float:
    return statistics.median(map(_error, own.values())) if own else float("nan")


def main() -> int:
    """The resumable form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=Path, required=True, help="JSON file of results, kept")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=99)
    parser.add_argument("--minutes", type=float, default=60.0, help="stop filling after these")
    parser.add_argument("--methods", help="only these, separated by ';'")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    cells = Cells(asked.cells)
    only = None if asked.methods is None else set(asked.methods.split(";"))
    cells.fill(asked.tasks, asked.seeds, only, time.monotonic() + 60 * asked.minutes)
    from rich.console import Console

    accuracy(cells).print(Console(width=180))
    print(errors_markdown(cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
