"""A sweep as a folder: ``run.json``, a Parquet table and a picture."""

from __future__ import annotations

import json
from pathlib import Path

from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.eval.steering.result import SweepResult
from ed_interp.records import RunFolder, environment, write_json, write_parquet

FORMAT = "ed-interp/steering-sweep"
VERSION = 1


def save_sweep(result: SweepResult, folder: Path, *, overwrite: bool = False) -> Path:
    """Write ``result`` to ``folder``, which appears complete or not at all; gives its path.

    Raises:
        RunFolderError: ``folder`` exists (and not ``overwrite``) or cannot be written.
    """
    with RunFolder.open(folder, result.settings, overwrite=overwrite, resumable=False) as run:
        write_sweep(result, run.folder)
    return run.path


def write_sweep(result: SweepResult, folder: Path) -> None:
    """Write the files of ``result`` into ``folder``, which exists; each file atomically."""
    from ed_interp.eval.steering.figure import dose_response_png

    head = {"format": FORMAT, "version": VERSION, "environment": environment()}
    write_json(folder / "run.json", {**head, **result.to_dict()})
    write_parquet(folder / "cells.parquet", result.to_frame())
    dose_response_png(result, folder / "dose-response.png")


def load_sweep(folder: Path) -> SweepResult:
    """Read back what :func:`save_sweep` wrote.

    Raises:
        RunFolderError: no complete sweep is there, or it is damaged.
    """
    file = Path(folder).expanduser() / "run.json"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunFolderError(f"there is no steering sweep at {folder} (no {file.name})") from error
    except ValueError as error:
        raise RunFolderError(f"{file} is damaged ({error}); make the run again") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise RunFolderError(f"{file} is not a steering sweep: its format is {found!r}")
    if data.get("version") != VERSION:
        raise RunFolderError(
            f"{file} has version {data.get('version')!r} and this ed-interp reads {VERSION}"
        )
    try:
        return SweepResult.from_dict(data)
    except InvalidInputError as error:
        raise RunFolderError(f"{file} is damaged ({error}); make the run again") from error
