"""One writer per run folder.

The operating system holds the lock and drops it when the process dies, however it dies, so there
is no stale lock to detect; the process id in the file is for the message only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import NoReturn

from ed_interp.errors import RunFolderError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


def take_lock(lock: Path, path: Path) -> int:
    """Hold the file ``lock`` for the run at ``path``; gives its descriptor.

    Raises:
        RunFolderError: another run holds it.
    """
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _try_lock(descriptor):
                _refuse(descriptor, path)
            # Its last holder may have removed the file between our opening and locking it.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                    os.ftruncate(descriptor, 0)
                    os.lseek(descriptor, 0, os.SEEK_SET)
                    os.write(descriptor, str(os.getpid()).encode())
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _refuse(descriptor: int, path: Path) -> NoReturn:
    os.lseek(descriptor, 0, os.SEEK_SET)
    holder = os.read(descriptor, 32).decode(errors="replace") or "?"
    raise RunFolderError(
        f"{path} is being written by another run (process {holder}); wait for it, or pass "
        f"another --out"
    )


def drop_lock(descriptor: int, lock: Path) -> None:
    """Give up what :func:`take_lock` gave, and remove the file."""
    with contextlib.suppress(OSError):
        lock.unlink()  # while it is held: nobody can have taken it meanwhile
    if sys.platform != "win32":
        # Forked workers share the descriptor; closing ours alone would not free it.
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            lock.unlink()  # Windows does not remove open files


def is_locked(lock: Path) -> bool:
    """True while some run holds ``lock``."""
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # Windows hides locked bytes: not the id's
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Some network file systems have no locks; a run there is better than none.
        return error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
    return True
