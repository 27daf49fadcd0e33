"""Run folders through the command line: complete or not there, and resumed to the same numbers."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

Cli = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("no_pictures")

KILLED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the parent ignores it
import ed_interp.streams.activations as activations
from ed_interp.cli import main
write, written = activations.write_bytes, []
def write_then_die(path, data):
    write(path, data)
    written.append(path)
    if len(written) == 3:
        os.kill(os.getpid(), signal.{name})
activations.write_bytes = write_then_die
sys.argv = ["ed-interp", *{arguments!r}]
main()
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def full(*args: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def sharded(small: list[str]) -> list[str]:
    """Eight shards, printed as JSON."""
    return [*small, "--shots", "0-2", "--batch-size", "3", "--json"]


def rows(found: Any) -> Any:
    assert found.status == 0, found.stderr
    data = json.loads(found.stdout)
    return data["rows"], data["behaviour"]


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGKILL", -signal.SIGKILL)])
def test_an_interrupted_run_is_resumed_and_equals_another(
    cli: Cli,
    sharded: list[str],
    tmp_path: Path,
    environment: dict[str, str],
    name: str,
    status: int,
) -> None:
    arguments = [*sharded, "--out", str(tmp_path / "run")]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED.format(name=name, arguments=arguments)],
        env=environment,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=300,
    )
    assert (killed.returncode, killed.stdout) == (status, ""), killed.stderr
    if name == "SIGINT":
        assert killed.stderr == "ed-interp: interrupted; the same command resumes the run\n"
    assert not (tmp_path / "run").exists()
    trained = tmp_path / ".run.partial" / "work" / "activations" / "trained"
    kept = {path: path.stat().st_mtime_ns for path in trained.glob("shard-*")}
    assert len(kept) == 3

    # The same command with other settings does not take it over.
    other = cli(*arguments, "--seed", "5")
    assert (other.status, other.stdout) == (1, "")
    assert "an interrupted run with other settings" in other.error

    arguments.remove("--quiet")
    resumed = cli(*arguments, "--keep-activations")
    assert "resuming the interrupted run" in resumed.stderr
    done = tmp_path / "run" / "work" / "activations" / "trained"
    # What was there is used as it is.
    assert {path.name: (done / path.name).stat().st_mtime_ns for path in kept} == {
        path.name: written for path, written in kept.items()
    }
    assert len(list(done.glob("shard-*"))) == 8
    assert names(tmp_path) == ["run"]
    assert rows(resumed) == rows(cli(*sharded, "--out", tmp_path / "uninterrupted"))


def test_ctrl_c_before_anything_is_written_leaves_nothing(
    cli: Cli, sharded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ed_interp.probes.emergence import emergence

    def interrupt(*args: object, **options: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(emergence, "read", interrupt)
    found = cli(*sharded, "--out", "run")
    assert (found.status, found.stdout) == (130, "")
    assert "interrupted" in found.error
    assert names(tmp_path) == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_in_the_middle(
    cli: Cli, sharded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    from ed_interp.records import write_bytes as write

    done = []

    def write_until_full(path: Path, data: bytes) -> Path:
        done.append(path)
        if len(done) < 2:
            return write(path, data)
        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            return write(path, data)

    arguments = [*sharded, "--out", "run"]
    with monkeypatch.context() as patch:
        patch.setattr("ed_interp.streams.activations.write_bytes", write_until_full)
        found = cli(*arguments)
    assert (found.status, found.stdout) == (1, "")
    assert "no space left" in found.error
    assert "shard-000001" in found.error
    assert names(tmp_path) == [".run.partial"]
    shards = tmp_path / ".run.partial" / "work" / "activations" / "trained"
    assert names(shards) == ["index.json", "shard-000000.safetensors"]
    assert rows(cli(*arguments)) == rows(cli(*sharded, "--out", "other"))


def test_a_full_disk_at_the_end(
    cli: Cli, sharded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ed_interp.probes.emergence.curve import EmergenceCurve

    with monkeypatch.context() as patch:
        patch.setattr(EmergenceCurve, "write", full)
        found = cli(*sharded, "--out", "run")
    assert (found.status, found.stdout) == (1, "")
    assert "no space left" in found.error
    assert names(tmp_path) == [".run.partial"]


def test_a_folder_that_exists_is_kept(cli: Cli, sharded: list[str], tmp_path: Path) -> None:
    first = rows(cli(*sharded, "--out", "run"))
    refused = cli(*sharded, "--out", "run")
    assert (refused.status, refused.stdout) == (1, "")
    assert "run exists" in refused.error
    assert "--overwrite" in refused.error
    replaced = rows(cli(*sharded, "--out", "run", "--overwrite", "--seed", "9"))
    assert replaced != first
    options = json.loads((tmp_path / "run" / "settings.json").read_text("utf-8"))["settings"]
    assert options["seed"] == 9
    assert names(tmp_path) == ["run"]


def test_overwrite_that_fails_keeps_the_old_run(
    cli: Cli, sharded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ed_interp.probes.emergence.curve import EmergenceCurve

    assert cli(*sharded, "--out", "run").status == 0
    before = (tmp_path / "run" / "run.json").read_bytes()
    monkeypatch.setattr(EmergenceCurve, "write", full)
    assert cli(*sharded, "--out", "run", "--overwrite", "--seed", "9").status == 1
    assert (tmp_path / "run" / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("file.txt", "file.txt is a file"),
        ("file.txt/run", "a part of it is a file"),
        ("mine", "is not a run folder"),
        (".", "is not a run folder"),
        ("/", "cannot be a run folder"),
    ],
)
def test_places_that_cannot_be_a_run_folder(
    cli: Cli, sharded: list[str], tmp_path: Path, out: str, words: str
) -> None:
    (tmp_path / "file.txt").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    found = cli(*sharded, "--out", out, "--overwrite")
    assert (found.status, found.stdout) == (1, "")
    assert words in found.error
    assert names(tmp_path) == ["file.txt", "mine"]
    assert names(tmp_path / "mine") == ["thesis.txt"]


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.EACCES, "no permission to write"), (errno.EROFS, "read-only file system")],
)
def test_a_place_that_is_not_writable(
    cli: Cli,
    sharded: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    words: str,
) -> None:
    # The superuser may write anywhere, so the system's answer is put in its mouth.
    def refuse(self: Path, *args: object, **options: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        found = cli(*sharded, "--out", "closed/run")
    assert (found.status, found.stdout) == (1, "")
    assert words in found.error
    assert "closed/run" in found.error
    assert names(tmp_path) == []


def test_two_runs_at_once(cli: Cli, sharded: list[str], tmp_path: Path) -> None:
    from ed_interp.records import RunFolder

    with RunFolder.open(tmp_path / "run", {}, resumable=False) as running:
        found = cli(*sharded, "--out", "run")
        assert (found.status, found.stdout) == (1, "")
        assert "another run" in found.error
        assert running.folder.exists()


def test_the_default_folder_resumes_too(
    cli: Cli, sharded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ed_interp.probes.emergence.curve import EmergenceCurve

    with monkeypatch.context() as patch:
        patch.setattr(EmergenceCurve, "write", full)
        assert cli(*sharded).status == 1
    assert cli(*sharded, "--seed", "4").status == 0
    assert cli(*sharded).status == 0
    assert names(tmp_path / "ed-interp-runs") == [
        "tiny-mixed-country-001",
        "tiny-mixed-country-002",
    ]
    first = tmp_path / "ed-interp-runs" / "tiny-mixed-country-001" / "settings.json"
    assert json.loads(first.read_text("utf-8"))["settings"]["seed"] == 0
