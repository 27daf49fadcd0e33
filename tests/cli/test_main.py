"""What holds for every verb: help, versions, one line for an error, the right exit status."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, get_args

import pytest

import ed_interp
from ed_interp.errors import RunFolderError
from ed_interp.options import hints_of
from ed_interp.records.folders import RunFolder

Cli = Callable[..., Any]


Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """``run("-m", "ed_interp", NAME="value")`` in a process of its own."""

    def python(*arguments: str, **changes: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, *arguments],
            env={**environment, **changes},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=300,
        )

    return python


def test_python_m_prints_the_version(run: Run) -> None:
    result = run("-m", "ed_interp", "--version")
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.decode().strip() == ed_interp.__version__


@pytest.mark.parametrize("arguments", [["--help"], [], ["emergence", "-h"], ["tasks"], ["models"]])
def test_help_and_lists_import_nothing_heavy(run: Run, arguments: list[str]) -> None:
    script = (
        "import sys\n"
        f"sys.argv = ['ed-interp', *{arguments!r}]\n"
        "from ed_interp.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as exit:\n    assert exit.code == 0, exit.code\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pandas', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = run("-c", script)
    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout


def test_help_names_every_setting_of_the_function(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    text = cli("emergence", "--help").stdout
    elsewhere = {"progress": "--quiet", "options": "--json"}
    for name in inspect.signature(ed_interp.emergence).parameters:
        assert elsewhere.get(name, f"--{name.replace('_', '-')}") in text, name


def test_choices_are_the_library_s() -> None:
    from ed_interp.models.load import load
    from ed_interp.probes.emergence.estimators import noise
    from ed_interp.probes.emergence.options import EmergenceOptions
    from ed_interp.streams.paths import PATHS

    hints = hints_of(EmergenceOptions)
    assert set(get_args(hints["path"])) == {"auto", *PATHS}
    assert set(get_args(hints["normalisation"])) == {"auto", *get_args(noise.Normalisation)}
    for dtype in get_args(hints["dtype"]):
        with pytest.raises(ed_interp.EdInterpError, match="/nowhere"):
            load("/nowhere", dtype=dtype)


@pytest.mark.parametrize("width", [50, 80, 140])
def test_tasks_are_listed_by_their_whole_names(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    result = cli("tasks")
    assert (result.status, result.stderr) == (0, "")
    words = result.stdout.split()
    assert all(name in words for name in ed_interp.task_names())
    assert max(map(len, result.stdout.splitlines())) <= width


def test_tasks_and_models_as_json(cli: Cli) -> None:
    listed = json.loads(cli("tasks", "--json").stdout)["tasks"]
    assert [row["name"] for row in listed] == ed_interp.task_names()
    capital = next(row for row in listed if row["name"] == "country-capital")
    assert capital["kind"] == "labelled"
    assert capital["example"] == "France -> Paris\n"
    assert capital["size"] >= capital["answers"] > 2
    listed = json.loads(cli("models", "--json").stdout)["models"]
    assert [row["name"] for row in listed] == ed_interp.bundled_names()
    shown = cli("models").stdout
    assert all(name in shown for name in ed_interp.bundled_names())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nosuch"], ["nosuch", "--help"]),
        (["emergence", "--nosuch"], ["--nosuch"]),
        (["emergence", "surplus"], ["surplus"]),
        (["emergence", "--shots"], ["--shots", "argument"]),
        (["emergence", "--prompts", "many"], ["--prompts", "whole number"]),
        (["tasks", "--jsn"], ["--jsn"]),
    ],
)
def test_usage_errors_are_one_line(cli: Cli, arguments: list[str], words: list[str]) -> None:
    result = cli(*arguments)
    assert (result.status, result.stdout) == (2, "")
    assert all(word in result.error for word in words)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (RunFolderError("no space"), 1, "no space"),
        (ZeroDivisionError("one\ntwo"), 1, "ZeroDivisionError: one two (--debug shows where)"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_an_error_is_one_line_unless_debugging(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, line: str
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(json, "dumps", fail)
    monkeypatch.setattr(RunFolder, "left", None)  # as in a process of its own
    result = cli("tasks", "--json")
    assert (result.status, result.stdout, result.error) == (status, "", line)
    debugged = cli("tasks", "--json", "--debug")
    assert debugged.status == status
    assert debugged.stderr.splitlines()[-1] == f"ed-interp: {line}"
    if status == 1:
        assert "Traceback" in debugged.stderr


def test_a_reader_that_goes_away_is_no_error(environment: dict[str, str]) -> None:
    script = (
        "import sys\n"
        "sys.argv = ['ed-interp', 'tasks', '--json']\n"
        "from ed_interp.cli import main\n"
        "main()\n"
    )
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        result = subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            stdout=gone,
            stderr=subprocess.PIPE,
            timeout=300,
        )
    assert b"Traceback" not in result.stderr
    assert result.stderr == b""


def test_a_terminal_without_unicode_gets_codes(run: Run) -> None:
    result = run("-m", "ed_interp", "tasks", PYTHONIOENCODING="ascii", COLUMNS="80")
    assert result.returncode == 0, result.stderr
    assert b"country-capital" in result.stdout
    assert result.stdout.isascii()


VERBS = [
    ["emergence"],
    ["calibrate"],
    ["compare"],
    ["paper"],
    ["models"],
    ["tasks"],
    *(["steer", verb] for verb in ("find", "apply", "sweep", "show")),
    *(["features", verb] for verb in ("train", "measure", "show", "emergence", "explain")),
    *(["adapter", verb] for verb in ("train", "show", "export", "merge")),
]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_has_what_all_have(cli: Cli, verb: list[str]) -> None:
    result = cli(*verb, "--help")
    assert result.status == 0
    for flag in ("--json", "--quiet", "--debug"):
        assert flag in result.stdout
    wrong = cli(*verb, "--nosuch")
    assert (wrong.status, "--nosuch" in wrong.error) == (2, True)
