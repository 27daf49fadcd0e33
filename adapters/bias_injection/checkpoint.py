"""Checks of a checkpoint before its weights reach a model.

``save_pretrained`` writes a digest of the tensors into ``adapter_config.json``; loading compares
it, and compares names, shapes and values with what the model expects. The files themselves are
PEFT's. COST: one pass over the adapter's bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from ed_interp.errors import InvalidInputError

PREFIX = "bias_injection_"
"""How the name of every parameter of the adapter begins."""


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the adapter's tensors: names, types, shapes, bytes."""
    total = hashlib.sha256()
    # Modules saved whole (modules_to_save) have other names in a model than in a file.
    for name in sorted(name for name in tensors if PREFIX in name):
        value = tensors[name].detach().cpu().contiguous()
        total.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        # NumPy has no bfloat16; as bytes every dtype is the same.
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def check_fit(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not those of the adapter in the model, by name, shape or with NaN."""
    differences = []
    for what, more, less in (
        ("it lacks", expected, stored),
        ("the model has no place for", stored, expected),
    ):
        if names := sorted(set(more) - set(less)):
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


def check_digest(stored: Mapping[str, Tensor], sha256: str) -> None:
    """Refuse tensors that are not those that were saved: their digest is another."""
    if digest(stored) != sha256:
        raise InvalidInputError(
            "the adapter checkpoint was changed after it was saved: its tensors do not have the "
            "digest in adapter_config.json; get an undamaged copy, or remove weights_sha256 there "
            "if the change was yours"
        )
