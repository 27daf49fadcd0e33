"""An emergence curve as a folder: ``run.json``, Parquet tables, a picture and a report.

``run.json`` holds every number and is what is read back; the rest is for people and other tools.
Cost: about three seconds to write, most of them matplotlib's and Plotly's imports; the report
weighs 5 MB.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.probes.emergence.curve import (
    FLAGS,
    BehaviourRow,
    EmergenceCurve,
    EmergenceRow,
    ProfileRow,
)
from ed_interp.records import (
    RunFolder,
    environment,
    write_json,
    write_parquet,
    write_text,
)

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "ed-interp/emergence"
VERSION = 1


def save_curve(curve: EmergenceCurve, folder: Path, overwrite: bool = False) -> Path:
    """Write ``curve`` to ``folder``, which appears complete or not at all; gives its path.

    Raises:
        InvalidInputError: the curve or its settings have NaN or what JSON has no form for.
        RunFolderError: ``folder`` exists (and not ``overwrite``) or cannot be written.
    """
    with RunFolder.open(folder, curve.settings, overwrite=overwrite, resumable=False) as run:
        write_curve(curve, run.folder)
    return run.path


def write_curve(curve: EmergenceCurve, folder: Path) -> None:
    """Write the files of ``curve`` into ``folder``, which exists; each file atomically.

    Raises:
        InvalidInputError: the curve or its settings have NaN or what JSON has no form for.
        RunFolderError: a file cannot be written.
    """
    from ed_interp.figures import calibration_png, emergence_png
    from ed_interp.report import render_report

    ran_on = curve.settings.get("environment")
    if not isinstance(ran_on, dict):
        ran_on = environment()
    run = {"format": FORMAT, "version": VERSION, **curve.to_dict(), "environment": ran_on}
    write_json(folder / "run.json", run)
    write_parquet(folder / "emergence.parquet", curve.to_frame(), schema=_schema(EmergenceRow))
    if curve.behaviour:
        frame = curve.behaviour_frame()
        write_parquet(folder / "behaviour.parquet", frame, schema=_schema(BehaviourRow))
    if curve.profile:
        frame = curve.profile_frame()
        write_parquet(folder / "profile.parquet", frame, schema=_schema(ProfileRow))
    if curve.comparison is not None:
        write_parquet(folder / "comparison.parquet", curve.comparison.to_frame())
    if curve.calibration is not None:
        calibration_png(curve.calibration, folder / "calibration.png")
    emergence_png(curve, folder / "emergence.png")
    write_text(folder / "report.html", render_report(curve, FLAGS, environment=ran_on))


def load_curve(folder: Path) -> EmergenceCurve:
    """Read back what :func:`save_curve` wrote.

    Raises:
        RunFolderError: there is no complete emergence run, it is damaged, or a newer version of
            ed-interp wrote it.
    """
    file, data = read_run(folder, FORMAT, VERSION, "an emergence run")
    try:
        for name, kind in (
            ("rows", EmergenceRow),
            ("behaviour", BehaviourRow),
            ("profile", ProfileRow),
        ):
            _check_values(data.get(name), kind)
        return EmergenceCurve.from_dict(data)
    except InvalidInputError as error:
        raise RunFolderError(f"{file} is damaged ({error}); make the run again") from error


def read_run(folder: Path, kind: str, version: int, what: str) -> tuple[Path, dict[str, Any]]:
    """``run.json`` of a run folder, and its data, if it is of that format and version.

    Raises:
        RunFolderError: it is missing, damaged, of another format or of a newer version.
    """
    folder = Path(folder).expanduser()
    file = folder / "run.json"
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunFolderError(_missing(folder)) from error
    except UnicodeDecodeError as error:
        raise RunFolderError(f"{file} is damaged (not UTF-8); make the run again") from error
    except OSError as error:
        raise RunFolderError(f"cannot read {file} ({error.strerror})") from error
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RunFolderError(f"{file} is damaged ({error}); make the run again") from error
    if not isinstance(data, dict) or data.get("format") != kind:
        found = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise RunFolderError(f"{file} is not {what}: its format is {found!r}")
    if data.get("version") != version:
        raise RunFolderError(
            f"{file} has version {data.get('version')!r} and this ed-interp reads {version}; "
            f"install the version of ed-interp that wrote it"
        )
    return file, data


def _missing(folder: Path) -> str:
    if folder.with_name(f".{folder.name}.partial").exists():
        return f"the run at {folder} was interrupted; repeat its command to finish it"
    if not folder.exists():
        return f"there is no run at {folder}"
    if not folder.is_dir():
        return f"{folder} is a file, not a run folder; pass the folder that holds run.json"
    return f"{folder} is not a run folder: it has no run.json"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}")


def _check_values(rows: Any, kind: type[Any]) -> None:
    """Refuse values of the wrong type, which dataclasses take without a word."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InvalidInputError(f"no list of {kind.__name__}")
    for row, field in itertools.product(rows, dataclasses.fields(kind)):
        value = row.get(field.name)
        if field.name == "flags":
            good = isinstance(value, list) and all(isinstance(flag, str) for flag in value)
        elif value is None:
            good = field.name == "untrained"
        else:
            kinds = int if field.type == "int" else (int, float)
            good = isinstance(value, kinds) and not isinstance(value, bool)
        if not good:
            raise InvalidInputError(f"{field.name} is {value!r:.60}")


def _schema(kind: type[Any]) -> pa.Schema:
    """Column types from the fields, so that they do not depend on the values of one run."""
    import pyarrow as pa

    types = {"int": pa.int64(), "tuple[str, ...]": pa.list_(pa.string())}
    return pa.schema(
        [
            (field.name, types.get(str(field.type), pa.float64()))
            for field in dataclasses.fields(kind)
        ]
    )
