"""The tuner: puts adapted layers into a model and keeps PEFT's promises about merging and loading.

Names, shapes, values and digest of a checkpoint are compared before its weights reach a model.
STABLE: it is what ``get_peft_model(model, BiasInjectionConfig(...))`` makes.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ed_interp.adapters.bias_injection.config import PREFIX, digest
from ed_interp.adapters.bias_injection.hooks import install, remove
from ed_interp.adapters.bias_injection.layer import BiasInjectionLayer, Linear, layers_in
from ed_interp.errors import InvalidInputError

# Attributes that layers of GPTQ, AWQ, HQQ, bitsandbytes and AQLM have and plain ones do not.
_QUANTISED = ("qweight", "W_q", "quant_state", "codebooks", "infeatures", "compute_dtype")


class BiasInjectionModel(BaseTuner):  # type: ignore[misc]
    """A model with bias-injection adapters in its linear layers."""

    prefix = PREFIX
    tuner_layer_cls = BiasInjectionLayer
    # By reference: architectures added to PEFT's table are known here too.
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if isinstance(target, BiasInjectionLayer):
            target.update_layer(adapter_name, peft_config)
            return
        # A layer of another PEFT method may be adapted on top; what it wraps must be dense.
        base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        check_supported(base, current_key)
        layer = Linear(target, adapter_name, peft_config, current_key)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _post_injection_hook(self, model: nn.Module, config: Any, adapter_name: str) -> None:
        install(model)

    def merge_adapter(
        self, adapter_names: list[str] | None = None, safe_merge: bool = False
    ) -> None:
        """Merge the static part of the adapters; feedback stays live.

        A bias on a layer without one raises InvalidInputError before any weight is touched.
        """
        self._check_layers(adapter_names, finite=safe_merge)
        super().merge_adapter(adapter_names=adapter_names, safe_merge=safe_merge)

    def _unload_and_optionally_merge(
        self,
        merge: bool = True,
        progressbar: bool = False,
        safe_merge: bool = False,
        adapter_names: list[str] | None = None,
    ) -> Any:
        for name in self._check_layers(adapter_names, finite=safe_merge) if merge else []:
            for layer in layers_in(self.model):
                if layer.feedback_is_live(name):
                    raise InvalidInputError(
                        f"cannot merge adapter {name!r} and unload it: its feedback nodes "
                        f"({layer.key} and others) depend on the sequence and fit into no weight; "
                        "use merge_adapter(), which merges the rest and keeps them, or export the "
                        "rest (ed-interp adapter export --drop-feedback)"
                    )
        model: Any = super()._unload_and_optionally_merge(
            merge=merge, progressbar=progressbar, safe_merge=safe_merge, adapter_names=adapter_names
        )
        remove(model)
        return model

    def _check_layers(self, adapter_names: list[str] | None, *, finite: bool) -> list[str]:
        """Refuse adapters that cannot be merged, in every layer; returns their names."""
        # All layers first: PEFT merges one after the other and would stop half-way.
        names = list(self.active_adapters if adapter_names is None else adapter_names)
        with torch.no_grad():
            for layer in layers_in(self.model):
                layer.check_mergeable(names, finite=finite)
        return names

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: Any, config: Any, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        remapped: dict[str, Tensor] = super()._remap_adapter_state_dict_for_load(
            model=model, config=config, adapter_name=adapter_name, state_dict=state_dict
        )
        ours = {
            name: value
            for name, value in model.state_dict().items()
            if PREFIX in name and name.endswith(f".{adapter_name}")
        }
        try:
            check_fit({k: v for k, v in remapped.items() if PREFIX in k}, ours)
            # The digest is over the names in the file, without the adapter's name in them.
            if config.weights_sha256 is not None and digest(state_dict) != config.weights_sha256:
                raise InvalidInputError(
                    "the adapter checkpoint was changed after it was saved: its tensors do not "
                    "have the digest in adapter_config.json; get an undamaged copy, or remove "
                    "weights_sha256 there if the change was yours"
                )
        except InvalidInputError:
            # The refusal is what the user must read, whatever goes wrong while taking out again
            # the adapter whose weights were refused.
            with contextlib.suppress(Exception):
                if len(model.peft_config) > 1:
                    model.delete_adapter(adapter_name)
                elif hasattr(model, "unload"):
                    kept = copy.copy(model.peft_config)
                    model.unload()
                    model.peft_config = kept
            raise
        # From here on the weights are the user's to change.
        config.weights_sha256 = None
        return remapped


def check_fit(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not those of the adapter in the model, by name, shape or with NaN."""
    missing, surplus = sorted(set(expected) - set(stored)), sorted(set(stored) - set(expected))
    differences = []
    for what, names in (("it lacks", missing), ("the model has no place for", surplus)):
        if names:
            listed = ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")
            plural = "s" if len(names) > 1 else ""
            differences.append(f"{what} {len(names)} tensor{plural} ({listed})")
    if differences:
        raise InvalidInputError(
            f"the adapter checkpoint does not fit this model: {'; '.join(differences)}; load it on "
            "the architecture, target modules and options it was made with"
        )
    for name in sorted(stored):
        value, shape = stored[name], tuple(expected[name].shape)
        if tuple(value.shape) != shape:
            raise InvalidInputError(
                f"the adapter checkpoint does not fit this model: {name} must be {shape}, got "
                f"{tuple(value.shape)}; load it with the width, rank and nodes it was made with"
            )
        if not value.is_floating_point() or not bool(torch.isfinite(value).all()):
            raise InvalidInputError(
                f"the adapter checkpoint is damaged: {name} must hold finite numbers; get an "
                "undamaged copy"
            )


def check_supported(base: nn.Module, key: str) -> None:
    """Refuse layers that are not plain dense layers: not linear, or quantised."""
    weight = getattr(base, "weight", None)
    quantised = any(hasattr(base, mark) for mark in _QUANTISED) or (
        isinstance(weight, Tensor)
        and (
            hasattr(weight, "quant_state")
            or not weight.is_floating_point()
            or weight.element_size() < 2  # float8
        )
    )
    if quantised:
        raise InvalidInputError(
            f"target module {key!r} is quantised ({type(base).__name__}), which bias injection "
            "does not support yet; load the model in float32, bfloat16 or float16"
        )
    if not isinstance(base, (nn.Linear, Conv1D)):
        raise InvalidInputError(
            f"Target module {base} ({key!r}) is not supported: bias injection adapts "
            "torch.nn.Linear and GPT-2's Conv1D; name such layers in target_modules"
        )
