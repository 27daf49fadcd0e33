"""Options: one frozen dataclass per operation, for the API, the command line and the record.

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class CaptureOptions(ModelOptions, Seeded):
        prompts: int = option(500, "Number of prompts.", PROMPTS, min=2)

    @takes_options(CaptureOptions)
    def capture(model="icl-gpt2", *, options: CaptureOptions, out=None): ...

    capture("gpt2", prompts=100)          # settings by keyword, checked by the class
    capture(options=CaptureOptions(...))  # or all of them at once

Nothing heavy is imported here, so that ``--help`` stays fast.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import inspect
import json
import math
import operator
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, Union, cast, get_args, get_origin

from ed_interp.errors import OptionError as OptionError

R = TypeVar("R")
# Not typing.Self, which run-time type checkers cannot resolve outside of a decorated class.
O = TypeVar("O", bound="Options")  # noqa: E741

MODEL, PROMPTS, MEASURE = "Model", "Prompts", "Measurement"
TRAIN, RUNNING, OUTPUT = "Training", "Running", "Output"
PANELS = (MODEL, PROMPTS, MEASURE, TRAIN)
"""Headings under which ``--help`` lists options, in the order in which it lists them."""

_BOUNDS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "min": (operator.ge, "{} or greater"),
    "max": (operator.le, "{} or less"),
    "above": (operator.gt, "greater than {}"),
    "below": (operator.lt, "less than {}"),
}
_KINDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}


def option(
    default: Any = dataclasses.MISSING,
    help: str = "",
    panel: str = "",
    *,
    shown: str = "",
    flag: str = "",
    argument: bool = False,
    whole: bool = False,
    **bounds: int | float,
) -> Any:
    """A field of an :class:`Options` class.

    Args:
        default: Default value; without one the option is required.
        help: One line for ``--help`` and the API reference.
        panel: Heading under which ``--help`` lists it.
        shown: What ``--help`` shows in place of the default.
        flag: Flag on the command line, where it is not the field's name.
        argument: Positional on the command line.
        whole: Of a tuple: elements may hold commas, so each is given by a flag of its own.
        **bounds: ``min`` and ``max`` (inclusive), ``above`` and ``below`` (exclusive); of every
            element where the field is a tuple.
    """
    if unknown := set(bounds) - set(_BOUNDS):
        raise TypeError(f"option() has no bound {sorted(unknown)}; its bounds are {list(_BOUNDS)}")
    rule = {"help": help, "panel": panel, "shown": shown, "flag": flag, "argument": argument}
    return dataclasses.field(default=default, metadata={**rule, "whole": whole, "bounds": bounds})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Base of all options: values are brought to the type of their field, or refused."""

    # Run-time type checkers would refuse a range for a tuple before it can be converted.
    __no_type_check__: ClassVar[bool] = True

    def __post_init__(self) -> None:
        hints = hints_of(type(self))
        for field in dataclasses.fields(self):
            value, bounds = getattr(self, field.name), field.metadata.get("bounds", {})
            checked = _checked(field.name, value, hints[field.name], bounds)
            if checked is not value:
                # The dataclass is frozen for its users; its own making is the one exception.
                object.__setattr__(self, field.name, checked)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, as ``run.json`` records it."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def same(cls, name: str, **changes: Any) -> Any:
        """The option of that name for another class; ``default``, ``panel`` or ``shown`` differ."""
        field = next(field for field in dataclasses.fields(cls) if field.name == name)
        default = changes.pop("default", field.default)
        return dataclasses.field(default=default, metadata={**field.metadata, **changes})

    @classmethod
    def from_dict(cls: type[O], data: Mapping[str, Any]) -> O:
        """The inverse of :meth:`to_dict`.

        Raises:
            InvalidInputError: a setting that does not exist, or a value that cannot be used.
        """
        _check_names(cls.__name__, data, [f.name for f in dataclasses.fields(cls) if f.init])
        return cls(**data)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seeded(Options):
    """Operations with a random part."""

    seed: int = option(0, "Random seed.", RUNNING, min=0, max=2**63 - 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batched(Options):
    """Operations that run a model over prompts."""

    batch_size: int | None = option(
        None, "Prompts or windows per forward pass.", RUNNING, min=1, shown="chosen by length"
    )


def hints_of(kind: Any) -> dict[str, Any]:
    """Types of a dataclass's fields, by name."""
    return _hints(kind)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    # Not get_type_hints, which finds none in a class marked __no_type_check__.
    bases = (base for base in reversed(kind.__mro__) if base is not object)
    return {n: h for base in bases for n, h in inspect.get_annotations(base, eval_str=True).items()}


def without_none(hint: Any) -> Any:
    """``T`` of ``T | None``; any other hint as it is."""
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not type(None)]
        return kinds[0] if len(kinds) == 1 else Union[tuple(kinds)]  # noqa: UP007 - dynamic
    return hint


def _checked(name: str, value: Any, hint: Any, bounds: Mapping[str, int | float]) -> Any:
    kind = without_none(hint)
    if value is None and kind is not hint:
        return None
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise OptionError(name, f"must be one of {_either(get_args(kind))}, got {value!r}")
        return value
    if get_origin(kind) is tuple:
        element = get_args(kind)[0]
        # A string is iterable too; "0-8" would become the characters 0, - and 8.
        if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
            raise OptionError(name, f"must be a sequence, got {value!r}; put it into a list")
        items = tuple(_checked(name, item, element, bounds) for item in value)
        return value if items == value and isinstance(value, tuple) else items
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind in _KINDS:
        return _number(name, value, kind, bounds)
    return value


def _number(name: str, value: Any, kind: type, bounds: Mapping[str, int | float]) -> Any:
    got = value
    if kind is int and not isinstance(value, (bool, str)):
        with contextlib.suppress(TypeError):
            value = operator.index(value)  # numpy's integers too, and no fraction
    elif kind is float and not isinstance(value, (bool, str)):
        with contextlib.suppress(TypeError, ValueError):
            value = float(value)
    # A bool is an int to Python, and a mistake to whoever passes it as a count.
    if type(value) is not kind or (kind is float and not math.isfinite(cast(Any, value))):
        raise OptionError(name, f"must be {_KINDS[kind]}, got {got!r}")
    tests = [(n, *rule) for n, rule in _BOUNDS.items() if n in bounds]
    if not all(test(value, bounds[n]) for n, test, _ in tests):
        # The largest seed that generators take is of no help to whoever typed -1.
        said = [(n, text) for n, ok, text in tests if bounds[n] < 2**31 or not ok(value, bounds[n])]
        wanted = [text.format(f"{bounds[n]:g}") for n, text in said]
        raise OptionError(name, f"must be {' and '.join(wanted)}, got {got!r}")
    return value


def named_values(name: str, texts: Iterable[str]) -> dict[str, Any]:
    """Values from the ``NAME=VALUE`` texts of the option ``name``; what is not JSON is text.

    >>> named_values("set", ["penalty_c=0.1"])
    {'penalty_c': 0.1}
    """
    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key.strip() and equals):
            raise OptionError(name, f"must be NAME=VALUE, got {text!r}")
        values[key.strip()] = value
        with contextlib.suppress(ValueError):
            values[key.strip()] = json.loads(value)
    return values


def _either(choices: Iterable[Any]) -> str:
    *most, last = [*map(str, choices)] or ["none"]
    return f"{', '.join(most)} or {last}" if most else last


def _plain(value: Any) -> Any:
    if isinstance(value, Options):
        return value.to_dict()
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def _check_names(owner: str, given: Iterable[str], known: list[str]) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
            hint = f"did you mean {_either(near)}?" if near else ""
            hint = hint or f"its settings are {_either(known)}"
            raise OptionError(name, f"must be a setting of {owner}; {hint}")


def takes_options(kind: type[Options]) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Let callers give the fields of ``kind`` as keywords of the function.

    The function has a keyword ``options``. A parameter of its own that is also a field (a model, a
    task) may be a live object or a name: a name is recorded in the options, of an object its name
    or type is; where it is not given, the function receives the option's value. The signature and
    the documentation that callers see hold every field.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        own = dict(inspect.signature(function).parameters)
        own.pop("options")
        places = [p.name for p in own.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        shared = [name for name in own if name in fields]

        @functools.wraps(function)
        def call(*args: Any, options: Any = None, **given: Any) -> R:
            if len(args) > len(places):
                raise TypeError(f"{function.__name__}() takes {len(places)} positional arguments")
            for name, value in zip(places, args, strict=False):
                if name in given:
                    raise TypeError(f"{function.__name__}() got {name} twice")
                given[name] = value
            _check_names(f"{function.__name__}()", given, [*own, *fields])
            if options is not None and not isinstance(options, kind):
                problem = f"must be {kind.__name__}, got {type(options).__name__}"
                raise OptionError("options", problem)
            settings = {name: value for name, value in given.items() if name not in own}
            for name in shared:
                if given.get(name) is not None:
                    settings[name] = _label(given[name], hints_of(kind)[name])
            for name, field in fields.items() if options is None else ():
                # A field may have one or the other; what has neither is required.
                if field.default is field.default_factory and settings.get(name) is None:
                    raise OptionError(name, "must be given, got nothing")
            options = dataclasses.replace(options, **settings) if options else kind(**settings)
            kept = {name: given[name] for name in own if name in given}
            for name in shared:
                if kept.get(name) is None:
                    kept[name] = getattr(options, name)
            return function(**kept, options=options)

        lines = [f"    {n}: {f.metadata['help']}" for n, f in fields.items() if n not in own]
        text = inspect.cleandoc(function.__doc__ or "")
        call.__doc__ = "\n".join([text, "", "Settings:", *lines])
        vars(call)["__signature__"] = _signature(own, fields, kind)
        return call

    return decorate


def _label(value: Any, hint: Any) -> Any:
    """What the options record: a name as it is, a live object by its name or type."""
    # A list is a value where the option takes several, and a live object (pairs, say) elsewhere.
    several = get_origin(without_none(hint)) is tuple
    if isinstance(value, (str, int, float)) or (several and isinstance(value, (tuple, list))):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (tuple, list)):
        return f"{len(value)} in memory"
    name = getattr(value, "name", None)
    return name if isinstance(name, str) else type(value).__name__


def _signature(
    own: Mapping[str, inspect.Parameter], fields: Mapping[str, dataclasses.Field[Any]], kind: type
) -> inspect.Signature:
    def default(field: dataclasses.Field[Any]) -> Any:
        if field.default is not dataclasses.MISSING:
            return field.default
        made = field.default_factory
        return inspect.Parameter.empty if made is dataclasses.MISSING else made()

    keyword = inspect.Parameter.KEYWORD_ONLY
    first = []
    for p in own.values():
        if p.kind is p.POSITIONAL_OR_KEYWORD:
            known = default(fields[p.name]) if p.name in fields else p.empty
            # A required option keeps the None of the function: it may follow one with a default.
            first.append(p if known is p.empty else p.replace(default=known))
    settings = [
        inspect.Parameter(name, keyword, default=default(field), annotation=hints_of(kind)[name])
        for name, field in fields.items()
        if name not in own
    ]
    rest = [p for p in own.values() if p.kind is keyword]
    whole = inspect.Parameter("options", keyword, default=None, annotation=kind | None)
    return inspect.Signature([*first, *settings, *rest, whole])
