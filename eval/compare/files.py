"""How a comparison lies in a folder, and how it is read back.

``comparison.json`` holds every number and is what is read back::

    {"format": "ed-interp/comparison", "version": 1,
     "control": {...}, "treated": {...},     # name, kind, description of the model, its adapter
     "task": "country-capital",
     "effects": [...],                       # one object per Effect, fields as in result.py
     "forgetting": {..., "contexts": [...]} | null,
     "features": [...], "cost": {...} | null, "identity": {...} | null,
     "adaptivity": {..., "turns": [...], "decay": [...]} | null,
     "settings": {...}, "environment": {...}}

Beside it, for other tools: ``effects.parquet`` (the same rows and a ``verdict``) and
``samples.parquet``, one line per prompt and shot count: ``set`` (task or watched), ``relation``,
``prompt``, ``shots``, and ``correct``, ``logprob``, ``rank`` of each side (``control_correct``,
``treated_correct``, ...), paired by line. Only JSON and Parquet are read. Cost: milliseconds.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args, get_origin

from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.eval.compare.result import (
    Adaptivity,
    Comparison,
    Cost,
    Effect,
    FeatureChange,
    Forgetting,
    Identity,
)
from ed_interp.records import RunFolder, environment, write_json, write_parquet

FORMAT = "ed-interp/comparison"
VERSION = 1
FILE = "comparison.json"

T = TypeVar("T")

_PARTS: dict[str, Any] = {
    "effects": tuple[Effect, ...],
    "forgetting": Forgetting | None,
    "features": tuple[FeatureChange, ...],
    "cost": Cost | None,
    "identity": Identity | None,
    "adaptivity": Adaptivity | None,
}


def to_dict(comparison: Comparison) -> dict[str, Any]:
    """Plain data of a comparison, without its samples."""
    data: dict[str, Any] = {
        "control": comparison.control,
        "treated": comparison.treated,
        "task": comparison.task,
    }
    for name in _PARTS:
        data[name] = plain(getattr(comparison, name))
    return {**data, "settings": comparison.settings}


def from_dict(data: Any) -> Comparison:
    """The inverse of :func:`to_dict`.

    Raises:
        InvalidInputError: ``data`` is not what :func:`to_dict` gives; the first fault is named.
    """
    if not isinstance(data, dict):
        raise InvalidInputError(f"a comparison is an object, found {type(data).__name__}")
    heads = {"control": dict, "treated": dict, "task": str, "settings": dict}
    for name, kind in heads.items():
        if not isinstance(data.get(name), kind):
            raise InvalidInputError(f"{name} is {data.get(name)!r:.60}")
    parts = {name: read_as(kind, data.get(name), name) for name, kind in _PARTS.items()}
    return Comparison(**{name: data[name] for name in heads}, **parts)


def save_comparison(comparison: Comparison, folder: Path, *, overwrite: bool = False) -> Path:
    """Write ``comparison`` to ``folder``, which appears complete or not at all; gives its path."""
    settings = comparison.settings
    with RunFolder.open(folder, settings, overwrite=overwrite, resumable=False) as run:
        write_comparison(comparison, run.folder)
    return run.path


def write_comparison(comparison: Comparison, folder: Path, *, tables: bool = True) -> None:
    """Write the files of ``comparison`` into ``folder``, which exists; each file atomically.

    Args:
        comparison: What to write.
        folder: Where.
        tables: Also the Parquet tables, which other tools read.
    """
    head = {"format": FORMAT, "version": VERSION}
    write_json(folder / FILE, {**head, **to_dict(comparison), "environment": environment()})
    if tables:
        write_parquet(folder / "effects.parquet", comparison.to_frame())
        if comparison.samples is not None:
            write_parquet(folder / "samples.parquet", comparison.samples)


def load_comparison(folder: Path) -> Comparison:
    """Read back what :func:`save_comparison` wrote.

    Raises:
        RunFolderError: no complete comparison is there, it is damaged, or another version of
            ed-interp wrote it.
    """
    folder = Path(folder).expanduser()
    data = read_record(folder / FILE, FORMAT, VERSION)
    try:
        found = from_dict(data)
    except InvalidInputError as error:
        raise RunFolderError(f"{folder / FILE} is damaged ({error}); make the run again") from error
    table = folder / "samples.parquet"
    if not table.exists():
        return found
    return dataclasses.replace(found, samples=_table(table))


def read_record(file: Path, format: str, version: int) -> dict[str, Any]:
    """The JSON object of a record of the given format and version.

    Raises:
        RunFolderError: it is not there, damaged, another record, or of another version.
    """
    folder = file.parent
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        if folder.with_name(f".{folder.name}.partial").exists():
            reason = f"the run at {folder} was interrupted; repeat its command to finish it"
        elif folder.is_dir():
            reason = f"{folder} has no {file.name}; pass the folder that a run wrote"
        else:
            reason = f"there is no run at {folder}"
        raise RunFolderError(reason) from error
    except (OSError, UnicodeDecodeError) as error:
        raise RunFolderError(f"cannot read {file} ({error}); make the run again") from error
    try:
        data = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise RunFolderError(f"{file} is damaged ({error}); make the run again") from error
    found = data.get("format") if isinstance(data, dict) else type(data).__name__
    if found != format:
        raise RunFolderError(f"{file} is no record of {format}: its format is {found!r}")
    if data.get("version") != version:
        raise RunFolderError(
            f"{file} has version {data.get('version')!r} and this ed-interp reads {version}; "
            "install the version of ed-interp that wrote it"
        )
    return data  # type: ignore[no-any-return]


def plain(value: Any, *, digits: int | None = None) -> Any:
    """Dataclasses and tuples as JSON has them: objects and lists; floats to so many digits."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: plain(getattr(value, field.name), digits=digits)
            for field in dataclasses.fields(value)
        }
    if isinstance(value, (tuple, list)):
        return [plain(item, digits=digits) for item in value]
    return value if digits is None or not isinstance(value, float) else float(f"{value:.{digits}g}")


def read_as(kind: Any, value: Any, where: str) -> Any:
    """``value`` of JSON as the annotated type ``kind``: dataclasses, tuples, unions and scalars.

    Dataclasses themselves take a value of the wrong type without a word; this does not.

    Raises:
        InvalidInputError: a value of another type; ``where`` it is is named.
    """
    if get_origin(kind) in (typing.Union, types.UnionType):
        if value is None and type(None) in get_args(kind):
            return None
        kind = next(option for option in get_args(kind) if option is not type(None))
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(
            read_as(get_args(kind)[0], item, f"{where}[{index}]")
            for index, item in enumerate(value)
        )
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        hints = typing.get_type_hints(kind)
        needed = {field.name: field.default for field in dataclasses.fields(kind)}
        missing = [name for name, default in needed.items() if default is dataclasses.MISSING]
        unknown = sorted(set(value) - set(needed)) or sorted(set(missing) - set(value))
        if unknown:
            raise InvalidInputError(f"{where}: {unknown[0]} is missing or unknown")
        fields = {
            name: read_as(hints[name], item, f"{where}.{name}") for name, item in value.items()
        }
        return kind(**fields)  # type: ignore[operator]
    scalars = {float: (int, float), int: (int,), str: (str,), bool: (bool,)}
    accepted = scalars.get(kind, ())
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise InvalidInputError(f"{where} is {value!r:.60}")
    return float(value) if kind is float else value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}")


def _table(file: Path) -> Any:
    import pandas as pd
    import pyarrow as pa

    try:
        return pd.read_parquet(file)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RunFolderError(f"{file} is damaged ({reason}); make the run again") from error
