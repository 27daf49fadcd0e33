"""Selective back-propagation, checked: what does not train must leave training bit for bit equal.

Use::

    watch = FrozenWeights.of(model)
    ...  # train
    watch.check(model)  # raises if one bit of one frozen weight or buffer changed

Cost: one pass of SHA-256 over all frozen bytes each time, about 1 s per gigabyte.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ed_interp.errors import EdInterpError


class FrozenWeightsError(EdInterpError, RuntimeError):
    """Something trained that must not, or a frozen weight changed."""


@dataclasses.dataclass(frozen=True)
class FrozenWeights:
    """Hashes of everything in a model that must not train."""

    hashes: Mapping[str, str]
    """Name of a parameter or buffer -> SHA-256 of type, shape and bytes."""

    @classmethod
    def of(cls, model: nn.Module) -> FrozenWeights:
        """The present state of every parameter without gradient and of every buffer."""
        still = [(name, each) for name, each in model.named_parameters() if not each.requires_grad]
        return cls({name: _hash(tensor) for name, tensor in [*still, *model.named_buffers()]})

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all names and hashes."""
        text = "".join(f"{name}={digest};" for name, digest in sorted(self.hashes.items()))
        return hashlib.sha256(text.encode()).hexdigest()

    def check(self, model: nn.Module) -> None:
        """Compare with the state now.

        Raises:
            FrozenWeightsError: a frozen tensor changed, appeared, went away or began to train.
        """
        now = FrozenWeights.of(model).hashes
        changed = [name for name in self.hashes if now.get(name) != self.hashes[name]]
        changed += [name for name in now if name not in self.hashes]
        if changed:
            raise FrozenWeightsError(
                f"{len(changed)} of {len(self.hashes)} frozen tensors changed during training, "
                f"first {changed[0]}; the adapter was not saved: keep optimizers, callbacks and "
                "hooks from changing the base model"
            )


def check_only_adapter_trains(model: Any) -> None:
    """Raise FrozenWeightsError unless exactly the weights that a checkpoint would hold train."""
    from peft import get_peft_model_state_dict

    trained = {name for name, tensor in model.named_parameters() if tensor.requires_grad}
    if not trained:
        raise FrozenWeightsError("nothing would train: no parameter of the adapter has a gradient")
    # Embeddings count only if the adapter names them; "auto" would look them up on the hub.
    saved = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    # DoRA's magnitudes are saved without the ".weight" of their parameter.
    saved |= {f"{name}.weight" for name in saved}
    # Saved names lack the adapter's name, which is a part of the parameter's.
    unsaved = {*model.active_adapters, "modules_to_save"}
    parts = {name: [part for part in name.split(".") if part not in unsaved] for name in trained}
    if loose := sorted(name for name in trained if ".".join(parts[name]) not in saved):
        raise FrozenWeightsError(
            f"{len(loose)} weight(s) outside the adapter would train, first {loose[0]}; freeze "
            "them with requires_grad_(False), or name their modules in modules_to_save"
        )


def _hash(tensor: Tensor) -> str:
    # As bytes: NumPy has no bfloat16, and -0.0 and NaNs must count as what they are.
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return digest.hexdigest()
