"""Results: what every measurement returns, saves, loads, tabulates and shows.

A result is a frozen dataclass of plain fields; what is written follows from the fields, and reading
is strict (an unknown field, NaN, ``true`` for 1 and a newer version are refused, with file and
place). A subclass declares its fields and writes what a person reads::

    @dataclasses.dataclass(frozen=True)
    class Depths(Result):
        KIND = "depths"
        model: str
        rows: tuple[DepthRow, ...]
        settings: dict[str, Any] = dataclasses.field(default_factory=dict)

        def title(self) -> str: ...
        def headline(self) -> str: ...
        def tables(self) -> list[Table]: ...
        def charts(self) -> list[Chart]: ...

and one line in :data:`HOMES`, so that :func:`load_any` knows it. Cost: pydantic is imported at the
first read or write (0.1 s); a page weighs 5 MB, most of it Plotly's script.
"""

from __future__ import annotations

import contextvars
import dataclasses
import functools
import hashlib
import importlib
import shutil
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from ed_interp.charts.spec import Chart
from ed_interp.errors import InvalidInputError, RunFolderError, unknown
from ed_interp.options import Options
from ed_interp.processes import gather, process, wait_for_all
from ed_interp.progress import Progress
from ed_interp.records.files import strict_json, write_bytes, write_json, write_parquet, write_text
from ed_interp.records.folders import RunFolder, environment
from ed_interp.records.reading import arrow_schema, plain_row, read_json, read_parquet, row_fields
from ed_interp.tables import Table

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

# Not typing.Self, which run-time type checkers cannot resolve outside of a decorated class.
R = TypeVar("R", bound="Result")

HOMES = {
    "adapter-training": "ed_interp.adapters.training.result",
    "calibration": "ed_interp.probes.emergence.calibration.result",
    "causal-emergence": "ed_interp.probes.emergence.causal",
    "comparison": "ed_interp.eval.compare.result",
    "direction-summary": "ed_interp.probes.directions.find",
    "dictionary": "ed_interp.probes.dictionaries.results",
    "dictionary-measurement": "ed_interp.probes.dictionaries.measurement",
    "emergence": "ed_interp.probes.emergence.curve",
    "estimator-comparison": "ed_interp.probes.emergence.curve",
    "feature-descriptions": "ed_interp.probes.dictionaries.description.descriptions",
    "feature-emergence": "ed_interp.probes.dictionaries.results",
    "preflight": "ed_interp.probes.directions.steerability",
    "steered-texts": "ed_interp.eval.steering.generation",
    "steering-recovery": "ed_interp.eval.steering.recovery",
    "interpretations": "ed_interp.probes.dictionaries.results",
    "steering-sweep": "ed_interp.eval.steering.result",
    "task-comparison": "ed_interp.eval.lm_eval",
    "comparison-run": "ed_interp.eval.study.result",
}
"""Module of each kind of result, imported when a file of that kind is met. Other packages name
theirs in the entry-point group ``ed_interp.results``."""

COMMAND: contextvars.ContextVar[str] = contextvars.ContextVar("command", default="")
"""The command line that is running, for the record; empty in a notebook."""

_PREFIX = "ed-interp/"
_HEADER = ("format", "version", "sha256", "environment")


@dataclasses.dataclass(frozen=True)
class Result:
    """Base of all results."""

    KIND: ClassVar[str]
    """The kind in the file's ``format``: ``ed-interp/KIND``."""
    VERSION: ClassVar[int] = 1
    FILE: ClassVar[str] = "run.json"
    SIDE: ClassVar[tuple[str, ...]] = ()
    """Fields that hold a DataFrame: Parquet files beside the JSON, read back with it."""

    # A plain dict, as importing pydantic for its type would slow every import. Rows inherit it.
    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "strict": True,
        "allow_inf_nan": False,
        "arbitrary_types_allowed": True,
    }

    # What a subclass writes ---------------------------------------------------------------

    def title(self) -> str:
        """What was measured on what, in a few words."""
        return self.KIND

    def headline(self) -> str:
        """The finding in a sentence or two, made from the numbers."""
        return ""

    def cautions(self) -> str:
        """What a reader must know before believing it; empty if nothing."""
        return ""

    def facts(self) -> Mapping[str, str]:
        """A few key facts for the top of the page."""
        return {}

    def how(self) -> str:
        """How it was measured, in a paragraph."""
        return ""

    def glossary(self) -> Mapping[str, str]:
        """Flags or terms that occur in the tables, and what they mean."""
        return {}

    def tables(self) -> list[Table]:
        """The numbers as people read them."""
        return []

    def charts(self) -> list[Chart]:
        """The pictures, the main one first."""
        return []

    @classmethod
    def upgrade(cls, data: dict[str, Any], version: int) -> dict[str, Any]:
        """Bring the data of an older file to today's fields; as it is unless overridden."""
        return data

    # What every result has ----------------------------------------------------------------

    @property
    def _settings(self) -> dict[str, Any]:
        # Every result has this field, at the end of its own fields.
        return dict(vars(self)["settings"])

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the shape of the file and of ``--json``."""
        return dict(
            _adapter(cast(Any, type(self))).dump_python(self, mode="json", exclude=set(self.SIDE))
        )

    def to_json(self) -> str:
        """:meth:`to_dict` as strict JSON: a missing number is null, NaN is refused."""
        return strict_json(self.to_dict(), self.FILE)

    @classmethod
    def from_dict(cls: type[R], data: Mapping[str, Any]) -> R:
        """The inverse of :meth:`to_dict`; also takes what a file holds.

        Raises:
            InvalidInputError: a field is missing, unknown or of the wrong type; says which.
        """
        import pydantic

        body = cls.upgrade(_body(data), int(data.get("version", cls.VERSION)))
        try:
            # As JSON, since strictness would otherwise refuse a list where a tuple is meant.
            return cast(R, _adapter(cast(Any, cls)).validate_json(strict_json(body, cls.FILE)))
        except pydantic.ValidationError as error:
            raise InvalidInputError(_first_problem(error)) from error

    def to_frame(self, table: str = "") -> pd.DataFrame:
        """One line per row of a table, columns as in the row's dataclass.

        ``table`` is a field that holds rows; the first one by default. A dot leads into a field
        that holds a table of its own (``adaptivity.turns``).
        """
        import pandas as pd

        *outer, last = (table or next(iter(row_fields(type(self))), "")).split(".")
        owner: Any = functools.reduce(getattr, outer, self)
        kinds = row_fields(type(owner))
        if last not in kinds:
            raise unknown("table", table, [*row_fields(type(self))])
        columns = [field.name for field in dataclasses.fields(kinds[last])]
        rows = [plain_row(row) for row in getattr(owner, last)]
        return pd.DataFrame(rows, columns=columns)

    def plot(self, name: str = "", *, theme: str = "light") -> go.Figure:
        """An interactive figure of one chart, by default the main one, or UnknownNameError."""
        from ed_interp.charts.plotly import figure

        charts = {chart.name: chart for chart in self.charts()}
        if name and name not in charts:
            raise unknown("chart", name, list(charts))
        if not charts:
            raise InvalidInputError(f"{self.title()} must hold rows to be drawn, got none")
        return figure(charts[name] if name else next(iter(charts.values())), theme=theme)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the result to ``folder``, which appears complete or not at all; returns its path.

        Raises:
            InvalidInputError: it holds NaN, or something that JSON has no form for.
            RunFolderError: ``folder`` exists (and not ``overwrite``) or cannot be written.
        """
        self.to_json()  # what cannot be written is refused before there is a folder
        with RunFolder.open(folder, self._settings, overwrite=overwrite, resumable=False) as run:
            self.write(run.folder)
        return run.path

    def write(self, folder: Path) -> None:
        """Write record, pictures and page into ``folder``, which exists; each file whole."""
        from ed_interp.report import render

        self.write_record(folder)
        for place, chart in enumerate(self.charts()):
            if chart.png or not place:
                from ed_interp.charts.still import png

                write_bytes(folder / f"{chart.name}.png", png(chart))
        write_text(folder / "report.html", render(self, self._environment))

    def write_record(self, folder: Path) -> None:
        """Write only what is read back: the JSON file, and the tables beside it."""
        body = self.to_dict()
        header = {"format": _PREFIX + self.KIND, "version": self.VERSION}
        header |= {"sha256": _digest(body, self.FILE), "environment": self._environment}
        write_json(folder / self.FILE, header | body)
        for name, row in row_fields(type(self)).items():
            if getattr(self, name):
                file = folder / f"{self.KIND if name == 'rows' else name}.parquet"
                write_parquet(file, self.to_frame(name), schema=arrow_schema(row))
        for name in self.SIDE:
            if getattr(self, name) is not None:
                write_parquet(folder / f"{name}.parquet", getattr(self, name))

    @property
    def _environment(self) -> dict[str, Any]:
        """What it ran on, which is not always where it is copied."""
        ran_on = self._settings.get("environment")
        return ran_on if isinstance(ran_on, dict) else environment()

    @classmethod
    def load(cls: type[R], folder: str | Path) -> R:
        """Read back what :meth:`save`, or a run, wrote.

        Raises:
            RunFolderError: no complete run is there, or it is damaged, of another kind, or newer.
        """
        file = Path(folder).expanduser() / cls.FILE
        return cls._from_file(file, read_json(file))

    @classmethod
    def _from_file(cls: type[R], file: Path, data: Any) -> R:
        kind = data.get("format") if isinstance(data, dict) else type(data).__name__
        if kind != _PREFIX + cls.KIND:
            raise RunFolderError(f"{file} must be of format {_PREFIX + cls.KIND}, got {kind!r}")
        version = data.get("version")
        if not isinstance(version, int) or isinstance(version, bool) or version > cls.VERSION:
            raise RunFolderError(
                f"{file} must have version {cls.VERSION} or older, got {version!r}; "
                "install the version of ed-interp that wrote it"
            )
        try:
            result = cls.from_dict(data)
        except InvalidInputError as error:
            raise RunFolderError(f"{file} is damaged ({error}); run the command again") from error
        # After the fields, as their error names the place. Files of before have no digest.
        if data.get("sha256") not in (None, _digest(_body(data), cls.FILE)):
            problem = "its contents must be those of its sha256, got others"
            raise RunFolderError(f"{file} is damaged ({problem}); run the command again")
        files = {name: file.with_name(f"{name}.parquet") for name in cls.SIDE}
        frames = {name: read_parquet(path) for name, path in files.items() if path.exists()}
        return dataclasses.replace(result, **frames)

    def _repr_html_(self) -> str:
        from ed_interp.report import summary

        return summary(self)


def load_any(folder: str | Path) -> Result:
    """Read the result in a run folder, of whatever kind it is.

    Raises:
        RunFolderError: no complete run is there, it is damaged, or its kind is unknown here.
    """
    folder = Path(folder).expanduser()
    # run.json first: a study's folder holds other JSON beside it.
    files = [file for file in folder.glob("*.json") if file.name != "settings.json"]
    files.sort(key=lambda file: (file.name != Result.FILE, file.name))
    kind, last = "", folder / Result.FILE
    for file in files or [last]:
        data, last = read_json(file), file
        kind = str(data.get("format", "")) if isinstance(data, dict) else ""
        cls = kind.startswith(_PREFIX) and _class_of(kind.removeprefix(_PREFIX))
        if cls and file.name == cls.FILE:
            return cls._from_file(file, data)
    known = ", ".join(HOMES)
    raise RunFolderError(
        f"{folder} must hold a result of ed-interp ({known}), got format {kind!r} in {last.name}"
    )


def keep(
    make: Callable[[Path | None], R],
    *,
    options: Options | Mapping[str, Any],
    out: str | Path | None = None,
    overwrite: bool = False,
    keep_work: bool = False,
    progress: Progress = None,
) -> R:
    """Run ``make`` and keep its result in the run folder ``out``, if there is one.

    An interrupted run with equal options is continued: ``make`` is given a folder for its
    intermediate work, which holds what the interrupted run left there. Under ``accelerate launch``
    every process runs ``make`` and the first one writes.

    Args:
        make: Makes the result; takes the folder for intermediate work, or None without ``out``.
        options: Recorded in the result's settings; two runs with equal options are the same run.
        out: Run folder to make; None keeps nothing.
        overwrite: Replace the run in ``out`` once the new one is complete.
        keep_work: Leave the intermediate work in the run folder, under ``work``.
        progress: True says on stderr that a run is continued.

    Raises:
        RunFolderError: ``out`` exists (and not ``overwrite``), cannot be written, is being written
            by another process, or holds an interrupted run with other options.
    """
    record = options.to_dict() if isinstance(options, Options) else dict(options)
    if out is None:
        return _recorded(make(None), record)
    run = RunFolder.open(out, record, overwrite=overwrite) if process()[0] == 0 else None
    folder = gather(run.folder if run is not None else None)[0]
    assert folder is not None
    if run is None:
        result = make(folder / "work")
        wait_for_all()
        return result
    with run:
        if run.resumed and progress is True:
            print(f"resuming the interrupted run in {out}", file=sys.stderr)
        result = _recorded(make(folder / "work"), record)
        wait_for_all()
        result.write(run.folder)
        if not keep_work:
            shutil.rmtree(folder / "work", ignore_errors=True)
    return result


def _recorded(result: R, options: dict[str, Any]) -> R:
    record: dict[str, Any] = {"options": options, **result._settings}
    if COMMAND.get():
        record["command"] = COMMAND.get()
    return dataclasses.replace(result, settings=record)  # type: ignore[call-arg]


def _body(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in _HEADER}


def _digest(body: Mapping[str, Any], file: str) -> str:
    return hashlib.sha256(strict_json(body, file, sort_keys=True).encode()).hexdigest()


@functools.cache
def _adapter(kind: type) -> Any:
    import pydantic

    return pydantic.TypeAdapter(kind)


def _first_problem(error: Any) -> str:
    """Place and reason of pydantic's first complaint: ``rows[0].layer: ...``."""
    problem = error.errors(include_url=False)[0]
    place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in problem["loc"])
    reason = problem["msg"][0].lower() + problem["msg"][1:]
    if problem["type"] == "unexpected_keyword_argument":
        reason = "unknown field"
    elif problem["type"] != "missing":
        reason += f", got {problem['input']!r:.60}"
    return f"{place.lstrip('.') or 'the whole'}: {reason}"


def _class_of(kind: str) -> type[Result] | None:
    """The class of a kind, imported; None if nobody has it."""
    # Only names from our own table and from installed packages are imported, never one that a
    # file brings along.
    if kind in HOMES:
        module = importlib.import_module(HOMES[kind])
        classes = (value for value in vars(module).values() if isinstance(value, type))
        return next(c for c in classes if issubclass(c, Result) and vars(c).get("KIND") == kind)
    return next((p.load() for p in entry_points(group="ed_interp.results", name=kind)), None)
