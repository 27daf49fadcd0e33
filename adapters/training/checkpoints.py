"""What is needed to go on with an interrupted run, as safetensors and JSON.

The Trainer of ``transformers`` would write the optimizer and the random generators as pickles;
here they are tensors and plain values. A checkpoint counts from the moment its marker is there,
which is written last, so that one which was interrupted is never resumed from.
"""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ed_interp.records import write_bytes, write_json

_OPTIMIZER, _SCHEDULER = "optimizer", "scheduler.json"
_RANDOM = "random"
_MARKER = "complete.json"


def save_optimizer(folder: Path, optimizer: Any, scheduler: Any) -> None:
    """Write the state of an optimizer and its learning-rate schedule."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value.detach().cpu().contiguous()
            else:
                plain.setdefault(str(index), {})[name] = value
    write_bytes(folder / f"{_OPTIMIZER}.safetensors", save(tensors))
    write_json(folder / f"{_OPTIMIZER}.json", {"groups": state["param_groups"], "state": plain})
    write_json(folder / _SCHEDULER, scheduler.state_dict())


def load_optimizer(folder: Path, optimizer: Any, scheduler: Any) -> None:
    """Read what :func:`save_optimizer` wrote."""
    stored = json.loads((folder / f"{_OPTIMIZER}.json").read_text("utf-8"))
    state: dict[int, dict[str, Any]] = {int(k): dict(v) for k, v in stored["state"].items()}
    for key, tensor in load_file(folder / f"{_OPTIMIZER}.safetensors").items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    groups = [{**group, "betas": tuple(group["betas"])} for group in stored["groups"]]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    scheduler.load_state_dict(json.loads((folder / _SCHEDULER).read_text("utf-8")))


def save_random(folder: Path, process: int) -> None:
    """Write the states of the random generators of Python, NumPy and torch."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    tensors = {"cpu": torch.random.get_rng_state()}
    if torch.cuda.is_available():
        for device, state in enumerate(torch.cuda.random.get_rng_state_all()):
            tensors[f"cuda.{device}"] = state
    numpy_state = [kind, [int(key) for key in keys], int(position), int(has_gauss), float(gauss)]
    folder.mkdir(exist_ok=True)
    write_bytes(folder / f"{_RANDOM}-{process}.safetensors", save(tensors))
    plain = {"python": random.getstate(), "numpy": numpy_state}
    write_json(folder / f"{_RANDOM}-{process}.json", plain)


def load_random(folder: Path, process: int) -> None:
    """Set the generators to what :func:`save_random` wrote."""
    plain = json.loads((folder / f"{_RANDOM}-{process}.json").read_text("utf-8"))
    version, keys, gauss = plain["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, numbers, position, has_gauss, cached = plain["numpy"]
    np.random.set_state((kind, np.array(numbers, dtype=np.uint32), position, has_gauss, cached))
    tensors = load_file(folder / f"{_RANDOM}-{process}.safetensors")
    torch.random.set_rng_state(tensors["cpu"])
    if torch.cuda.is_available() and (states := _of_devices(tensors)):
        torch.cuda.random.set_rng_state_all(states)


def _of_devices(tensors: dict[str, Tensor]) -> list[Tensor]:
    count = min(torch.cuda.device_count(), len(tensors) - 1)
    return [tensors[f"cuda.{device}"] for device in range(count)]


def mark_complete(folder: Path, step: int) -> None:
    """Say that everything of a checkpoint is there."""
    write_json(folder / _MARKER, {"step": step})


def last_complete(folder: Path) -> Path | None:
    """The latest checkpoint in ``folder`` that is whole; those that are not are removed."""
    found: list[tuple[int, Path]] = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / _MARKER).is_file():
            found.append((int(checkpoint.name.rpartition("-")[2]), checkpoint))
        else:
            shutil.rmtree(checkpoint, ignore_errors=True)
    return max(found)[1] if found else None
