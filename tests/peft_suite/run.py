"""Run PEFT's own test files against the bias-injection tuner, with LoRA as control.

    pip download peft==0.21.2 --no-binary :all: --no-deps && tar xzf peft-0.21.2.tar.gz
    python tests/peft_suite/run.py peft-0.21.2

Prints a table of passed, failed and refused per file and method, and every failure that is not one
of the refusals the documentation names (merging live feedback; merging a bias into a layer without
one). Exit status 0 if there is none that LoRA does not have too.

COST: 5 to 20 minutes on one core for each method.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
FILES = (
    "test_config.py",
    "test_custom_models.py",
    "test_decoder_models.py",
    "test_encoder_decoder_models.py",
    "test_feature_extraction_models.py",
    "test_seq_classifier.py",
)
METHODS = ("lora", "bias-injection", "bias-injection-output", "bias-injection-static")
REFUSALS = {
    "live feedback": re.compile(r"cannot merge adapter .* its feedback nodes"),
    "bias on a layer without one": re.compile(r"cannot merge adapter .* has no bias to merge"),
}
# PEFT's multilayer perceptron has inputs "batch features": one token each, which leaves nothing for
# feedback to learn from, and the test asks every parameter to change.
NO_TIME = re.compile(r"test_only_params_are_updated\[Vanilla MLP")
UNREACHABLE = re.compile(r"LocalEntryNotFoundError|Can't find 'adapter_config.json'|offline mode")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sdist", type=Path, help="the unpacked source distribution of PEFT")
    parser.add_argument("--methods", nargs="+", default=METHODS[:2], choices=METHODS)
    parser.add_argument("--files", nargs="+", default=FILES, choices=FILES)
    parser.add_argument("-k", default="", help="only tests whose name matches")
    parser.add_argument("--work", type=Path, help="folder to work in; a temporary one by default")
    options = parser.parse_args()
    if not (options.sdist / "tests" / "testing_common.py").is_file():
        parser.error(f"{options.sdist} holds no tests/testing_common.py; unpack PEFT's sdist there")
    work = options.work or Path(tempfile.mkdtemp(prefix="peft-suite-"))
    prepare(options.sdist, work)
    outcomes: dict[tuple[str, str], dict[str, str]] = {}
    for method in options.methods:
        for file in options.files:
            outcomes[file, method] = run(work, file, method, options.k)
            line = ", ".join(f"{n} {kind}" for kind, n in tally(outcomes[file, method]).items())
            print(f"{file:40s} {method:24s} {line}", flush=True)
    return report(outcomes, options.methods)


def prepare(sdist: Path, work: Path) -> None:
    """The tests as a package, and the models they ask the hub for."""
    if not (work / "peft_tests").exists():
        shutil.copytree(sdist / "tests", work / "peft_tests")
        (work / "peft_tests" / "__init__.py").touch()
    if not (work / "models").exists():
        sys.path.insert(0, str(HERE))
        import models  # pyright: ignore[reportMissingImports]

        models.save(work / "models")


def run(work: Path, file: str, method: str, expression: str) -> dict[str, str]:
    """Outcome of each test: passed, skipped, a refusal's name, or the failure's last line."""
    found = work / f"{file}.{method}.xml"
    paths = [
        str(HERE.parents[1]),
        str(HERE),
        str(work),
        *filter(None, [os.environ.get("PYTHONPATH")]),
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PEFT_SUITE_METHOD": method,
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [
        sys.executable, "-m", "pytest", "-p", "plugin", "-p", "no:cacheprovider", "-q",
        "-c", os.devnull, "--rootdir", str(work), f"--junitxml={found}", "--tb=short",
        str(work / "peft_tests" / file),
    ]  # fmt: skip
    if expression:
        command += ["-k", expression]
    log = work / f"{file}.{method}.log"
    with open(log, "w", encoding="utf-8") as out:
        # Models are found by their hub names in the working directory.
        subprocess.run(
            command, cwd=work / "models", env=environment, stdout=out, stderr=out, check=False
        )
    if not found.is_file():
        raise SystemExit(f"pytest did not finish; see {log}")
    return dict(_cases(found))


def _cases(path: Path) -> list[tuple[str, str]]:
    cases = []
    for case in ElementTree.parse(path).iter("testcase"):
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        failure = next((child for child in case if child.tag in ("failure", "error")), None)
        if failure is None:
            kind = "skipped" if any(child.tag == "skipped" for child in case) else "passed"
        else:
            text = f"{failure.get('message') or ''}\n{failure.text or ''}"
            flat = " ".join(text.split())
            kind = next((name for name, sign in REFUSALS.items() if sign.search(flat)), "")
            if not kind and UNREACHABLE.search(flat):
                kind = "needs the hub"
            if not kind and NO_TIME.search(name) and "bias-injection" in path.name:
                kind = "no time axis"
            kind = kind or f"FAILED {(failure.get('message') or flat)[:300]}"
        cases.append((name, kind))
    return cases


def tally(outcomes: dict[str, str]) -> Counter[str]:
    """Number of tests by kind of outcome."""
    return Counter("failed" if k.startswith("FAILED") else k for k in outcomes.values())


def report(outcomes: dict[tuple[str, str], dict[str, str]], methods: list[str]) -> int:
    """The table and the unexpected failures; 1 if there are any."""
    print()
    kinds = ["passed", "skipped", *REFUSALS, "no time axis", "needs the hub", "failed"]
    print("| method | " + " | ".join(kinds) + " |\n|" + "---|" * (len(kinds) + 1))
    for method in methods:
        total: Counter[str] = Counter()
        for (_, one), cases in outcomes.items():
            if one == method:
                total += tally(cases)
        print(f"| {method} | " + " | ".join(str(total[kind]) for kind in kinds) + " |")
    bad = 0
    for (file, method), cases in outcomes.items():
        control = {
            _plain(name)
            for name, kind in outcomes.get((file, "lora"), {}).items()
            if kind.startswith("FAILED")
        }
        for name, kind in cases.items():
            if kind.startswith("FAILED"):
                both = method != "lora" and _plain(name) in control
                bad += not both and method != "lora"
                note = " (LoRA fails too)" if both else ""
                print(f"\n{method} {file} {name}{note}\n    {kind}")
    return 1 if bad else 0


def _plain(name: str) -> str:
    return re.sub(r"BiasInjectionConfig|LoraConfig|bias_injection|lora", "*", name)


if __name__ == "__main__":
    sys.exit(main())
