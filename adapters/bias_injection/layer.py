"""The adapted linear layer.

STABLE: the parameter names ``bias_injection_{A,B,bias,read,write,value,log_tau}.<adapter>`` and
their shapes, which are those of the checkpoint.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from peft.tuners.tuners_utils import BaseTunerLayer, check_adapters_to_merge
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ed_interp.adapters.bias_injection.config import PREFIX, BiasInjectionConfig
from ed_interp.adapters.bias_injection.nodes import reads_encoder, run, shape_of
from ed_interp.errors import InvalidInputError


@dataclasses.dataclass(frozen=True)
class Settings:
    """What an adapter is in one layer."""

    r: int
    scaling: float
    n_nodes: int
    feedback: str
    neutral: bool
    use_bias: bool
    names: tuple[str, ...]
    """Names of its parameters, without prefix."""

    @property
    def has_feedback(self) -> bool:
        """Whether its nodes carry states along the sequence."""
        return self.n_nodes > 0 and self.feedback != "none"


class BiasInjectionLayer(BaseTunerLayer):  # type: ignore[misc]
    """A linear layer with extra nodes; see :class:`BiasInjectionConfig` for the equations."""

    adapter_layer_names = tuple(
        f"{PREFIX}{name}" for name in ("A", "B", "bias", "read", "write", "value", "log_tau")
    )
    other_param_names = ("bias_injection_dropout", "settings")

    def __init__(self, base_layer: nn.Module, key: str) -> None:
        self.base_layer = base_layer
        self.key = key
        """Name of the layer in the base model."""
        self.settings: dict[str, Settings] = {}
        self.bias_injection_dropout = nn.ModuleDict()
        for name in self.adapter_layer_names:
            setattr(self, name, nn.ParameterDict())
        self.frozen_peft_weight_names: dict[str, tuple[str, ...]] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self.cast_input_dtype_enabled = True
        self.reads_encoder = reads_encoder(key)
        target: Any = self.get_base_layer()
        # GPT-2's Conv1D keeps its weight as (in, out), nn.Linear as (out, in).
        self.fan_in_fan_out = isinstance(target, Conv1D)
        shape = target.weight.shape if self.fan_in_fan_out else None
        self.in_features, self.out_features = shape or (target.in_features, target.out_features)

    def update_layer(self, adapter_name: str, config: BiasInjectionConfig) -> None:
        """Add an adapter."""
        r, nodes = config.r, config.n_nodes
        has_feedback = nodes > 0 and config.feedback != "none"
        dropout = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        self.bias_injection_dropout[adapter_name] = dropout
        sizes: dict[str, tuple[int, ...]] = {}
        if r:
            sizes |= {"A": (r, self.in_features), "B": (self.out_features, r)}
        # A neutral adapter's bias follows from its node weights and is not a parameter.
        if config.use_bias and not config.neutral:
            sizes["bias"] = (self.out_features,)
        if nodes:
            sizes["write"] = (self.out_features, nodes)
            if has_feedback:
                read = self.in_features if config.feedback == "input" else self.out_features
                sizes |= {"read": (nodes, read), "log_tau": (nodes,)}
            else:
                sizes["value"] = (nodes,)
        self.settings[adapter_name] = Settings(
            r=r,
            scaling=config.lora_alpha / r if r else 0.0,
            n_nodes=nodes,
            feedback=config.feedback if nodes else "none",
            neutral=config.neutral,
            use_bias=config.use_bias,
            names=tuple(sizes),
        )
        for name, size in sizes.items():
            parameter = nn.Parameter(torch.empty(size))
            getattr(self, f"bias_injection_{name}")[adapter_name] = parameter
        if has_feedback and not config.learn_tau:
            self.frozen_peft_weight_names[adapter_name] = ("bias_injection_log_tau",)
        self.reset(adapter_name, config)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    @torch.no_grad()
    def reset(self, adapter_name: str, config: BiasInjectionConfig) -> None:
        """Give the adapter its initial weights: neutral, unless ``init_weights`` is False."""
        settings, weights = self.settings[adapter_name], self.weights_of(adapter_name)
        random = not config.init_weights
        if "A" in weights:
            nn.init.kaiming_uniform_(weights["A"], a=math.sqrt(5))
        for name, width in (("B", settings.r), ("bias", 1), ("write", settings.n_nodes)):
            if name in weights and random:
                bound = 1 / math.sqrt(width)
                nn.init.uniform_(weights[name], -bound, bound)
            elif name in weights:
                nn.init.zeros_(weights[name])
        if "read" in weights:
            nn.init.normal_(weights["read"], std=1 / math.sqrt(weights["read"].shape[1]))
            if settings.feedback == "output":
                # Nodes feed each other through R V; smaller, so that states do not grow at once.
                weights["read"].mul_(0.1)
            # As logarithms, so that no step of the optimizer makes a time constant negative.
            weights["log_tau"].copy_(torch.tensor(config.taus()).log())
        if "value" in weights:
            # Nodes of value zero write nothing, so their weights may be random, and must be unless
            # the bias is tied to them: with both at zero neither would get a gradient.
            nn.init.zeros_(weights["value"])
            if not settings.neutral:
                nn.init.normal_(weights["write"], std=1 / math.sqrt(settings.n_nodes))
            if random:
                nn.init.normal_(weights["value"])

    def weights_of(self, adapter_name: str) -> dict[str, nn.Parameter]:
        """The adapter's parameters, by name without prefix."""
        if adapter_name not in self.settings:
            return {}
        # Called for every generated token, so nothing is searched through other adapters' names.
        names = self.settings[adapter_name].names
        return {name: getattr(self, f"bias_injection_{name}")[adapter_name] for name in names}

    def static_bias(self, adapter_name: str) -> Float[Tensor, " out"] | None:
        """What the adapter adds at every token whatever the input: bias and constant nodes."""
        return _static_bias(self.settings[adapter_name], self.weights_of(adapter_name))

    def feedback_is_live(self, adapter_name: str) -> bool:
        """Whether feedback changes anything: nodes that are read and whose weights are not zero."""
        settings = self.settings.get(adapter_name)
        if settings is None or not settings.has_feedback:
            return False
        return bool(self.weights_of(adapter_name)["write"].detach().count_nonzero())

    @property
    def names_in_force(self) -> list[str]:
        """Adapters that a forward pass applies: merged ones if there are any, else the active."""
        names: list[str] = self.merged_adapters or list(self.active_adapters)
        return [name for name in names if name in self.settings]

    @property
    def carries_states(self) -> bool:
        """Whether its output depends on the order of the tokens before."""
        return not self.disable_adapters and any(
            self.settings[name].has_feedback for name in self.names_in_force
        )

    def decays(self, adapter_name: str) -> Float[Tensor, " node"]:
        """Factor per token of each node, float32."""
        # exp(-1 / tau), with 1 / tau as exp(-log tau): no division, and the gradient is smooth.
        layer: Any = self
        return torch.exp(-torch.exp(-layer.bias_injection_log_tau[adapter_name].float()))

    def get_delta_weight(self, adapter_name: str) -> Tensor:
        """The low-rank part as a change of the base weight, in its layout."""
        settings, weights = self.settings[adapter_name], self.weights_of(adapter_name)
        plain: Any = self.get_base_layer()
        base: Tensor = plain.weight
        if not settings.r:
            return torch.zeros_like(base)
        # In float32 and rounded once: B A in half precision would be rounded at every sum.
        delta = (weights["B"].float() @ weights["A"].float()) * settings.scaling
        return (delta.T if self.fan_in_fan_out else delta).to(base.dtype)

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Whether the adapter is a low-rank part and nothing else."""
        settings = self.settings.get(adapter_name)
        return settings is None or not (settings.n_nodes or settings.use_bias)

    def check_mergeable(self, adapter_names: list[str], *, finite: bool) -> None:
        """Refuse a bias on a layer without one and, with ``finite``, weights with NaN."""
        for name in adapter_names:
            if name not in self.settings or name in self.merged_adapters:
                continue
            bias = self.static_bias(name)
            added = bias is not None and bool(bias.count_nonzero())
            if added and self.get_base_layer().bias is None:
                raise InvalidInputError(
                    f"cannot merge adapter {name!r}: {self.key} has no bias to merge the adapter's "
                    "into; train with use_bias=False and without constant nodes, or leave it "
                    "unmerged"
                )
            if finite:
                values = [self.get_delta_weight(name), *([] if bias is None else [bias])]
                if not all(bool(torch.isfinite(value).all()) for value in values):
                    raise InvalidInputError(
                        f"NaNs detected in the merged weights. The adapter {name} seems to be "
                        f"broken at {self.key}; load an undamaged copy"
                    )

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the static part to the base weights, if it can be; feedback stays live."""
        names = [n for n in check_adapters_to_merge(self, adapter_names) if n in self.settings]
        self.check_mergeable(names, finite=safe_merge)
        for name in names:
            self._shift(name, 1)
            self.merged_adapters.append(name)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take merged static parts out of the base weights again."""
        # Last in, first out: the sums are undone in the reverse of their order.
        while self.merged_adapters:
            self._shift(self.merged_adapters.pop(), -1)

    def _shift(self, adapter_name: str, sign: int) -> None:
        base: Any = self.get_base_layer()
        if self.settings[adapter_name].r:
            base.weight.data += sign * self.get_delta_weight(adapter_name)
        bias = self.static_bias(adapter_name)
        if bias is not None and base.bias is not None:
            base.bias.data += sign * bias.to(base.bias.dtype)


class Linear(nn.Module, BiasInjectionLayer):
    """Bias injection in a dense layer: ``nn.Linear`` or GPT-2's ``Conv1D``."""

    def __init__(
        self, base_layer: nn.Module, adapter_name: str, config: BiasInjectionConfig, key: str
    ) -> None:
        super().__init__()
        BiasInjectionLayer.__init__(self, base_layer, key)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The layer with its active adapters; ``x`` is ``... time in``, or without time."""
        if kwargs.pop("adapter_names", None) is not None:
            raise InvalidInputError(
                "bias injection has no mixed batches (adapter_names): node states belong to one "
                "adapter; run one batch per adapter with set_adapter"
            )
        # What is merged is in the base weights and must leave them before the base layer runs.
        if self.disable_adapters and self.merged:
            self.unmerge()
        result: Tensor = self.base_layer(x, *args, **kwargs)
        for name in [] if self.disable_adapters else self.names_in_force:
            result = self._injected(name, x, result)
        return result

    def _injected(self, name: str, x: Tensor, result: Tensor) -> Tensor:
        settings, weights = self.settings[name], self.weights_of(name)
        static = name not in self.merged_adapters
        cast: Any = self._cast_input_dtype
        x = cast(x, next(iter(weights.values())).dtype)
        x = self.bias_injection_dropout[name](x)
        from_input = settings.has_feedback and settings.feedback == "input"
        # One product for both readings and one for both writings: the wide tensors pass once.
        low, reading = _read(
            x,
            weights["A"] if static and settings.r else None,
            weights["read"] if from_input else None,
        )
        inner: list[Tensor] = []
        write: list[Tensor] = []
        if low is not None:
            inner.append(low * settings.scaling)
            write.append(weights["B"])
        bias = _static_bias(settings, weights) if static else None
        if settings.has_feedback:
            if reading is None:
                # The output without feedback; what the nodes add themselves reaches their reading
                # through the dense transition, which has R V in it.
                output = _add(result, inner, write, bias)
                reading = F.linear(output.to(weights["read"].dtype), weights["read"])
            rows, time, frame = shape_of(reading.shape, self.key)
            # The recurrence is float32 under autocast and in half-precision models too: see scan.
            u = reading.reshape(rows, time, -1).float()
            decay = self.decays(name)
            if settings.feedback == "output":
                with torch.autocast(u.device.type, enabled=False):
                    decay = torch.diag(decay) + weights["read"].float() @ weights["write"].float()
            values = run(u, decay, frame, f"{self.key}/{name}", cross=self.reads_encoder)
            values = values.reshape(reading.shape)
            inner.append(values.to(weights["write"].dtype))
            write.append(weights["write"])
        return _add(result, inner, write, bias)

    def __repr__(self) -> str:
        return "bias_injection." + super().__repr__()


def _static_bias(settings: Settings, weights: dict[str, nn.Parameter]) -> Tensor | None:
    bias: Tensor | None = weights.get("bias")
    if settings.neutral:
        # b = -sum_i V_i: nodes at value 1 cancel the bias.
        bias = -weights["write"].sum(1)
    if "value" in weights:
        constant = weights["write"] @ weights["value"]
        bias = constant if bias is None else bias + constant
    return bias


def layers_in(model: Any) -> list[BiasInjectionLayer]:
    """The adapted layers of a model, however it is wrapped; none of what is not a module."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    return [module for module in modules if isinstance(module, BiasInjectionLayer)]


def _read(x: Tensor, a: Tensor | None, read: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    if a is None:
        return None, None if read is None else F.linear(x, read)
    if read is None:
        return F.linear(x, a), None
    # Rows of the joint weight: first the rank's, then the nodes'.
    both = F.linear(x, torch.cat([a, read]))
    return both[..., : a.shape[0]], both[..., a.shape[0] :]


def _add(result: Tensor, inner: list[Tensor], write: list[Tensor], bias: Tensor | None) -> Tensor:
    if inner:
        weight = write[0] if len(write) == 1 else torch.cat(write, dim=1)
        whole = inner[0] if len(inner) == 1 else torch.cat(inner, dim=-1)
        return result + F.linear(whole, weight, bias).to(result.dtype)
    return result if bias is None else result + bias.to(result.dtype)
