"""Estimators by name, and the information of two tables by any of them (for notebooks).

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
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import InvalidInputError, unknown
from ed_interp.options import hints_of
from ed_interp.probes.emergence.estimators.base import (
    DEFAULT_MAX_BYTES,
    GENERAL_FLAGS,
    Estimator,
    check_pair,
    flags_of,
)
from ed_interp.probes.emergence.estimators.rows import population_weights
from ed_interp.progress import Progress

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


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The mutual information of one pair of representations."""

    bits: float
    ci_low: float
    """Lower end of the bootstrap interval over rows, in bits."""
    ci_high: float
    limit: float
    """Entropy of the population in bits."""
    flags: tuple[str, ...]
    """Those of ``flags_of``, then the estimator's own; ``flag_meanings`` explains them."""
    terms: Float[Tensor, "row"]
    """Pointwise information of each row, in bits."""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def mutual_information(
    x: Any,
    y: Any,
    *,
    weights: Any = None,
    estimator: str = "smoothed",
    seed: int = 0,
    level: float = 0.95,
    max_bytes: int = DEFAULT_MAX_BYTES,
    folder: str | Path | None = None,
    progress: Progress = None,
    **settings: Any,
) -> Estimate:
    """Information between two representations of the same rows, in bits, with an interval.

    Args:
        x: Tensor or array ``row d_x``, floating point.
        y: Tensor or array ``row d_y``.
        weights: Frequencies of the rows; uniform by default.
        estimator: A name from ``available_estimators()``.
        seed: Random seed of the estimator and of the bootstrap.
        level: Confidence level of the interval.
        max_bytes: Working memory of the estimator.
        folder: Keep the state of a training there and resume from it.
        progress: True for a bar on stderr, or a callable ``(done, total, what)``.
        settings: The estimator's own options, such as ``noise``, ``beta`` or ``neighbours``. The
            noise of ``smoothed`` is per coordinate, and its default assumes coordinates of unit
            scale: pass states through ``normalise`` first, or give the noise.

    Raises:
        InvalidInputError: tables that do not fit each other, NaN or infinite values, bad weights,
            integers, a single row, an option the estimator does not have.
        UnknownNameError: no estimator has the name.
    """
    first, second = _tensor(x, "x"), _tensor(y, "y")
    check_pair(first, second)
    second = second.to(first.device)
    shares = None
    if weights is not None:
        shares = population_weights(torch.as_tensor(weights), (), len(first))
    chosen = get_estimator(estimator, **settings).reporting(progress).resuming(folder)
    result = chosen.pair(first, second, weights=shares, seed=seed, max_bytes=max_bytes)
    bits, interval = float(result.bits[0]), result.intervals(level=level, seed=seed)
    counted = (result.weights > 0).to(first.device)
    low, high, limit = float(interval.low[0]), float(interval.high[0]), float(result.limit)
    flags = flags_of(
        bits=bits,
        ci_low=low,
        limit=limit,
        rows=int(counted.sum()),
        constant=any(bool((t[counted] == t[counted][0]).all()) for t in (first, second)),
        half_precision=any(t.element_size() < 4 for t in (first, second)),
        own=result.flags_at(0),
    )
    return Estimate(bits, low, high, limit, flags, result.terms[0], result.settings)


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


def _tensor(values: Any, name: str) -> Tensor:
    try:
        return torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(f"{name} must be a table of numbers: {error}") from error
