"""The adapters that can be trained by name, and their PEFT configurations.

A further method is one function, registered from any module that is imported first, or named in
the entry-point group ``ed_interp.adapter_methods``::

    @register("pissa", takes=LOW_RANK)
    def pissa(options: AdapterOptions, shared: dict[str, Any]) -> Any:
        return peft.LoraConfig(r=options.r, init_lora_weights="pissa", **shared)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from ed_interp.adapters.training.options import AdapterOptions
from ed_interp.errors import InvalidInputError, unknown

LOW_RANK = ("r", "alpha", "dropout", "targets", "layers")
NODES = ("nodes", "tau", "fixed_tau", "feedback", "bias", "neutral")

IMPORTS: dict[str, str] = {}
"""What must be imported before PEFT can load a checkpoint, by method; nothing for PEFT's own."""

Maker = Callable[[AdapterOptions, dict[str, Any]], Any]


@dataclasses.dataclass(frozen=True)
class _Method:
    make: Maker
    takes: tuple[str, ...]
    min_rank: int


_METHODS: dict[str, _Method] = {}


def register(
    name: str, *, takes: tuple[str, ...] = LOW_RANK, module: str = "", min_rank: int = 1
) -> Callable[[Maker], Maker]:
    """Add a method: the decorated function makes its PEFT configuration.

    The function takes the options and keywords for any PEFT configuration (``task_type``,
    ``target_modules``, ``layers_to_transform``).

    Args:
        name: of the method, as ``method=`` and ``--method`` take it.
        takes: fields of :class:`AdapterOptions` that it uses; any other that is set is refused.
        module: to import before PEFT can load a checkpoint, if PEFT does not know the method.
        min_rank: smallest ``r``.
    """

    def add(make: Maker) -> Maker:
        _METHODS[name] = _Method(make, takes, min_rank)
        if module:
            IMPORTS[name] = module
        return make

    return add


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
        raise InvalidInputError(
            f"r must be {method.min_rank} or greater for method {name!r}, got {options.r}"
        )
    shared: dict[str, Any] = {"task_type": "CAUSAL_LM"}
    shared["target_modules"] = None if options.targets is None else list(options.targets)
    if options.layers is not None:
        shared["layers_to_transform"] = list(options.layers)
    try:
        return method.make(options, shared)
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"{name}: {' '.join(str(error).split())}") from error


@functools.cache
def _load_entry_points() -> None:
    for point in entry_points(group="ed_interp.adapter_methods"):
        point.load()


def _alpha(options: AdapterOptions) -> Any:
    # PEFT declares whole numbers, but divides: fractions are as good.
    return 2 * options.r if options.alpha is None else options.alpha


@register(
    "bias-injection",
    takes=(*LOW_RANK, *NODES),
    module="ed_interp.adapters.bias_injection",
    min_rank=0,
)
def _bias_injection(options: AdapterOptions, shared: dict[str, Any]) -> Any:
    from ed_interp.adapters.bias_injection import BiasInjectionConfig

    own = {
        "n_nodes": options.nodes,
        "tau": options.tau,
        "feedback": options.feedback,
        "use_bias": options.bias,
    }
    # None leaves the choice to the configuration's own default.
    own = {name: value for name, value in own.items() if value is not None}
    return BiasInjectionConfig(
        r=options.r,
        lora_alpha=_alpha(options),
        dropout=options.dropout,
        neutral=options.neutral,
        learn_tau=not options.fixed_tau,
        **own,
        **shared,
    )


@register("lora")
def _lora(options: AdapterOptions, shared: dict[str, Any]) -> Any:
    from peft import LoraConfig

    return LoraConfig(
        r=options.r, lora_alpha=_alpha(options), lora_dropout=options.dropout, **shared
    )


@register("dora")
def _dora(options: AdapterOptions, shared: dict[str, Any]) -> Any:
    return _lora(options, {"use_dora": True, **shared})


@register("vera", takes=("r", "dropout", "targets", "layers"))
def _vera(options: AdapterOptions, shared: dict[str, Any]) -> Any:
    from peft import VeraConfig

    return VeraConfig(r=options.r, vera_dropout=options.dropout, **shared)


@register("ia3", takes=("targets",))
def _ia3(options: AdapterOptions, shared: dict[str, Any]) -> Any:
    from peft import IA3Config

    return IA3Config(**shared)


@register("loha")
def _loha(options: AdapterOptions, shared: dict[str, Any]) -> Any:
    from peft import LoHaConfig

    dropout = options.dropout
    return LoHaConfig(r=options.r, alpha=_alpha(options), rank_dropout=dropout, **shared)


@register("lokr")
def _lokr(options: AdapterOptions, shared: dict[str, Any]) -> Any:
    from peft import LoKrConfig

    dropout = options.dropout
    return LoKrConfig(r=options.r, alpha=_alpha(options), rank_dropout=dropout, **shared)
