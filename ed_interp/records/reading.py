"""Reading back what a run wrote: strict, with one line for whatever is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ed_interp.errors import RunFolderError

if TYPE_CHECKING:
    import pandas as pd


def read_json(file: Path) -> Any:
    """What a JSON file holds; RunFolderError if it is missing or damaged, or holds NaN."""
    try:
        return json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunFolderError(_missing(file)) from error
    except OSError as error:
        raise RunFolderError(f"cannot read {file} ({error.strerror})") from error
    except (ValueError, RecursionError) as error:  # also not UTF-8
        raise RunFolderError(f"{file} is damaged ({error}); run the command again") from error


def _missing(file: Path) -> str:
    folder = file.parent
    if folder.with_name(f".{folder.name}.partial").exists():
        return f"the run at {folder} was interrupted; repeat its command to finish it"
    if not folder.exists():
        return f"there is no run at {folder}"
    if not folder.is_dir():
        return f"{folder} must be a run folder, got a file; pass the folder that holds {file.name}"
    return f"{folder} must be a run folder, got one without {file.name}"


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
