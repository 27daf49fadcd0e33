"""A run folder is complete or not there, whatever goes wrong on the way."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pytest

from ed_interp import records
from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.records import (
    LIBRARIES,
    RunFolder,
    environment,
    next_run_path,
    write_bytes,
    write_json,
    write_parquet,
    write_text,
)

SETTINGS = {"seed": 0, "shots": [0, 1], "nested": {"a": None}}


def finish(path: Path, text: str = "done", **options: Any) -> None:
    with RunFolder.open(path, SETTINGS, **options) as run:
        write_text(run.folder / "out.txt", text)


def fail(path: Path, error: BaseException, settings: Any = SETTINGS, **options: Any) -> NoReturn:
    with RunFolder.open(path, settings, **options) as run:
        write_text(run.folder / "half.txt", "half")
        raise error


def interrupt(path: Path, **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        fail(path, KeyboardInterrupt(), **options)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def one_line(error: pytest.ExceptionInfo[BaseException], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_run_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run"
    with RunFolder.open(path, SETTINGS) as run:
        assert run.path == path
        assert not run.resumed
        assert not path.exists()
        write_text(run.folder / "out.txt", "1")
    assert names(path) == ["out.txt", "settings.json"]
    assert names(path.parent) == ["run"]
    assert json.loads((path / "settings.json").read_text())["settings"] == SETTINGS


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_a_run_that_fails_is_resumed(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "run"
    with pytest.raises(error):
        fail(path, error())
    assert names(tmp_path) == [".run.partial"]
    equal = {"nested": {"a": None}, "shots": (0, 1), "seed": 0}  # as JSON, where order is nothing
    with RunFolder.open(path, equal) as run:
        assert run.resumed
        assert (run.folder / "half.txt").read_text() == "half"
    assert names(tmp_path) == ["run"]
    assert names(path) == ["half.txt", "settings.json"]


def test_a_failure_before_any_work_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bad"), RunFolder.open(tmp_path / "run", SETTINGS):
        raise ValueError("bad")
    assert names(tmp_path) == []


def test_a_run_that_is_not_resumable_leaves_nothing(tmp_path: Path) -> None:
    interrupt(tmp_path / "run", resumable=False)
    assert names(tmp_path) == []
    interrupt(tmp_path / "run")
    with RunFolder.open(tmp_path / "run", SETTINGS, resumable=False) as run:
        assert not run.resumed
        assert names(run.folder) == ["settings.json"]


def test_other_settings_are_refused_or_discarded(tmp_path: Path) -> None:
    path = tmp_path / "run"
    interrupt(path)
    with pytest.raises(RunFolderError) as error:
        RunFolder.open(path, {"seed": 1})
    one_line(error, ".run.partial", "other settings", "--out", "--overwrite")
    assert (tmp_path / ".run.partial" / "half.txt").exists()
    with RunFolder.open(path, {"seed": 1}, overwrite=True) as run:
        assert not run.resumed
        assert names(run.folder) == ["settings.json"]


def test_an_existing_run_is_kept_unless_told(tmp_path: Path) -> None:
    path = tmp_path / "run"
    finish(path, "first")
    with pytest.raises(RunFolderError) as error:
        finish(path, "second")
    one_line(error, str(path), "exists", "--overwrite")
    assert (path / "out.txt").read_text() == "first"
    interrupt(path, overwrite=True)
    assert (path / "out.txt").read_text() == "first"
    finish(path, "second", overwrite=True)
    assert (path / "out.txt").read_text() == "second"
    assert names(tmp_path) == ["run"]


def test_overwrite_replaces_runs_and_empty_folders_only(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    finish(home, overwrite=True)
    thesis = tmp_path / "work"
    thesis.mkdir()
    (thesis / "thesis.tex").write_text("years")
    (thesis / "settings.json").write_text("{}")
    with pytest.raises(RunFolderError) as error:
        finish(thesis, overwrite=True)
    one_line(error, str(thesis), "not a run folder")
    assert (thesis / "thesis.tex").read_text() == "years"


def test_files_in_the_way(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for path in (file, file / "run"):
        for overwrite in (False, True):
            with pytest.raises(RunFolderError) as error:
                finish(path, overwrite=overwrite)
            one_line(error, str(file), "file", "--out")
    with pytest.raises(RunFolderError):
        finish(Path("/"))
    assert file.read_text() == "mine"
    assert names(tmp_path) == ["file"]


def test_two_writers_do_not_share_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunFolder.open(path, SETTINGS) as run:
        with pytest.raises(RunFolderError) as error:
            RunFolder.open(path, SETTINGS)
        one_line(error, str(path), f"process {os.getpid()}", "--out")
        write_text(run.folder / "out.txt", "1")
    assert names(path) == ["out.txt", "settings.json"]


HOLD = """
import sys, time
from ed_interp.records import RunFolder, write_text
run = RunFolder.open(sys.argv[1], {"seed": 0})
write_text(run.folder / "half.txt", "half")
print("held", flush=True)
time.sleep(600)
"""


def test_a_killed_run_frees_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunFolderError) as error:
            RunFolder.open(path, {"seed": 0})
        one_line(error, f"process {other.pid}")
        assert next_run_path(tmp_path, "run", {"seed": 0}).name == "run-001"
        other.send_signal(signal.SIGKILL)
    assert (tmp_path / ".run.lock").exists()
    with RunFolder.open(path, {"seed": 0}) as run:
        assert run.resumed
    assert names(tmp_path) == ["run"]


def test_a_run_killed_while_it_replaces_another_loses_neither(tmp_path: Path) -> None:
    path = tmp_path / "run"
    finish(path, "first")
    interrupt(path, overwrite=True)
    os.rename(path, tmp_path / ".run.replaced")  # killed here
    with pytest.raises(RunFolderError, match="exists"):
        finish(path)
    assert (path / "out.txt").read_text() == "first"
    finish(path, "second", overwrite=True)
    assert names(tmp_path) == ["run"]


def test_a_failed_last_rename_keeps_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run"
    finish(path, "first")
    rename = os.rename

    def broken(source: Any, target: Any) -> None:
        if str(source).endswith(".partial"):
            raise OSError(errno.EACCES, "no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", broken)
    with pytest.raises(RunFolderError) as error:
        finish(path, "second", overwrite=True)
    one_line(error, str(path), "permission")
    assert (path / "out.txt").read_text() == "first"
    assert (tmp_path / ".run.partial" / "out.txt").read_text() == "second"


def test_temporary_files_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    interrupt(tmp_path / "run")
    (tmp_path / ".run.partial" / ".table.json.77.tmp").write_text("{")
    finish(tmp_path / "run")
    assert names(tmp_path / "run") == ["half.txt", "out.txt", "settings.json"]


@pytest.mark.parametrize(
    ("code", "part"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "cannot write"),
    ],
)
def test_errors_of_the_system_are_one_line_and_leave_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, part: str
) -> None:
    file = write_text(tmp_path / "a.txt", "before")

    def broken(_: int) -> NoReturn:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(RunFolderError) as error:
        write_text(file, "after")
    one_line(error, part, str(file))
    assert file.read_text() == "before"
    assert names(tmp_path) == ["a.txt"]
    with pytest.raises(RunFolderError) as error:
        finish(tmp_path / "run")
    one_line(error, part)
    assert not (tmp_path / "run").exists()


def test_ctrl_c_in_the_middle_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "a.txt", "text")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_met_by_others_is_one_line_too(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(RunFolderError) as raised:
        fail(tmp_path / "run", error)
    one_line(raised, "no space left", str(tmp_path / "run"))
    assert raised.value.__cause__ is error
    assert names(tmp_path) == [".run.partial"]


def test_an_unwritable_parent_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> NoReturn:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", broken)
    with pytest.raises(RunFolderError) as error:
        finish(tmp_path / "no" / "run")
    one_line(error, "no permission", str(tmp_path / "no" / "run"), "--out")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), {1, 2}, np.float32(1), object()])
def test_json_is_strict(tmp_path: Path, bad: Any) -> None:
    with pytest.raises(InvalidInputError) as error:
        write_json(tmp_path / "a.json", {"x": [bad]})
    one_line(error, "a.json")
    with pytest.raises(InvalidInputError):
        RunFolder.open(tmp_path / "run", {"x": bad})
    assert names(tmp_path) == []


def test_written_is_read(tmp_path: Path) -> None:
    data = {"é": [1, 2.5, None, "\u2028\n"], "a": {}}
    assert json.loads(write_json(tmp_path / "a.json", data).read_text("utf-8")) == data
    assert write_bytes(tmp_path / "a.bin", b"\0\xff").read_bytes() == b"\0\xff"
    assert write_text(tmp_path / "a.txt", "\r\né\udcff").read_bytes() == b"\r\n\xc3\xa9\\udcff"
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": [[1], []]})
    back = pd.read_parquet(write_parquet(tmp_path / "a.parquet", frame))
    assert list(back.columns) == ["a", "b", "c"]
    assert back["a"].tolist() == [1, 2]
    assert [list(value) for value in back["c"]] == [[1], []]


def test_next_run_path(tmp_path: Path) -> None:
    first = next_run_path(tmp_path / "runs", "org/model.v2: x", SETTINGS)
    assert first == tmp_path / "runs" / "org-model.v2-x-001"
    finish(first)
    second = next_run_path(tmp_path / "runs", "org/model.v2: x", SETTINGS)
    assert second.name == "org-model.v2-x-002"
    interrupt(second)
    assert next_run_path(tmp_path / "runs", "org/model.v2: x", SETTINGS) == second
    other = next_run_path(tmp_path / "runs", "org/model.v2: x", {"seed": 1})
    assert other.name == "org-model.v2-x-003"
    with RunFolder.open(second, SETTINGS):
        assert next_run_path(tmp_path / "runs", "org/model.v2: x", SETTINGS) == other
    assert next_run_path(tmp_path / "runs", "../..", {}).parent == tmp_path / "runs"


def test_next_run_path_continues_beyond_a_gap(tmp_path: Path) -> None:
    interrupt(tmp_path / "a-004")
    assert next_run_path(tmp_path, "a", SETTINGS).name == "a-004"
    assert next_run_path(tmp_path, "a", {"seed": 1}).name == "a-001"


def test_environment_is_plain_and_does_not_name_the_host() -> None:
    import platform

    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert set(found["versions"]) == {"ed-interp", *LIBRARIES}
    assert found["versions"]["torch"]
    assert found["python"] == platform.python_version()
    assert platform.node() not in json.dumps(found)


def test_records_import_nothing_heavy() -> None:
    code = "import sys, ed_interp.records; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "pandas", "pyarrow", "numpy", "plotly"} & set(loaded)
    assert records.__name__ in loaded


@pytest.mark.skipif(os.name == "nt", reason="flock is of Unix")
def test_a_file_system_without_locks_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> NoReturn:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr("fcntl.flock", broken)
    finish(tmp_path / "run")
    assert next_run_path(tmp_path, "run", SETTINGS).name == "run-001"
    assert names(tmp_path / "run") == ["out.txt", "settings.json"]


FORK = """
import os, sys, time
from ed_interp.records import RunFolder
run = RunFolder.open(sys.argv[1], {})
worker = os.fork()
if worker == 0:
    os.close(1)
    del run
    time.sleep(600)
print(worker, flush=True)
sys.stdin.readline()
run.__exit__(None, None, None)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_worker_neither_frees_the_folder_nor_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "run"
    command = [sys.executable, "-c", FORK, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        try:
            with pytest.raises(RunFolderError, match="another run"):
                RunFolder.open(path, {})
            parent.communicate("\n", timeout=60)
            finish(path, overwrite=True)
        finally:
            os.kill(worker, signal.SIGKILL)
    assert names(tmp_path) == ["run"]
