"""Estimators by name.

A built-in estimator is a module of this package, named after it (``-`` becomes ``_``), and is
imported when its name is first used. Others are found through the entry-point group
``ed_interp.estimators``, which names their class. A built-in name cannot be taken over, so that a
published name always means the same computation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import pkgutil
import types
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any, TypeVar, Union, get_args, get_origin

from ed_interp.errors import InvalidInputError, unknown
from ed_interp.options import hints_of
from ed_interp.probes.emergence.estimators.base import GENERAL_FLAGS, Estimator

GROUP = "ed_interp.estimators"
_PACKAGE = __name__.rpartition(".")[0]
_KNOWN: dict[str, type[Estimator]] = {}

Kind = TypeVar("Kind", bound=type[Estimator])


def register(name: str) -> Callable[[Kind], Kind]:
    """Decorator that gives an estimator its name, by which :func:`get_estimator` makes it.

    Raises:
        InvalidInputError: a built-in estimator has the name already.
    """

    def add(kind: Kind) -> Kind:
        # Only a module of this package may take the name that its file stands for.
        if kind.__module__ != _module(name) and _built_in(name):
            raise InvalidInputError(
                f"the name of an estimator must be new, got {name!r}, which is built in"
            )
        kind.name = name
        _KNOWN[name] = kind
        return kind

    return add


def available_estimators() -> tuple[str, ...]:
    """Names that :func:`get_estimator` knows: the built-in ones, then those of other packages."""
    files = pkgutil.iter_modules(importlib.import_module(_PACKAGE).__path__)
    ours = [name for file in files if _built_in(name := file.name.replace("_", "-"))]
    others = {point.name for point in entry_points(group=GROUP)} | set(_KNOWN)
    return (*ours, *sorted(others - set(ours)))


def get_estimator(name: str, /, **settings: Any) -> Estimator:
    """The estimator of that name, made with its own options.

    Raises:
        UnknownNameError: no estimator has the name; lists the nearest.
        InvalidInputError: an option that the estimator does not have, a value that it cannot use,
            or another package's estimator that cannot be imported or is not an ``Estimator``.
    """
    kind = estimator_class(name)
    for setting in settings:
        _option(kind, setting)
    return kind(**settings)


def parse_settings(name: str, texts: Sequence[str]) -> dict[str, Any]:
    """Options of the estimator from texts such as ``neighbours=5`` or ``hidden=64,32``.

    Raises:
        UnknownNameError: no estimator has the name.
        InvalidInputError: a text without ``=``, or an option that the estimator does not have.
    """
    kind, settings = estimator_class(name), {}
    for text in texts:
        setting, equals, value = text.partition("=")
        if not equals:
            raise InvalidInputError(
                f"options of estimator {name!r} must be NAME=VALUE, got {text!r}"
            )
        setting = setting.strip()
        settings[setting] = _parsed(value.strip(), _option(kind, setting))
    return settings


def flag_meanings(*names: str) -> dict[str, str]:
    """What the flags of these estimators mean, the general ones first.

    An estimator that is not installed here, as of a result from elsewhere, adds nothing.
    """
    meanings = dict(GENERAL_FLAGS)
    for name in names:
        try:
            meanings |= estimator_class(name).flags
        except (KeyError, InvalidInputError):
            continue
    return meanings


def estimator_class(name: str) -> type[Estimator]:
    """The class behind a name; raises as :func:`get_estimator`."""
    if _built_in(name) or name in _KNOWN:
        return _KNOWN[name]
    for point in entry_points(group=GROUP):
        if point.name == name:
            where = f"estimator {name!r} ({point.value})"
            try:
                kind = point.load()
            except (ImportError, AttributeError) as error:
                raise InvalidInputError(f"{where} cannot be imported: {error}") from error
            if not (inspect.isclass(kind) and issubclass(kind, Estimator)):
                raise InvalidInputError(
                    f"{where} must be a class that inherits {_PACKAGE}.Estimator, got {kind!r}"
                )
            if missing := ", ".join(sorted(kind.__abstractmethods__)):
                raise InvalidInputError(f"{where} must have the method {missing}, got none")
            return register(name)(kind)
    raise unknown("estimator", name, available_estimators())


def _module(name: str) -> str:
    return f"{_PACKAGE}.{name.replace('-', '_')}"


def _built_in(name: str) -> bool:
    """Whether a module of this package registers the name; imports that module, and no other."""
    if not name.replace("-", "").isalnum() or importlib.util.find_spec(_module(name)) is None:
        return False
    importlib.import_module(_module(name))
    return name in _KNOWN and _KNOWN[name].__module__ == _module(name)


def _option(kind: type[Estimator], name: str) -> Any:
    """The type of an option."""
    options = [field.name for field in dataclasses.fields(kind)]
    if name not in options:
        known = f"its options are {', '.join(options)}" if options else "it has no options"
        raise InvalidInputError(f"estimator {kind.name!r} has no option {name!r}; {known}")
    return hints_of(kind)[name]


def _parsed(text: str, hint: Any) -> Any:
    """A value of the type ``hint`` from text."""
    union = get_origin(hint) in (Union, types.UnionType)
    kinds = get_args(hint) if union else (hint,)
    if type(None) in kinds and text.lower() == "none":
        return None
    single = [kind for kind in kinds if get_origin(kind) is not tuple and kind is not type(None)]
    for kind in kinds:
        # Where a number and several numbers are both allowed, the comma decides.
        if get_origin(kind) is tuple and ("," in text or not single):
            return tuple(_parsed(item.strip(), get_args(kind)[0]) for item in text.split(","))
    if bool in single:
        return {"true": True, "false": False}.get(text.lower(), text)
    for kind in single:
        with contextlib.suppress(TypeError, ValueError):
            return kind(text)
    # A name out of several, or what is not a number: the class refuses it by the option's name.
    return text
