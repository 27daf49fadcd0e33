"""Run the command line in this process, as a person would see it."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest


@dataclasses.dataclass(frozen=True)
class Outcome:
    status: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The one line on stderr."""
        lines = self.stderr.splitlines()
        assert len(lines) == 1, self.stderr
        assert lines[0].startswith("ed-interp: ")
        assert "Traceback" not in lines[0]
        return lines[0].removeprefix("ed-interp: ")


class _NoStdin:
    """Nothing of ed-interp waits for somebody to type."""

    def read(self, *args: object) -> NoReturn:
        raise AssertionError("stdin was read")

    readline = readlines = __iter__ = read


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """``cli("tasks", "--json")`` runs the command to its exit."""
    from ed_interp.cli import main

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["ed-interp", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", _NoStdin())
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            main()
        assert isinstance(exit.value.code, int)
        return Outcome(exit.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def environment() -> dict[str, str]:
    """For processes that are to import the ed_interp that is under test, wherever they start."""
    import ed_interp

    root = str(Path(ed_interp.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": root, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def small(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of a run of a second or less; ``--out`` and the rest are for the test to say."""
    monkeypatch.chdir(tmp_path)
    sizes = ["--prompts", "24", "--resamples", "20", "--no-untrained"]
    return ["emergence", "--quiet", "--model", str(tiny_folder), *sizes]


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests about something else: leave out what takes longest to write."""
    from ed_interp.probes.emergence.curve import EmergenceCurve
    from ed_interp.records import write_json

    def stub(curve: object, folder: Path) -> None:
        write_json(folder / "run.json", {"stub": True})

    monkeypatch.setattr(EmergenceCurve, "write", stub)
