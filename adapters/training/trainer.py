"""The Trainer of ``transformers`` with an adapter's learning rates and resumable without pickles.

``AdapterTrainer(model=..., args=..., options=TrainingOptions())`` differs from a ``Trainer`` in
three things: parameter groups for low-rank matrices, nodes and time constants; checkpoints of
safetensors in place of pickles; with ``options.carry`` the turns of an example are separate calls
between which the state of the nodes is carried, and back-propagation goes through it.

A checkpoint holds optimizer, schedule and random generators as tensors with plain values as
metadata, in checked files (:mod:`ed_interp.records.tensors`). It counts once its marker is written,
which is last, so that an interrupted one is never resumed from.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments

from ed_interp.adapters.training.carry import carried_states
from ed_interp.adapters.training.data import IGNORED, Encoded
from ed_interp.adapters.training.groups import parameter_groups
from ed_interp.adapters.training.options import TrainingOptions
from ed_interp.records import tensors as files
from ed_interp.records.files import write_json

_OPTIMIZER, _RANDOM = "optimizer-state", "random-state"
_MARKER = "complete.json"


class Collator:
    """Batches of encoded examples, padded on the right.

    With one turn per example: ``input_ids``, ``attention_mask`` and ``labels``, each ``row pos``.
    With several: ``turns``, a list of such batches; rows with fewer turns than the longest have
    empty ones (no attention, no loss), which leave the state as it is.
    """

    def __init__(self, padding: int) -> None:
        self._padding = padding

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        examples: list[list[Encoded]] = [row["turns"] for row in rows]
        turns = itertools.zip_longest(*examples, fillvalue=Encoded((), ()))
        batches = [self._batch(turn) for turn in turns]
        if len(batches) == 1:
            return batches[0]
        # The Trainer counts the tokens with loss in what has this name. The first token of a turn
        # has none: nothing in its call comes before it.
        labels = torch.cat(
            [F.pad(each["labels"][:, 1:], (1, 0), value=IGNORED) for each in batches], 1
        )
        return {"turns": batches, "labels": labels}

    def _batch(self, rows: Sequence[Encoded]) -> dict[str, Tensor]:
        width = max(len(row.ids) for row in rows)
        ids = torch.full((len(rows), width), self._padding)
        labels = torch.full((len(rows), width), IGNORED)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(row.ids)] = torch.tensor(row.ids, dtype=torch.long)
            labels[place, : len(row.ids)] = torch.tensor(row.labels, dtype=torch.long)
            mask[place, : len(row.ids)] = 1
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """Calls ``advance(steps)`` after every optimizer step, and for those of a resumed run."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step:
            self._advance(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._advance(1)


class MarkCallback(TrainerCallback):  # type: ignore[misc]
    """Marks a checkpoint as whole once everything is in it."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        write_json(folder / _MARKER, {"step": state.global_step})


class AdapterTrainer(Trainer):  # type: ignore[misc]
    """A Trainer for adapters; see the module's text."""

    def __init__(self, *args: Any, options: TrainingOptions, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.options = options
        self.add_callback(MarkCallback())

    optimizer: Any

    def create_optimizer(self, model: Any = None) -> Any:
        # As the Trainer's own, but by our groups: its groups are by weight decay alone.
        if self.optimizer is None:
            trained: Any = model or self.model
            groups = parameter_groups(trained.named_parameters(), self.options)
            kind, keywords = self.get_optimizer_cls_and_kwargs(self.args, trained)
            keywords.pop("lr", None)
            self.optimizer = kind(groups, **keywords)
        return self.optimizer

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        if "turns" not in inputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        losses, counts, outputs = [], [], None
        with carried_states(tau=self.options.carry_tau):
            for turn in inputs["turns"]:
                # A turn without loss (an announcement) still changes the states. Without labels it
                # needs no logits of a loss that would be 0 / 0.
                count = int((turn["labels"][:, 1:] != IGNORED).sum())
                outputs = model(**turn) if count else model(**{**turn, "labels": None})
                if count:
                    losses.append(outputs.loss * count)
                    counts.append(count)
        # Mean over all tokens with loss, not over turns: also across accumulated batches.
        loss = torch.stack(losses).sum() / (num_items_in_batch or sum(counts))
        return (loss, outputs) if return_outputs else loss

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_fsdp_enabled:  # the library writes a sharded optimizer in its own format
            super()._save_optimizer_and_scheduler(output_dir)
        elif self.args.should_save:
            save_optimizer(Path(output_dir), self.optimizer, self.lr_scheduler)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.is_fsdp_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
        elif checkpoint is not None:
            load_optimizer(Path(checkpoint), self.optimizer, self.lr_scheduler)

    def _save_rng_state(self, output_dir: str) -> None:
        legacy: Any = np.random.get_state(legacy=True)
        kind, keys, *rest = legacy
        tensors = {"cpu": torch.random.get_rng_state()}
        if torch.cuda.is_available():
            states = enumerate(torch.cuda.random.get_rng_state_all())
            tensors |= {f"cuda.{device}": state for device, state in states}
        meta = {"python": random.getstate(), "numpy": [kind, keys.tolist(), *rest]}
        file = Path(output_dir) / f"random-{self.args.process_index}.safetensors"
        file.parent.mkdir(exist_ok=True)
        files.write(file, tensors, kind=_RANDOM, meta=meta)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        file = Path(checkpoint) / f"random-{self.args.process_index}.safetensors"
        tensors, meta = files.read(file, kind=_RANDOM)
        version, state, gauss = meta["python"]
        random.setstate((version, tuple(state), gauss))
        kind, keys, *rest = meta["numpy"]
        np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
        torch.random.set_rng_state(tensors["cpu"])
        # A run may be resumed on a machine with more or fewer devices, or none.
        count = min(torch.cuda.device_count(), len(tensors) - 1)
        if torch.cuda.is_available() and count:
            states = [tensors[f"cuda.{device}"] for device in range(count)]
            torch.cuda.random.set_rng_state_all(states)


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
    """Read what :func:`save_optimizer` wrote; a damaged file is refused."""
    tensors, meta = files.read(folder / "optimizer.safetensors", kind=_OPTIMIZER)
    # JSON has made text of the numbers of parameters, and lists of tuples.
    state: dict[int, dict[str, Any]] = {int(k): dict(v) for k, v in meta["state"].items()}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = tensor
    groups = [{**group, "betas": tuple(group["betas"])} for group in meta["groups"]]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    scheduler.load_state_dict(meta["scheduler"])


def last_complete(folder: Path) -> Path | None:
    """The latest checkpoint in ``folder`` that is whole; those that are not are removed."""
    whole: list[tuple[int, Path]] = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / _MARKER).is_file():
            whole.append((int(checkpoint.name.rpartition("-")[2]), checkpoint))
        else:
            shutil.rmtree(checkpoint, ignore_errors=True)
    return max(whole)[1] if whole else None


def training_arguments(
    options: TrainingOptions, folder: Path, total: int, *, evaluate: bool, device: str | None = None
) -> Any:
    """The ``TrainingArguments`` of a run of ``total`` steps; also for a Trainer of your own."""
    every = options.eval_steps or max(1, total // 10)
    saving: dict[str, Any] = {"save_strategy": "steps", "save_total_limit": 2}
    if evaluate:
        # The best weights can be loaded at the end only if each evaluation has a checkpoint.
        saving |= {"eval_strategy": "steps", "eval_steps": every, "load_best_model_at_end": True}
        saving |= {"metric_for_best_model": "eval_loss", "greater_is_better": False}
    if options.checkpointing != "off":
        saving |= checkpointing_arguments(reentrant=options.checkpointing == "reentrant")
    warm_constant = options.schedule == "constant" and options.warmup > 0
    accelerated = torch.cuda.is_available() or torch.backends.mps.is_available()
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=total,
        per_device_train_batch_size=options.batch_size,
        per_device_eval_batch_size=options.batch_size,
        gradient_accumulation_steps=options.accumulate,
        learning_rate=options.lr_lora,
        weight_decay=options.weight_decay,
        warmup_steps=math.ceil(options.warmup * total),
        lr_scheduler_type="constant_with_warmup" if warm_constant else options.schedule,
        max_grad_norm=options.clip,
        logging_steps=max(1, min(every, total // 10)),
        logging_first_step=True,
        save_steps=every if evaluate else options.save_steps or every,
        seed=options.seed,
        data_seed=options.seed,
        bf16=options.precision == "bfloat16",
        label_names=["labels"],
        remove_unused_columns=False,
        restore_callback_states_from_checkpoint=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to=[],
        disable_tqdm=True,
        # The Trainer would move the model to a GPU it sees, also where the CPU was chosen.
        use_cpu=device == "cpu" or not accelerated,
        **saving,
    )


def checkpointing_arguments(*, reentrant: bool) -> dict[str, Any]:
    """The keywords of ``TrainingArguments`` for gradient checkpointing, which were renamed."""
    names = {field.name for field in dataclasses.fields(TrainingArguments)}
    kind = "activation" if "activation_checkpointing" in names else "gradient"
    return {
        f"{kind}_checkpointing": True,
        f"{kind}_checkpointing_kwargs": {"use_reentrant": reentrant},
    }
