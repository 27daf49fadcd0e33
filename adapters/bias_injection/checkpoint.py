"""Checks of a checkpoint before its weights reach a model.

``save_pretrained`` writes a digest of the tensors beside them; loading compares it, and the names,
shapes and values, with what the model expects. COST: one pass over the adapter's bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ed_interp.adapters.bias_injection.register import PREFIX
from ed_interp.errors import InvalidInputError


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the adapter's tensors: names, types, shapes, bytes."""
    total = hashlib.sha256()
    for name in sorted(name for name in tensors if PREFIX in name):
        value = tensors[name].detach().cpu().contiguous()
        total.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def digest_of_file(path: Path) -> str:
    """:func:`digest` of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        return digest({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118


def check(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, sha256: str | None
) -> None:
    """Compare a checkpoint's tensors with the parameters they are for.

    Args:
        found: Tensors of the checkpoint, by name.
        expected: Parameters of the adapter in the model, by the same names.
        sha256: Digest that was saved with them; None if there is none.

    Raises:
        InvalidInputError: in one line, what does not fit; nothing has been changed.
    """
    ours = {name for name in found if PREFIX in name}
    missing, surplus = sorted(set(expected) - ours), sorted(ours - set(expected))
    if missing or surplus:
        raise InvalidInputError(
            "the adapter checkpoint does not fit this model: "
            + "; ".join(
                f"{what} {len(names)} tensors ({_some(names)})"
                for what, names in (("it lacks", missing), ("the model has no place for", surplus))
                if names
            )
            + "; load it on the architecture, target modules and options it was made with"
        )
    for name in sorted(ours):
        value, place = found[name], expected[name]
        if value.shape != place.shape:
            raise InvalidInputError(
                f"the adapter checkpoint does not fit this model: {name} is {tuple(value.shape)} "
                f"in it and {tuple(place.shape)} here; load it with the width, rank and nodes "
                "it was made with"
            )
        if not value.is_floating_point() or not bool(torch.isfinite(value).all()):
            raise InvalidInputError(
                f"the adapter checkpoint is damaged: {name} holds values that are no finite "
                "numbers; take another copy"
            )
    if sha256 is not None and digest(found) != sha256:
        raise InvalidInputError(
            "the adapter checkpoint was changed after it was saved: its tensors do not have the "
            "digest in adapter_config.json; take another copy, or remove weights_sha256 there if "
            "the change was yours"
        )


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:2]) + (", ..." if len(listed) > 2 else "")
