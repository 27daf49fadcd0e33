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
    """Run the chosen benchmarks."""
    parser = argparse.ArgumentParser(description="Benchmarks of ed-interp, paired and interleaved.")
    parser.add_argument("what", nargs="?", default="all", choices=[*NAMES, "all"])
    parser.add_argument("--quick", action="store_true", help="smaller and fewer: a look, no result")
    parser.add_argument("--rounds", type=int, help="rounds of every paired comparison")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--strict", action="store_true", help="exit with 1 if a target is not met")
    arguments = parser.parse_args()
    if arguments.rounds is not None and arguments.rounds < 1:
        parser.error(f"--rounds must be 1 or greater, got {arguments.rounds}")
    if arguments.threads < 1:
        parser.error(f"--threads must be 1 or greater, got {arguments.threads}")

    # Before torch and numpy are loaded: their thread pools and the hub read these once.
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(arguments.threads)
    # What is measured is the checkout that this file stands in, installed or not.
    sys.path.insert(1, str(Path(__file__).resolve().parents[2]))
    import torch
    from harness import Options
    from rich.console import Console

    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", message=".*loss_type.*")
    console = Console(width=None if sys.stdout.isatty() else 150)
    options = Options(quick=arguments.quick, rounds=arguments.rounds)
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, torch {torch.__version__}"
    load = "/".join(f"{value:.1f}" for value in os.getloadavg())
    console.print(f"{machine}, {arguments.threads} thread(s), load {load}")
    if arguments.quick:
        console.print("[yellow]--quick: smaller sizes than the targets are stated for[/]")
    results = []
    for name in NAMES if arguments.what == "all" else (arguments.what,):
        start = time.perf_counter()
        for result in importlib.import_module(f"bench_{name}").run(options):
            result.print(console)
            results.append(result)
        console.print(f"{name}: {time.perf_counter() - start:.0f} s\n")
    if arguments.json is not None:
        settings = {"machine": machine, "threads": arguments.threads, "quick": arguments.quick}
        document = {**settings, "results": [result.to_dict() for result in results]}
        part = arguments.json.with_name(arguments.json.name + ".part")
        part.write_text(json.dumps(document, indent=1), "utf-8")
        os.replace(part, arguments.json)
    unmet = [row.name for result in results for row in result.rows if row.met is False]
    return 1 if arguments.strict and unmet else 0


if __name__ == "__main__":
    sys.exit(main())
