"""Files that are complete or absent: written under a temporary name, forced to disk, renamed.

Every error of the operating system becomes one line that names the path and says what to do.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ed_interp.errors import InvalidInputError, RunFolderError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_bytes(path: Path, data: bytes) -> Path:
    """Write ``data`` to ``path``, whole or not at all; RunFolderError if it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with one_line(path):
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                # Without it a crash after the rename could leave a file of zeros.
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    return path


def write_text(path: Path, text: str) -> Path:
    """:func:`write_bytes` for text, in UTF-8 with its own line ends."""
    # A file name that is not UTF-8 becomes unpaired surrogates in Python, which UTF-8 refuses.
    return write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_json(path: Path, data: Any) -> Path:
    """:func:`write_bytes` for plain data as strict JSON with an indent of two spaces.

    NaN, an infinity or a value that JSON has no form for is an InvalidInputError.
    """
    return write_text(path, strict_json(data, path.name, indent=2) + "\n")


def write_parquet(path: Path, frame: pd.DataFrame, *, schema: pa.Schema | None = None) -> Path:
    """:func:`write_bytes` for a table as Parquet, without its index.

    Without ``schema``, column types are those of the values: a column without any has no type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False), buffer)
    return write_bytes(path, buffer.getvalue())


def new_file(path: str | Path, *, overwrite: bool) -> Path:
    """``path`` with its ``~`` resolved; RunFolderError if it exists or its folder does not."""
    path = Path(path).expanduser()
    if path.exists() and not overwrite:
        raise RunFolderError(f"{path} exists; pass another path, or overwrite it (--overwrite)")
    if not path.parent.is_dir():
        raise RunFolderError(f"cannot write {path}: its folder does not exist; make it first")
    return path


def strict_json(data: Any, what: str, **options: Any) -> str:
    """``data`` as JSON, or an InvalidInputError that says ``what`` could not be written."""
    try:
        return json.dumps(data, allow_nan=False, **options)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{what} cannot be written as strict JSON: {error}") from error


def is_full(error: BaseException) -> bool:
    """True for a full disk, also as Rust libraries (safetensors) report it."""
    return (isinstance(error, OSError) and error.errno in _FULL) or "(os error 28)" in str(error)


@contextlib.contextmanager
def one_line(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into a RunFolderError that names ``path``."""
    try:
        yield
    except RunFolderError:
        raise
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, no home folder
        raise explained(error, path) from error


def explained(error: BaseException, path: Path) -> RunFolderError:
    """The one line for an operating system's error: which path, and what to do."""
    code = error.errno if isinstance(error, OSError) else None
    reason = (error.strerror if isinstance(error, OSError) else None) or error
    texts = {
        _FULL: f"no space left to write {path}; free some, or pass another --out, and run again",
        (errno.EACCES, errno.EPERM): f"no permission to write {path}; pass another --out",
        (errno.EROFS,): f"{path} is on a read-only file system; pass another --out",
        (errno.ENOTDIR, errno.EEXIST): f"{path} cannot be made, as a part of it is a file; pass "
        "another --out",
    }
    other = f"cannot write {path} ({reason}); pass another --out"
    return RunFolderError(next((text for codes, text in texts.items() if code in codes), other))
