"""Reading back what a run wrote, strictly; rows as dataclasses, and their columns in a table."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args, get_origin

from ed_interp.errors import NoRunError, RunFolderError
from ed_interp.options import hints_of, without_none

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def read_json(file: Path) -> Any:
    """What a JSON file holds; RunFolderError if it is missing or damaged, or holds NaN."""
    try:
        return json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _missing(file) from error
    except OSError as error:
        raise RunFolderError(f"cannot read {file} ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # also not UTF-8
        raise RunFolderError(f"{file} is damaged ({error}); run the command again") from error


def _missing(file: Path) -> RunFolderError:
    folder = file.parent
    if folder.absolute().with_name(f".{folder.absolute().name}.partial").exists():
        text = f"the run at {folder} was interrupted; repeat its command to finish it"
        return RunFolderError(text)
    if not folder.exists():
        return NoRunError(f"there is no run at {folder}; check the path")
    got = f"one without {file.name}" if folder.is_dir() else "a file"
    return NoRunError(f"{folder} must be a run folder, got {got}; pass what --out named")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}")


def read_parquet(file: Path) -> pd.DataFrame:
    """The table in a Parquet file; RunFolderError if it is damaged."""
    import pandas as pd

    try:
        return pd.read_parquet(file)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise RunFolderError(f"{file} is damaged ({reason}); run the command again") from error


def row_fields(kind: Any) -> dict[str, type]:
    """Fields that are a tuple of dataclass rows, and the class of the rows."""
    rows = {}
    for name, hint in hints_of(kind).items():
        hint = without_none(hint)
        element = get_args(hint)[0] if get_origin(hint) is tuple else None
        if isinstance(element, type) and dataclasses.is_dataclass(element):
            rows[name] = element
    return rows


def plain_row(row: Any) -> dict[str, Any]:
    """The fields of a row, as a table takes them."""
    data = dataclasses.asdict(row)
    return {name: list(v) if isinstance(v, tuple) else v for name, v in data.items()}


def arrow_schema(row: type) -> pa.Schema | None:
    """Column types from the fields, so that they do not depend on the values of one run."""
    import pyarrow as pa

    simple = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}
    columns = []
    for field in dataclasses.fields(row):
        hint = without_none(hints_of(row)[field.name])
        if get_origin(hint) is tuple and get_args(hint)[-1] is Ellipsis:
            kind = simple.get(get_args(hint)[0])
            kind = kind and pa.list_(kind)
        else:
            kind = simple.get(hint) or (pa.string() if isinstance(hint, type) is False else None)
        if kind is None:
            return None  # nested rows: Arrow finds their type from the values
        columns.append((field.name, kind))
    return pa.schema(columns)
