"""The Trainer of ``transformers`` with an adapter's learning rates and resumable without pickles.

``AdapterTrainer(model=..., args=..., options=TrainingOptions())`` is a ``Trainer`` in everything
else. What differs: parameter groups for low-rank matrices, nodes and time constants; checkpoints of
safetensors and JSON, marked when whole; with ``options.carry`` the turns of an example are separate
calls between which the state of the nodes is carried, and back-propagation goes through it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Trainer, TrainerCallback

from ed_interp.adapters.training import checkpoints
from ed_interp.adapters.training.carry import carried_states
from ed_interp.adapters.training.data import IGNORED, Encoded
from ed_interp.adapters.training.groups import parameter_groups
from ed_interp.adapters.training.options import TrainingOptions


class Collator:
    """Batches of encoded examples, padded on the right.

    One turn an example gives ``input_ids``, ``attention_mask`` and ``labels``, each ``row pos``.
    Several give ``turns``, a list of such batches; rows that have fewer turns than the longest
    have empty ones (no attention, no loss), which leave the state as it is.
    """

    def __init__(self, padding: int) -> None:
        self._padding = padding

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        examples: list[list[Encoded]] = [row["turns"] for row in rows]
        count = max(len(turns) for turns in examples)
        empty = Encoded((), ())
        batches = [
            self._batch([turns[k] if k < len(turns) else empty for turns in examples])
            for k in range(count)
        ]
        if count == 1:
            return batches[0]
        # The Trainer counts by this name what is learnt from. The first token of a turn is not:
        # nothing in its call comes before it.
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
    """Calls ``advance(steps)`` after every optimizer step."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance
        self._done = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step:
            self._advance(state.global_step)
        self._done = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._advance(state.global_step - self._done)
        self._done = state.global_step


class MarkCallback(TrainerCallback):  # type: ignore[misc]
    """Marks a checkpoint as whole once everything is in it."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        checkpoints.mark_complete(folder, state.global_step)


class AdapterTrainer(Trainer):  # type: ignore[misc]
    """A Trainer for adapters; see the module's text."""

    def __init__(self, *args: Any, options: TrainingOptions, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.options = options
        self.add_callback(MarkCallback())

    optimizer: Any

    def create_optimizer(self, model: Any = None) -> Any:
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
                # A turn without loss (what was only announced) still leaves its trace.
                count = int((turn["labels"][:, 1:] != IGNORED).sum())
                outputs = model(**turn) if count else model(**{**turn, "labels": None})
                if count:
                    losses.append(outputs.loss * count)
                    counts.append(count)
        loss = torch.stack(losses).sum() / (num_items_in_batch or sum(counts))
        return (loss, outputs) if return_outputs else loss

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.is_fsdp_enabled:  # a sharded optimizer is the library's own business
            super()._save_optimizer_and_scheduler(output_dir)
        elif self.args.should_save:
            checkpoints.save_optimizer(Path(output_dir), self.optimizer, self.lr_scheduler)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        if self.is_fsdp_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)
        else:
            checkpoints.load_optimizer(Path(checkpoint), self.optimizer, self.lr_scheduler)

    def _save_rng_state(self, output_dir: str) -> None:
        checkpoints.save_random(Path(output_dir), self.args.process_index)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.load_random(Path(checkpoint), self.args.process_index)
