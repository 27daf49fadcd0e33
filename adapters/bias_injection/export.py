"""The static part of an adapter as a plain LoRA checkpoint, which PEFT loads by itself.

The low-rank part is LoRA as it is; bias and constant nodes become the bias that LoRA's ``B`` can
carry. Live feedback is refused unless the caller allows to leave it out.
COST: one copy of the adapter's weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save
from torch import Tensor

from ed_interp.adapters.bias_injection.config import PREFIX
from ed_interp.adapters.bias_injection.layer import BiasInjectionLayer, layers_in
from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.records.files import one_line, write_bytes


def export_lora(
    model: Any, folder: str | Path, *, adapter_name: str | None = None, drop_feedback: bool = False
) -> Path:
    """Write the static part of an adapter as a LoRA checkpoint.

    Args:
        model: A ``PeftModel``, or a transformers model with the adapter in it.
        folder: Where to; made if missing, refused if it holds an adapter already.
        adapter_name: Which adapter; the active one by default.
        drop_feedback: Leave out feedback nodes that are not zero. The LoRA then does what the
            adapter does with all states at zero.

    Returns:
        The folder.

    Raises:
        InvalidInputError: no such adapter, or live feedback without ``drop_feedback``.
        RunFolderError: the folder holds an adapter, or cannot be written.
    """
    name, layers = adapter_of(model, adapter_name)
    live = [layer.key for layer in layers if layer.feedback_is_live(name)]
    if live and not drop_feedback:
        raise InvalidInputError(
            f"adapter {name!r} has live feedback nodes in {len(live)} layers ({live[0]}, ...), "
            "which LoRA cannot express; pass drop_feedback=True (--drop-feedback) to export the "
            "rest without them"
        )
    target = Path(folder)
    if (target / "adapter_config.json").exists():
        raise RunFolderError(f"{target} holds an adapter already; pass another folder")
    tensors, biased = _tensors(layers, name)
    config = model.peft_config[name]
    if config.modules_to_save:
        tensors |= {
            key: value.detach().contiguous()
            for key, value in get_peft_model_state_dict(model, adapter_name=name).items()
            if PREFIX not in key
        }
    settings = layers[0].settings[name]
    lora = LoraConfig(
        r=max(1, settings.r),
        lora_alpha=config.lora_alpha if settings.r else 1,
        target_modules=sorted(layer.key for layer in layers),
        lora_bias=biased,
        fan_in_fan_out=all(layer.fan_in_fan_out for layer in layers),
        modules_to_save=config.modules_to_save,
        task_type=config.task_type,
        base_model_name_or_path=config.base_model_name_or_path,
        revision=config.revision,
        inference_mode=True,
    )
    with one_line(target):
        target.mkdir(parents=True, exist_ok=True)
    write_bytes(target / SAFETENSORS_WEIGHTS_NAME, save(tensors, {"format": "pt"}))
    # Last, so that a folder with a configuration has its weights.
    lora.save_pretrained(str(target))
    return target


def adapter_of(model: Any, adapter_name: str | None) -> tuple[str, list[BiasInjectionLayer]]:
    """The name of a bias-injection adapter, by default the active one, and the layers it is in."""
    layers = layers_in(model)
    names = sorted({name for layer in layers for name in layer.settings})
    if adapter_name is None:
        active = layers[0].active_adapters if layers else []
        if len(active) != 1:
            raise InvalidInputError(
                f"one bias-injection adapter must be active, got {len(active)}; name one of: "
                f"{', '.join(names) or '(none)'}"
            )
        adapter_name = active[0]
    if adapter_name not in names:
        raise InvalidInputError(
            f"adapter_name must be a bias-injection adapter of this model "
            f"({', '.join(names) or 'it has none'}), got {adapter_name!r}"
        )
    return adapter_name, [layer for layer in layers if adapter_name in layer.settings]


@torch.no_grad()
def _tensors(layers: list[BiasInjectionLayer], name: str) -> tuple[dict[str, Tensor], bool]:
    biases = [layer.static_bias(name) for layer in layers]
    biased = any(bias is not None and bool(bias.count_nonzero()) for bias in biases)
    tensors: dict[str, Tensor] = {}
    for layer, bias in zip(layers, biases, strict=True):
        prefix = f"base_model.model.{layer.key}.lora_"
        weights = layer.weights_of(name)
        like = next(iter(weights.values()))
        settings = layer.settings[name]
        # LoRA has no rank 0: without a low-rank part, one of rank 1 that adds nothing.
        low = weights["A"] if settings.r else like.new_zeros(1, layer.in_features)
        high = weights["B"] if settings.r else like.new_zeros(layer.out_features, 1)
        tensors[f"{prefix}A.weight"] = low.detach().contiguous()
        tensors[f"{prefix}B.weight"] = high.detach().contiguous()
        if biased:
            # LoRA scales its bias with the rest.
            scaling = settings.scaling if settings.r else 1.0
            added = like.new_zeros(layer.out_features) if bias is None else bias / scaling
            tensors[f"{prefix}B.bias"] = added.detach().contiguous()
    return tensors, biased
