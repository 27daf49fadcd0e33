"""Names of estimators and what they stand for.

Built-in estimators are named here and imported when asked for. Others are found through the
entry-point group ``ed_interp.estimators``: a name and a factory (a class will do) that takes the
estimator's options as keywords. A built-in name cannot be taken over, so that a published name
always means the same computation.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, cast

from ed_interp.errors import InvalidInputError, unknown
from ed_interp.probes.emergence.estimators.base import Estimator

GROUP = "ed_interp.estimators"

_BUILT_IN = {
    "smoothed": "ed_interp.probes.emergence.estimators.smoothed:Smoothed",
    "auto": "ed_interp.probes.emergence.estimators.auto:Auto",
    "gaussian": "ed_interp.probes.emergence.estimators.gaussian:Gaussian",
    "ksg": "ed_interp.probes.emergence.estimators.ksg:KSG",
    "latent": "ed_interp.probes.emergence.estimators.latent:Latent",
    "infonce": "ed_interp.probes.emergence.estimators.infonce:InfoNCE",
    "nwj": "ed_interp.probes.emergence.estimators.nwj:NWJ",
    "smile": "ed_interp.probes.emergence.estimators.smile:Smile",
    "mine": "ed_interp.probes.emergence.estimators.mine:Mine",
    "mine-heldout": "ed_interp.probes.emergence.estimators.mine_heldout:MineHeldOut",
}
"""Name to ``module:factory``."""


def available_estimators() -> tuple[str, ...]:
    """Names that :func:`get_estimator` knows: the built-in ones, then those of other packages."""
    found = {point.name for point in entry_points(group=GROUP)}
    return (*_BUILT_IN, *sorted(found - set(_BUILT_IN)))


def get_estimator(name: str, **options: Any) -> Estimator:
    """The estimator of that name, made with its own options.

    Raises:
        UnknownNameError: no estimator has the name; lists the nearest.
        InvalidInputError: an option that the estimator does not have, or another package's
            estimator that cannot be imported or does not fit the protocol.
    """
    factory = _factory(name)
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        known = ", ".join(inspect.signature(factory).parameters)
        raise InvalidInputError(f"estimator {name!r}: {error}; its options are: {known}") from error
    made = factory(**options)
    if not isinstance(made, Estimator):
        raise InvalidInputError(
            f"estimator {name!r} is a {type(made).__name__} without name, pair or chain; "
            "inherit ed_interp.probes.emergence.estimators.PairEstimator"
        )
    return made


def _factory(name: str) -> Callable[..., Any]:
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        return cast("Callable[..., Any]", getattr(importlib.import_module(module), attribute))
    for point in entry_points(group=GROUP):
        if point.name == name:
            try:
                return cast("Callable[..., Any]", point.load())
            except (ImportError, AttributeError) as error:
                raise InvalidInputError(
                    f"estimator {name!r} ({point.value}) cannot be imported: {error}"
                ) from error
    raise unknown("estimator", name, available_estimators())
