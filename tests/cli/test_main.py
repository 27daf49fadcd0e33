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
from ed_interp.cli import models, options, tasks
from ed_interp.cli.emergence import command
from ed_interp.errors import RunFolderError

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
    found = run("-m", "ed_interp", "--version")
    assert (found.returncode, found.stderr) == (0, b"")
    assert found.stdout.decode().strip() == ed_interp.__version__


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
    found = run("-c", script)
    assert found.returncode == 0, found.stderr.decode()
    assert found.stdout


def test_help_names_every_setting_of_the_function(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = cli("emergence", "--help").stdout
    elsewhere = {"folder": "--out", "progress": "--quiet", "position": "--lone-position"}
    for name in inspect.signature(ed_interp.emergence).parameters:
        assert elsewhere.get(name, f"--{name.replace('_', '-')}") in text, name


def test_the_function_and_the_command_have_the_same_defaults() -> None:
    function = inspect.signature(ed_interp.emergence).parameters
    for name, parameter in inspect.signature(command).parameters.items():
        if name in function and name not in ("model", "task", "dtype"):
            assert parameter.default == function[name].default, name


def test_choices_are_the_library_s() -> None:
    from ed_interp.models.load import load
    from ed_interp.probes.emergence.estimators import noise
    from ed_interp.probes.emergence.lone import POSITIONS
    from ed_interp.streams.paths import PATHS

    assert set(get_args(options.ReadingPath)) == {"auto", *PATHS}
    assert set(get_args(options.LonePosition)) == set(POSITIONS)
    assert set(get_args(options.Normalisation)) == {"auto", *get_args(noise.Normalisation)}
    for dtype in get_args(options.Dtype):
        with pytest.raises(ed_interp.EdInterpError, match="/nowhere"):
            load("/nowhere", dtype=dtype)


@pytest.mark.parametrize("width", [50, 80, 140])
def test_tasks_are_listed_by_their_whole_names(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    found = cli("tasks")
    assert (found.status, found.stderr) == (0, "")
    words = found.stdout.split()
    assert all(name in words for name in ed_interp.task_names())
    assert max(map(len, found.stdout.splitlines())) <= width


def test_tasks_and_models_as_json(cli: Cli) -> None:
    listed = json.loads(cli("tasks", "--json").stdout)["tasks"]
    assert [row["name"] for row in listed] == ed_interp.task_names()
    capital = next(row for row in listed if row["name"] == "country-capital")
    assert capital["kind"] == "labelled"
    assert capital["example"] == "France -> Paris\n"
    assert capital["size"] >= capital["answers"] > 2
    there = json.loads(cli("models", "--json").stdout)["models"]
    assert [row["name"] for row in there] == ed_interp.bundled_names()
    shown = cli("models").stdout
    assert all(name in shown for name in ed_interp.bundled_names())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nosuch"], ["nosuch", "--help"]),
        (["emergence", "--nosuch"], ["--nosuch"]),
        (["emergence", "surplus"], ["surplus"]),
        (["emergence", "--shots"], ["--shots", "argument"]),
        (["emergence", "--prompts", "many"], ["--prompts", "integer"]),
        (["tasks", "--jsn"], ["--jsn"]),
    ],
)
def test_usage_errors_are_one_line(cli: Cli, arguments: list[str], words: list[str]) -> None:
    found = cli(*arguments)
    assert (found.status, found.stdout) == (2, "")
    assert all(word in found.error for word in words)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (RunFolderError("no space"), 1, "no space"),
        (ZeroDivisionError("one\ntwo"), 1, "ZeroDivisionError: one two (--debug shows where)"),
        (KeyboardInterrupt(), 130, "interrupted; the same command resumes the run"),
    ],
)
def test_an_error_is_one_line_unless_debugging(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, line: str
) -> None:
    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr(json, "dumps", fail)
    found = cli("tasks", "--json")
    assert (found.status, found.stdout, found.error) == (status, "", line)
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
        found = subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            stdout=gone,
            stderr=subprocess.PIPE,
            timeout=300,
        )
    assert b"Traceback" not in found.stderr
    assert found.stderr == b""


def test_a_terminal_without_unicode_gets_codes(run: Run) -> None:
    found = run("-m", "ed_interp", "tasks", PYTHONIOENCODING="ascii", COLUMNS="80")
    assert found.returncode == 0, found.stderr
    assert b"country-capital" in found.stdout
    assert found.stdout.isascii()


def test_each_verb_takes_debug() -> None:
    for verb in (command, models.command, tasks.command):
        assert "debug" in inspect.signature(verb).parameters
