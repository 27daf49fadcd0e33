"""The state of a training run, as one file of tensors that is complete or absent.

SAELens's own trainer state is a pickle, which is not read here. This holds the same and, in
addition, the place in the data and the random generators, so that a resumed run ends with the same
numbers. Cost: three times the weights (with Adam's two moments), written to disk.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.probes.dictionaries.rows import TrainingRow
from ed_interp.records import tensors as tensor_files

if TYPE_CHECKING:
    from sae_lens import SAETrainer

    from ed_interp.probes.dictionaries.states import Batches

NAME = "training.safetensors"
_KIND = "dictionary-checkpoint"
_COUNTERS = ("n_training_samples", "n_training_steps", "n_frac_active_samples")
_TRACKS = ("act_freq_scores", "n_forward_passes_since_fired")


def write_checkpoint(
    folder: Path, trainer: SAETrainer[Any, Any], batches: Batches, history: list[TrainingRow]
) -> None:
    """Write everything that the rest of the run depends on."""
    optimizer = trainer.optimizer.state_dict()
    tensors: dict[str, Tensor] = {
        f"sae.{name}": tensor for name, tensor in trainer.sae.state_dict().items()
    }
    for number, moments in optimizer["state"].items():
        tensors |= {f"optimizer.{number}.{name}": value for name, value in moments.items()}
    # How long each latent has been silent: it decides which ones the loss revives.
    tensors |= {f"track.{name}": getattr(trainer, name) for name in _TRACKS}
    tensors["random.cpu"] = torch.get_rng_state()
    if trainer.sae.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(trainer.sae.device)
    state = {
        "counters": {name: int(getattr(trainer, name)) for name in _COUNTERS},
        "groups": optimizer["param_groups"],
        "schedule": trainer.lr_scheduler.state_dict(),
        "coefficients": {
            name: schedule.state_dict() for name, schedule in trainer.coefficient_schedulers.items()
        },
        "scale": trainer.activation_scaler.scaling_factor,
        "block": batches.block,
        "served": batches.served,
        "history": [dataclasses.asdict(row) for row in history],
    }
    tensor_files.write(folder / NAME, tensors, kind=_KIND, meta=state)


def read_checkpoint(
    folder: Path, trainer: SAETrainer[Any, Any], batches: Batches
) -> list[TrainingRow]:
    """Set ``trainer``, ``batches`` and the random generators to where the run stopped.

    Returns the history so far. Raises RunFolderError if the file is damaged or does not fit.
    """
    file = folder / NAME
    try:
        tensors, state = tensor_files.read(file, kind=_KIND)
        trainer.sae.load_state_dict(_under("sae", tensors))
        # Adam keeps two moments per parameter, by the number of the parameter.
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimizer", tensors).items():
            number, _, moment = name.partition(".")
            moments.setdefault(int(number), {})[moment] = tensor
        trainer.optimizer.load_state_dict({"state": moments, "param_groups": state["groups"]})
        trainer.lr_scheduler.load_state_dict(state["schedule"])
        for name, schedule in trainer.coefficient_schedulers.items():
            schedule.load_state_dict(state["coefficients"][name])
        for name in _COUNTERS:
            setattr(trainer, name, state["counters"][name])
        for name in _TRACKS:
            setattr(trainer, name, tensors[f"track.{name}"].to(trainer.cfg.device))
        trainer.activation_scaler.scaling_factor = state["scale"]
        # Reads the block that the run stopped in again, and continues inside it.
        batches.skip_to(state["block"], state["served"])
        # Last, so that nothing above draws from generators that were already set.
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and trainer.sae.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random.cuda"], trainer.sae.device)
        return [TrainingRow(**row) for row in state["history"]]
    except (InvalidInputError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunFolderError(
            f"{file} is damaged ({' '.join(str(error).split())[:200]}); remove {folder} and train "
            "again"
        ) from error


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    cut = len(prefix) + 1
    return {name[cut:]: part for name, part in tensors.items() if name.startswith(f"{prefix}.")}
