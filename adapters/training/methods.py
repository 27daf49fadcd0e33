"""The adapters that can be trained by name, and their PEFT configurations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ed_interp.errors import InvalidInputError, unknown

METHODS = ("bias-injection", "lora", "dora", "vera", "ia3", "loha", "lokr")
"""Bias injection of ed-interp, and tuners that come with PEFT."""

IMPORTS = {"bias-injection": "ed_interp.adapters.bias_injection"}
"""What must be imported before PEFT can load a checkpoint of a method; nothing for PEFT's own."""

_NODES = ("nodes", "tau", "fixed_tau", "feedback", "bias", "neutral")


@dataclasses.dataclass(frozen=True)
class AdapterOptions:
    """What the adapter is; None leaves a choice to the method."""

    r: int = 8
    """Rank of the low-rank update."""
    alpha: float | None = None
    """Its scale is alpha / r; default twice the rank."""
    dropout: float = 0.0
    """On the input of the low-rank update, in training."""
    targets: tuple[str, ...] | None = None
    """Names of the layers to adapt; default the method's own choice for the architecture."""
    layers: tuple[int, ...] | None = None
    """Blocks to adapt; default all."""
    nodes: int | None = None
    """Feedback nodes of every layer (bias injection only, as all that follow)."""
    tau: float | None = None
    """Initial time constant in tokens."""
    fixed_tau: bool = False
    """The time constants do not train."""
    feedback: str | None = None
    """What the nodes read: ``input`` or ``output`` of the layer, or ``none``."""
    bias: bool | None = None
    """Whether a bias of the adapter's own trains."""
    neutral: bool = False
    """Keep the neutral relation of the paper in training."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for records."""
        return dataclasses.asdict(self)


def make_config(method: str, options: AdapterOptions) -> Any:
    """The PEFT configuration of a method.

    Raises:
        UnknownNameError: no such method; the nearest are listed.
        InvalidInputError: an option that the method has not, or a value that it refuses.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    if method != "bias-injection":
        defaults = AdapterOptions()
        given = [name for name in _NODES if getattr(options, name) != getattr(defaults, name)]
        if given:
            raise InvalidInputError(
                f"{', '.join(given)}: only method 'bias-injection' has nodes, found {method!r}"
            )
    least = 0 if method == "bias-injection" else 1
    if options.r < least:
        raise InvalidInputError(
            f"r={options.r}: a rank of at least {least} is expected for {method}"
        )
    if not 0 <= options.dropout < 1:
        raise InvalidInputError(f"dropout={options.dropout}: at least 0 and below 1 is expected")
    try:
        return _config(method, options)
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"{method}: {' '.join(str(error).split())}") from error


def _config(method: str, options: AdapterOptions) -> Any:
    import peft

    # PEFT declares whole numbers and divides: fractions are as good.
    alpha: Any = 2 * options.r if options.alpha is None else options.alpha
    shared: dict[str, Any] = {"task_type": "CAUSAL_LM", "target_modules": _list(options.targets)}
    if options.layers is not None:
        shared["layers_to_transform"] = list(options.layers)
    if method == "bias-injection":
        from ed_interp.adapters.bias_injection import BiasInjectionConfig

        own: dict[str, Any] = {
            "n_nodes": options.nodes,
            "tau": options.tau,
            "feedback": options.feedback,
        }
        own |= {"use_bias": options.bias, "neutral": options.neutral or None}
        own |= {"learn_tau": False if options.fixed_tau else None}
        own |= {"dropout": options.dropout or None}
        given = {name: value for name, value in own.items() if value is not None}
        return BiasInjectionConfig(r=options.r, lora_alpha=alpha, **given, **shared)
    if method in ("lora", "dora"):
        return peft.LoraConfig(
            r=options.r,
            lora_alpha=alpha,
            lora_dropout=options.dropout,
            use_dora=method == "dora",
            **shared,
        )
    if method == "vera":
        return peft.VeraConfig(r=options.r, vera_dropout=options.dropout, **shared)
    if method == "loha":
        return peft.LoHaConfig(r=options.r, alpha=alpha, rank_dropout=options.dropout, **shared)
    if method == "lokr":
        return peft.LoKrConfig(r=options.r, alpha=alpha, rank_dropout=options.dropout, **shared)
    if options.layers is not None:
        raise InvalidInputError("ia3 adapts all blocks; drop layers=, or name them in targets=")
    return peft.IA3Config(**shared)


def _list(names: Sequence[str] | None) -> list[str] | None:
    return None if names is None else list(names)
