"""From an options class to a command: one flag per field, and what every verb has.

    @command(app, "depths", DepthOptions, out=RUN_FOLDER)
    def depths(options: DepthOptions, output: Output) -> None:
        '''What ``--help`` says.'''
        from ed_interp.probes.depths import depths

        path = output.folder("depths-gpt2", options)
        output.show(depths(options=options, **output.where(path)), path)

A tuple is given with commas or by repeating the flag, whole numbers also as ranges (``0-8``).
Every verb has ``--json``, ``--quiet`` and ``--debug``; one that writes has ``--out`` and
``--overwrite``. Values are checked by the options class, so that a mistake reads the same in every
verb and in Python.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer

from ed_interp.cli.app import Verb
from ed_interp.errors import InvalidInputError
from ed_interp.options import OUTPUT, PANELS, RUNNING, OptionError, Options, hints_of, without_none
from ed_interp.tables import Table

if TYPE_CHECKING:
    from ed_interp.results import Result

O = TypeVar("O", bound=Options)  # noqa: E741 - short for the class of options

RUNS = Path("ed-interp-runs")
_RANGE = re.compile("([0-9]+)(?:-([0-9]+))?")
_LARGEST_RANGE = 10_000
_FIRST = ("batch_size", "seed", "device", "dtype")
"""The first options of a panel, in every verb in this order."""


@dataclasses.dataclass(frozen=True)
class Out:
    """What ``--out`` of a verb means."""

    help: str
    shown: str | bool = False
    required: bool = False


RUN_FOLDER = Out("Run folder; an interrupted run in it is resumed.", "ed-interp-runs/NAME-001, ...")
NEW_FOLDER = Out("Folder to make; an interrupted run in it is resumed.", required=True)
WHOLE_FOLDER = Out("Folder to make, whole or not at all.", required=True)
OVERWRITE = "Replace the run (or file) at --out once the new one is complete."
NEW_FILE = Out("File to write.", required=True)


@dataclasses.dataclass(frozen=True)
class Output:
    """Where a verb's results go."""

    out: Path | None
    overwrite: bool
    json: bool
    quiet: bool

    @property
    def progress(self) -> bool:
        """Whether progress is shown on stderr."""
        return not self.quiet

    @property
    def path(self) -> Path:
        """``--out`` of a verb that requires it."""
        assert self.out is not None
        return self.out

    def where(self, path: Path | None = None) -> dict[str, Any]:
        """The same as keywords of a function of the API."""
        place = path or self.out
        return {"out": place, "overwrite": self.overwrite, "progress": self.progress}

    def folder(self, name: str, options: Options) -> Path:
        """``--out``, or the next free (or interrupted) numbered folder of that name."""
        from ed_interp.records.folders import next_run_path

        return self.out or next_run_path(RUNS, name, options.to_dict())

    def show(self, result: Result, path: Path | None = None) -> None:
        """Print a result: one JSON object, or its tables; then where it was written."""
        from ed_interp.processes import process

        if process()[0]:
            return
        if self.json:
            typer.echo(result.to_json())
        else:
            from ed_interp.cli.show import print_result

            print_result(result)
        self.written(path)

    def print(self, data: Any, *tables: Table, headline: str = "") -> None:
        """The same for plain data: JSON, or the headline and tables given."""
        if self.json:
            typer.echo(json.dumps(data, allow_nan=False))
            return
        from ed_interp.cli.show import print_tables

        print_tables(tables, headline=headline)

    def written(self, path: Path | None) -> None:
        """Say on stderr where the files are."""
        if path is None:
            return
        text = f"written to {shown(path)}"
        if (path / "report.html").is_file():
            text += f"; open {shown(path / 'report.html')}"
        print(text, file=sys.stderr)


def shown(path: Path) -> str:
    """Relative to the current folder where that is clear."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def command(
    app: typer.Typer, name: str, kind: type[O], *, out: Out | None = None
) -> Callable[[Callable[[O, Output], None]], Callable[..., None]]:
    """Register a function of (options, output) as the verb ``name`` of ``app``."""

    def decorate(run: Callable[[O, Output], None]) -> Callable[..., None]:
        flags = {field.name: _flag(field) for field in dataclasses.fields(kind)}

        def call(**given: Any) -> None:
            from ed_interp.results import COMMAND

            as_json, quiet = given.pop("as_json"), given.pop("quiet")
            place, overwrite = given.pop("out", None), given.pop("overwrite", False)
            del given["debug"]  # read by main(), before anything can fail
            calm_libraries()
            token = COMMAND.set(shlex.join(["ed-interp", *sys.argv[1:]]))
            try:
                typed = {k: v for k, v in given.items() if v is not None and v != []}
                options = kind(**{name: _parsed(kind, name, v) for name, v in typed.items()})
                run(options, Output(place, overwrite, as_json, quiet))
            except OptionError as error:
                if error.name not in flags:  # an estimator's own, say
                    raise
                raise InvalidInputError(error.spelled(flags)) from error
            finally:
                COMMAND.reset(token)

        vars(call)["__signature__"] = inspect.Signature(_parameters(kind, flags, out))
        about = inspect.cleandoc(run.__doc__ or "")
        # Without the blank line before a list, of which Rich would make two.
        text, short = about.replace("\n\n- ", "\n- "), about.partition("\n")[0]
        app.command(name, cls=Verb, help=text, short_help=short)(call)
        return call

    return decorate


def _parameters(
    kind: type[Options], flags: dict[str, str], out: Out | None
) -> list[inspect.Parameter]:
    fields = list(dataclasses.fields(kind))
    panels = list(dict.fromkeys(field.metadata.get("panel", "") for field in fields))
    # The shared panels come first and the running of it last, in every verb; a verb's own between.
    ordered = [p for p in ("", *PANELS) if p in panels]
    ordered += [p for p in panels if p not in (*ordered, RUNNING, OUTPUT)] + [RUNNING, OUTPUT]
    fields.sort(key=lambda field: [*_FIRST, field.name].index(field.name))
    fields.sort(key=lambda field: ordered.index(field.metadata.get("panel", "")))
    hints = hints_of(kind)
    made = [_parameter(field, hints[field.name], flags[field.name]) for field in fields]
    if out is not None:
        text = {"help": out.help, "rich_help_panel": OUTPUT}
        default = inspect.Parameter.empty if out.required else None
        place = typer.Option("--out", show_default=out.shown, metavar="PATH", **text)  # type: ignore[arg-type]
        made.append(_keyword("out", Path if out.required else Path | None, place, default))
        made.append(_switch("overwrite", "--overwrite", OVERWRITE))
    made.append(_switch("as_json", "--json", "Print one JSON object instead of tables."))
    made.append(_switch("quiet", "--quiet", "No progress on stderr.", "-q"))
    return [*made, _switch("debug", "--debug", "Show tracebacks.")]


def _parameter(field: dataclasses.Field[Any], hint: Any, flag: str) -> inspect.Parameter:
    rule, kind = field.metadata, without_none(hint)
    required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    default = None if field.default is dataclasses.MISSING else field.default
    several = get_origin(kind) is tuple
    plain: Any = list[str] if several else str
    if rule.get("argument"):
        about = typer.Argument(help=rule["help"], metavar=flag, show_default=rule["shown"] or False)
        kept = inspect.Parameter.empty if required else None
        return _keyword(field.name, plain if required else plain | None, about, kept)
    text: dict[str, Any] = {"help": rule["help"], "rich_help_panel": rule["panel"] or None}
    if get_origin(kind) is Literal:
        # In the help, where they wrap: beside the flag they would cut the names of flags short.
        text["help"] += f" Choices: {', '.join(map(str, get_args(kind)))}."
    if kind is bool:
        # One flag switches on; where on is the default, or nothing is, there are two.
        pair = f"{flag}/--no-{flag.removeprefix('--')}" if default is not False else flag
        about = typer.Option(pair, metavar="", show_default=rule["shown"] or bool(default), **text)
        return _keyword(field.name, bool | None, about, default)
    if default not in (None, ()) and not rule["shown"]:
        # As text, which the options class reads: so that --help shows it as it would be typed.
        default = [",".join(map(_text, default))] if several else _text(default)
    else:
        default = None
    text |= {"metavar": _metavar(kind), "show_default": rule["shown"] or bool(default)}
    about = typer.Option(flag, **text)
    if required:
        return _keyword(field.name, plain, about, inspect.Parameter.empty)
    return _keyword(field.name, plain | None, about, default)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _metavar(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return _metavar(get_args(kind)[0]) + ",..."
    if get_args(kind):
        return "NAME"
    return {int: "INTEGER", float: "NUMBER", Path: "PATH"}.get(kind, "TEXT")


def _switch(name: str, flag: str, help: str, *short: str) -> inspect.Parameter:
    about = typer.Option(flag, *short, help=help, metavar="", rich_help_panel=OUTPUT)
    return _keyword(name, bool, about, False)


def _keyword(name: str, hint: Any, about: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=Annotated[hint, about])


def _flag(field: dataclasses.Field[Any]) -> str:
    if field.metadata.get("argument"):
        return field.name.upper()
    return field.metadata.get("flag") or f"--{field.name.replace('_', '-')}"


def _parsed(kind: type[Options], name: str, value: Any) -> Any:
    """The text of a flag as its field's type; what cannot be parsed is left for the class."""
    hint = without_none(hints_of(kind)[name])
    if get_origin(hint) is not tuple:
        return _one(value, hint)
    # A positional argument is one element: file names may hold commas. So may prompts.
    rule = next(field.metadata for field in dataclasses.fields(kind) if field.name == name)
    whole = rule.get("argument") or rule.get("whole")
    parts = value if whole else [part.strip() for text in value for part in text.split(",")]
    element = get_args(hint)[0]
    if element is int:
        text = ",".join(value)
        return tuple(number for part in parts for number in _range(name, part, text))
    return tuple(dict.fromkeys(_one(part, element) for part in parts if part))


def _one(value: Any, kind: Any) -> Any:
    if kind in (int, float) and isinstance(value, str):
        try:
            return kind(value)
        except ValueError:
            return value
    return value


def _range(name: str, part: str, text: str) -> Sequence[int]:
    match = _RANGE.fullmatch(part)
    if match is None:
        try:
            return [int(part)]  # a negative number, which the bounds of the option judge
        except ValueError:
            problem = f"must be whole numbers such as 0-8 or 0,1,2,4,8, got {text!r}"
            raise OptionError(name, problem) from None
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first or last > _LARGEST_RANGE:
        problem = f"must be ascending ranges up to {_LARGEST_RANGE:,}, got {text!r}"
        raise OptionError(name, problem)
    return range(first, last + 1)


def calm_libraries() -> None:
    """Silence bars and warnings of libraries, which would tear ours apart; errors still show.

    Through the environment, which they read when they are imported: importing them here to tell
    them would cost every verb two seconds.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.filterwarnings("ignore", category=FutureWarning)
    if "transformers" in sys.modules:
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
