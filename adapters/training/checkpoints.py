"""What a resumed run needs: optimizer, schedule and random generators, without pickles.

The Trainer of ``transformers`` would write them as pickles; here they are tensors with plain values
as metadata, in checked files (:mod:`ed_interp.records.tensors`). A checkpoint counts once its
marker is written, which is last, so that an interrupted one is never resumed from.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ed_interp.records import tensors as files
from ed_interp.records.files import write_json

_OPTIMIZER, _RANDOM = "optimizer-state", "random-state"
_MARKER = "complete.json"


def save_optimizer(folder: Path, optimizer: Any, scheduler: Any) -> None:
    """Write the state of an optimizer and its learning-rate schedule."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                plain.setdefault(str(index), {})[name] = value
    meta = {"groups": state["param_groups"], "state": plain, "scheduler": scheduler.state_dict()}
    files.write(folder / "optimizer.safetensors", tensors, kind=_OPTIMIZER, meta=meta)


def load_optimizer(folder: Path, optimizer: Any, scheduler: Any) -> None:
    """Read what :func:`save_optimizer` wrote.

    Raises:
        InvalidInputError: the file is damaged.
    """
    tensors, meta = files.read(folder / "optimizer.safetensors", kind=_OPTIMIZER)
    # JSON has made text of the numbers of parameters, and lists of tuples.
    state: dict[int, dict[str, Any]] = {int(k): dict(v) for k, v in meta["state"].items()}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    groups = [{**group, "betas": tuple(group["betas"])} for group in meta["groups"]]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    scheduler.load_state_dict(meta["scheduler"])


def save_random(folder: Path, process: int) -> None:
    """Write the states of the random generators of Python, NumPy and torch."""
    legacy: Any = np.random.get_state(legacy=True)
    kind, keys, *rest = legacy
    tensors = {"cpu": torch.random.get_rng_state()}
    if torch.cuda.is_available():
        for device, state in enumerate(torch.cuda.random.get_rng_state_all()):
            tensors[f"cuda.{device}"] = state
    meta = {"python": random.getstate(), "numpy": [kind, keys.tolist(), *rest]}
    folder.mkdir(exist_ok=True)
    files.write(folder / f"random-{process}.safetensors", tensors, kind=_RANDOM, meta=meta)


def load_random(folder: Path, process: int) -> None:
    """Set the generators to what :func:`save_random` wrote.

    Raises:
        InvalidInputError: the file is damaged.
    """
    tensors, meta = files.read(folder / f"random-{process}.safetensors", kind=_RANDOM)
    version, state, gauss = meta["python"]
    random.setstate((version, tuple(state), gauss))
    kind, keys, *rest = meta["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.random.set_rng_state(tensors["cpu"])
    if torch.cuda.is_available():
        # A run may be resumed on a machine with more or fewer devices.
        count = min(torch.cuda.device_count(), len(tensors) - 1)
        if count:
            states = [tensors[f"cuda.{device}"] for device in range(count)]
            torch.cuda.random.set_rng_state_all(states)


def mark_complete(folder: Path, step: int) -> None:
    """Say that everything of a checkpoint is written."""
    write_json(folder / _MARKER, {"step": step})


def last_complete(folder: Path) -> Path | None:
    """The latest checkpoint in ``folder`` that is whole; those that are not are removed."""
    whole: list[tuple[int, Path]] = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / _MARKER).is_file():
            whole.append((int(checkpoint.name.rpartition("-")[2]), checkpoint))
        else:
            shutil.rmtree(checkpoint, ignore_errors=True)
    return max(whole)[1] if whole else None
