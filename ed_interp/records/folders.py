"""Run folders, complete or absent; an interrupted run is continued. The environment of a run."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ed_interp.errors import RunFolderError
from ed_interp.records.files import explained, is_full, one_line, strict_json, write_json

if TYPE_CHECKING:
    from filelock import BaseFileLock

SETTINGS_FORMAT = "ed-interp/run-settings"
_SETTINGS = "settings.json"
# What network file systems without locks answer.
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)

# The libraries whose versions can change a number.
LIBRARIES = (
    "transformer-lens",
    "transformers",
    "peft",
    "torch",
    "sae-lens",
    "datasets",
    "einops",
    "accelerate",
)


class RunFolder:
    """A folder that appears complete, or not at all. Made by :meth:`open`; a context manager."""

    path: Path
    """Where the run will be when it is complete."""
    folder: Path
    """Where to write until then."""
    resumed: bool
    """True if :attr:`folder` holds the files of an interrupted run with equal settings."""
    left: ClassVar[Path | None] = None
    """What the last run that failed in this process left to be continued."""

    def __init__(
        self, path: Path, *, overwrite: bool, resumable: bool, lock: BaseFileLock | None
    ) -> None:
        self.path = path
        self.folder = _hidden(path, "partial")
        self.resumed = False
        self._overwrite = overwrite
        self._resumable = resumable
        self._lock = lock

    @classmethod
    def open(
        cls,
        path: str | Path,
        settings: Mapping[str, Any],
        *,
        overwrite: bool = False,
        resumable: bool = True,
    ) -> RunFolder:
        """Open ``path`` for one run; parents are created.

        Args:
            path: the folder that the run makes.
            settings: plain data; an interrupted run with equal settings is continued.
            overwrite: replace the run at ``path`` once the new one is complete. Only a run folder
                or an empty folder is ever replaced.
            resumable: keep the files of a run that fails. Without it nothing is left.

        Raises:
            InvalidInputError: ``settings`` cannot be written as JSON.
            RunFolderError: ``path`` exists (and not ``overwrite``), is a file, cannot be
                written, is being written by another process, or holds an interrupted run with
                other settings.
        """
        text = _canonical(settings)
        with one_line(Path(path)):
            final = Path(path).expanduser().resolve()
            _check_free(final, overwrite)
            final.parent.mkdir(parents=True, exist_ok=True)
            lock = _take_lock(final)
        run = cls(final, overwrite=overwrite, resumable=resumable, lock=lock)
        try:
            with one_line(final):
                run._prepare(text)
        except BaseException:
            run._release()
            raise
        return run

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                with one_line(self.path):
                    self._finish()
                return
            if not self._resumable or (_holds_nothing(self.folder) and not self.resumed):
                shutil.rmtree(self.folder, ignore_errors=True)
            else:
                RunFolder.left = self.folder
            # Other writers, such as safetensors, report a full disk by errors of their own.
            if is_full(error) and not isinstance(error, RunFolderError):
                raise explained(OSError(errno.ENOSPC, ""), self.path) from error
        finally:
            self._release()

    def _prepare(self, settings: str) -> None:
        old = _hidden(self.path, "replaced")
        # A run was killed between the two renames of _finish, or before it removed the old one.
        if old.exists() and not self.path.exists():
            os.rename(old, self.path)
        shutil.rmtree(old, ignore_errors=True)
        _check_free(self.path, self._overwrite)
        if self.folder.exists() and not _holds_nothing(self.folder):
            equal = _settings_of(self.folder) == settings
            if equal and self._resumable:
                self.resumed = True
            elif equal or self._overwrite:
                shutil.rmtree(self.folder)
            else:
                raise RunFolderError(
                    f"an interrupted run with other settings is in {self.folder}; repeat its "
                    f"command to finish it, pass another --out, or --overwrite to discard it"
                )
        self.folder.mkdir(exist_ok=True)
        _sweep(self.folder)
        if not self.resumed:
            header = {"format": SETTINGS_FORMAT, "version": 1, "settings": json.loads(settings)}
            write_json(self.folder / _SETTINGS, header)

    def _finish(self) -> None:
        _sweep(self.folder)
        _check_free(self.path, self._overwrite)
        old = _hidden(self.path, "replaced")
        replacing = self.path.exists()
        # Two renames, so that a kill at any moment leaves the old run or the new one.
        if replacing:
            os.rename(self.path, old)
        try:
            os.rename(self.folder, self.path)
        except BaseException:
            if replacing and not self.path.exists():
                os.rename(old, self.path)
            raise
        shutil.rmtree(old, ignore_errors=True)

    def _release(self) -> None:
        lock, self._lock = self._lock, None
        if lock is None:
            return
        # Removed while it is held, when nobody else can have taken it; whoever waits for the
        # removed file notices that and opens a new one. Windows does not remove open files.
        file = Path(lock.lock_file)
        with contextlib.suppress(OSError):
            file.unlink()
        lock.release()
        if os.name == "nt":
            with contextlib.suppress(OSError):
                file.unlink()


def next_run_path(base: Path, name: str, settings: Mapping[str, Any]) -> Path:
    """The folder of the next run called ``name``: ``base/name-001``, ``base/name-002``, ...

    An interrupted run with equal settings comes first, so that it is continued; then the first
    number without a complete, interrupted or running one. Characters that are not allowed in file
    names become hyphens.
    """
    text = _canonical(settings)
    name = re.sub(r"[^\w.-]+", "-", name).strip("-.")[:80] or "run"
    pattern = re.compile(rf"\.?{re.escape(name)}-(\d{{3,9}})(\.partial|\.lock)?")
    highest, number, free = 0, 1, None
    with contextlib.suppress(OSError):
        matches = (pattern.fullmatch(entry.name) for entry in base.iterdir())
        highest = max((int(match[1]) for match in matches if match), default=0)
    while True:
        path = base / f"{name}-{number:03d}"
        partial = _hidden(path, "partial")
        taken = path.exists() or _is_locked(path)
        if not taken and partial.exists() and not _holds_nothing(partial):
            if _settings_of(partial) == text:
                return path
            taken = True
        free = path if free is None and not taken else free
        # Numbers may have gaps; look a little further for something to continue.
        if free is not None and number >= highest:
            return free
        number += 1


def installed(name: str) -> str | None:
    """The installed version of a distribution; None if it is not installed."""
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def environment() -> dict[str, Any]:
    """Python, the operating system and the versions of the main libraries.

    Without the host's name, so that a run folder can be published. A library that is not installed
    has version None.
    """
    versions = {name: installed(name) for name in ("ed-interp", *LIBRARIES)}
    python, system = platform.python_version(), platform.platform()
    return {"python": python, "platform": system, "versions": versions}


def _hidden(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{kind}")


def _lock_of(path: Path) -> BaseFileLock:
    """The lock of the run at ``path``, not held yet."""
    from filelock import FileLock

    # The operating system drops it when the process dies, however it dies, so a stale lock cannot
    # occur; that is why the soft locks of filelock are not wanted.
    # Not per thread: a run may be closed by another thread than the one that opened it.
    lock = _hidden(path, "lock")
    return FileLock(lock, timeout=0, thread_local=False, fallback_to_soft=False)


def _take_lock(path: Path) -> BaseFileLock | None:
    from filelock import Timeout

    lock = _lock_of(path)
    file = Path(lock.lock_file)
    try:
        lock.acquire()
    except Timeout:
        # filelock waits for a folder that it may not write to as well; this raises the reason.
        if not file.exists():
            file.touch()
        holder = ""
        with contextlib.suppress(OSError):
            holder = file.read_text(encoding="utf-8", errors="replace")
        raise RunFolderError(
            f"{path} is being written by another run (process {holder or '?'}); wait for it, or "
            f"pass another --out"
        ) from None
    except OSError as error:
        # A run without a lock is better than none.
        if error.errno in _NO_LOCKS:
            return None
        raise
    # The number is for the message only. Windows lets nobody write to a locked file.
    with contextlib.suppress(OSError):
        file.write_text(str(os.getpid()), encoding="utf-8")
    return lock


def _is_locked(path: Path) -> bool:
    from filelock import Timeout

    lock = _lock_of(path)
    if not os.path.exists(lock.lock_file):  # taking it would make the file
        return False
    try:
        with lock:
            return False
    except OSError as error:
        return isinstance(error, Timeout)


def _check_free(path: Path, overwrite: bool) -> None:
    if not path.name:
        raise RunFolderError(f"{path} cannot be a run folder; pass another --out")
    if not path.exists():
        return
    if not path.is_dir():
        raise RunFolderError(f"{path} is a file, not a folder; pass another --out")
    if not overwrite:
        raise RunFolderError(f"{path} exists; pass another --out, or --overwrite to replace it")
    # --overwrite deletes: a mistyped --out must not delete a folder of somebody's own.
    if any(path.iterdir()) and _settings_of(path) is None:
        raise RunFolderError(
            f"{path} is not a run folder (it has no {_SETTINGS} of ed-interp) and is not "
            f"replaced; pass another --out"
        )


def _settings_of(folder: Path) -> str | None:
    """The canonical settings of a run folder; None if it is not one."""
    try:
        data = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(data, dict) or data.get("format") != SETTINGS_FORMAT:
        return None
    return _canonical(data.get("settings"))


def _holds_nothing(folder: Path) -> bool:
    """True if the folder holds settings only: there is nothing to resume."""
    with contextlib.suppress(OSError):
        names = [entry.name for entry in folder.iterdir()]
        return all(name == _SETTINGS or name.endswith(".tmp") for name in names)
    return False


def _sweep(folder: Path) -> None:
    """Remove temporary files of a killed process."""
    for leftover in folder.rglob(".*.tmp"):
        with contextlib.suppress(OSError):
            leftover.unlink()


def _canonical(settings: Any) -> str:
    return strict_json(settings, "the settings", sort_keys=True)
