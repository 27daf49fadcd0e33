"""The adapters that can be trained by name, and their PEFT configurations.

A further method is one call, in any module that is imported first or that the entry-point group
``ed_interp.adapter_methods`` names::

    register("rslora", "peft:LoraConfig", {**RANK, "dropout": "lora_dropout"}, use_rslora=True)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from ed_interp.adapters.training.options import AdapterOptions
from ed_interp.errors import InvalidInputError, OptionError, unknown

PLACES = {"targets": "target_modules", "layers": "layers_to_transform"}
RANK = {"r": "r", "alpha": "lora_alpha", **PLACES}

IMPORTS: dict[str, str] = {}
"""What must be imported before PEFT can load a checkpoint, by method; nothing for PEFT's own."""


@dataclasses.dataclass(frozen=True)
class _Method:
    config: str
    takes: Mapping[str, str]
    min_rank: int
    fixed: Mapping[str, Any]


_METHODS: dict[str, _Method] = {}


def register(
    name: str, config: str, takes: Mapping[str, str], *, min_rank: int = 1, **fixed: Any
) -> None:
    """Add a method.

    Args:
        name: as ``method=`` and ``--method`` take it.
        config: its PEFT configuration, as ``module:class``. A module other than ``peft`` is what
            must be imported before PEFT can load a checkpoint of the method.
        takes: fields of :class:`AdapterOptions` that the configuration has, and their names there,
            with ``!`` where it says the opposite; any other option that is set is refused.
        min_rank: smallest ``r``.
        **fixed: further settings of the configuration.
    """
    _METHODS[name] = _Method(config, takes, min_rank, fixed)
    module = config.partition(":")[0]
    if module != "peft":
        IMPORTS[name] = module


def available_methods() -> tuple[str, ...]:
    """Names of all methods, those of other packages too."""
    _load_entry_points()
    return tuple(_METHODS)


def make_config(name: str, options: AdapterOptions) -> Any:
    """The PEFT configuration of a method.

    Raises:
        UnknownNameError: no method has the name; the nearest are listed.
        InvalidInputError: an option that the method does not take, or a value that it refuses.
    """
    if name not in available_methods():
        raise unknown("method", name, available_methods())
    method = _METHODS[name]
    # An option without effect is most often a mistake about what is being trained.
    if surplus := [option for option in options.changed() if option not in method.takes]:
        raise InvalidInputError(
            f"method {name!r} must be given {', '.join(method.takes)} only, got "
            f"{', '.join(surplus)}; drop them, or use method 'bias-injection'"
        )
    if options.r < method.min_rank:
        problem = f"must be {method.min_rank} or greater for method {name!r}, got {options.r}"
        raise OptionError("r", problem)
    values = options.to_dict()
    if values["alpha"] is None:
        values["alpha"] = 2 * options.r
    given: dict[str, Any] = {"task_type": "CAUSAL_LM", **method.fixed}
    for own, field in method.takes.items():
        # None leaves a choice to the configuration's own default.
        if values[own] is not None:
            given[field.removeprefix("!")] = (not values[own]) if "!" in field else values[own]
    module, _, kind = method.config.partition(":")
    try:
        return getattr(import_module(module), kind)(**given)
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"{name}: {' '.join(str(error).split())}") from error


@functools.cache
def _load_entry_points() -> None:
    for point in entry_points(group="ed_interp.adapter_methods"):
        point.load()


register(
    "bias-injection",
    "ed_interp.adapters.bias_injection:BiasInjectionConfig",
    {
        **RANK,
        "dropout": "dropout",
        "nodes": "n_nodes",
        "tau": "tau",
        "fixed_tau": "!learn_tau",
        "feedback": "feedback",
        "bias": "use_bias",
        "neutral": "neutral",
    },
    min_rank=0,
)
register("lora", "peft:LoraConfig", {**RANK, "dropout": "lora_dropout"})
register("dora", "peft:LoraConfig", {**RANK, "dropout": "lora_dropout"}, use_dora=True)
register("vera", "peft:VeraConfig", {"r": "r", "dropout": "vera_dropout", **PLACES})
register("ia3", "peft:IA3Config", {"targets": "target_modules"})
for _name, _config in (("loha", "peft:LoHaConfig"), ("lokr", "peft:LoKrConfig")):
    register(_name, _config, {"r": "r", "alpha": "alpha", "dropout": "rank_dropout", **PLACES})
