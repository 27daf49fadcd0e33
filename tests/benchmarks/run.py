"""Benchmarks: ``python tests/benchmarks/run.py [NAME|all] [--quick]``; names are in NAMES.

Tables on stdout, progress on stderr. The exit status is 0 whether or not the targets are met,
unless ``--strict`` is given (then 1).
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
import warnings
from pathlib import Path

NAMES = (
    "capture",
    "packing",
    "emergence",
    "injection",
    "directions",
    "estimators",
    "adapter",
    "dictionaries",
    "features",
    "compare",
)


def main() -> int:
    """Run the benchmarks asked for."""
    parser = argparse.ArgumentParser(description="Benchmarks of ed-interp, paired and interleaved.")
    parser.add_argument("what", nargs="?", default="all", choices=[*NAMES, "all"])
    parser.add_argument("--quick", action="store_true", help="smaller and fewer: a look, no result")
    parser.add_argument("--rounds", type=int, help="rounds of every paired comparison")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a target is not met")
    asked = parser.parse_args()
    if asked.rounds is not None and asked.rounds < 1:
        parser.error(f"--rounds {asked.rounds}: at least 1 is expected")
    if asked.threads < 1:
        parser.error(f"--threads {asked.threads}: at least 1 is expected")

    # Before torch and numpy are loaded: their thread pools and the hub read these once.
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(asked.threads)
    # What is measured is the checkout that this file stands in, installed or not.
    sys.path.insert(1, str(Path(__file__).resolve().parents[2]))
    import torch
    from harness import Options
    from rich.console import Console

    torch.set_num_threads(asked.threads)
    warnings.filterwarnings("ignore", message=".*loss_type.*")
    console = Console(width=None if sys.stdout.isatty() else 150)
    options = Options(quick=asked.quick, rounds=asked.rounds)
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, torch {torch.__version__}"
    load = "/".join(f"{value:.1f}" for value in os.getloadavg())
    console.print(f"{machine}, {asked.threads} thread(s), load {load}")
    if asked.quick:
        console.print("[yellow]--quick: smaller sizes than the targets are stated for[/]")
    results = []
    for name in NAMES if asked.what == "all" else (asked.what,):
        start = time.perf_counter()
        for result in importlib.import_module(f"bench_{name}").run(options):
            result.print(console)
            results.append(result)
        console.print(f"{name}: {time.perf_counter() - start:.0f} s\n")
    if asked.json is not None:
        settings = {"machine": machine, "threads": asked.threads, "quick": asked.quick}
        document = {**settings, "results": [result.to_dict() for result in results]}
        part = asked.json.with_name(asked.json.name + ".part")
        part.write_text(json.dumps(document, indent=1), "utf-8")
        os.replace(part, asked.json)
    unmet = [row.name for result in results for row in result.rows if row.met is False]
    return 1 if asked.strict and unmet else 0


if __name__ == "__main__":
    sys.exit(main())
