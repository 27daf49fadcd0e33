"""A direction as a bias-injection adapter checkpoint: one node of constant value per site.

The adapter's side is :mod:`ed_interp.adapters.bias_injection.directions`. Cost: a copy of the model
for as long as the call takes.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from ed_interp.errors import RunFolderError
from ed_interp.models.load import load
from ed_interp.streams.direction import Direction


def save_adapter(
    model: Any, direction: Direction, folder: str | Path, *, coefficient: float | int = 1.0
) -> Path:
    """Write ``coefficient`` times a direction as a PEFT checkpoint; gives its folder.

    Unlike :func:`~ed_interp.adapters.steering.steer` it then acts on every token of every row, and
    can be trained on.

    Args:
        model: The plain transformers model that the direction belongs to; it is copied, not
            changed.
        direction: At sites where a constant bias of some layer is the same thing.
        folder: Must not exist, or be empty.
        coefficient: Multiplied into the vectors.

    Raises:
        InvalidInputError: the direction belongs to another model, or is not such a bias.
        RunFolderError: the folder holds something.
    """
    from ed_interp.adapters.bias_injection.directions import adapter_from_direction

    folder = Path(folder).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunFolderError(f"{folder} holds something; give a new folder")
    hooked = load(model)
    direction.check(hooked)
    adapter = adapter_from_direction(copy.deepcopy(hooked.model), direction, strength=coefficient)
    adapter.save_pretrained(str(folder))
    return folder
