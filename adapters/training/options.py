"""What a training run is asked for: plain values, checked before anything is loaded."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

from ed_interp.errors import InvalidInputError, unknown

Precision = Literal["float32", "bfloat16"]
Checkpointing = Literal["off", "reentrant", "non-reentrant"]


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """How to train. Equal options, data, model and seed give equal weights on the same machine."""

    epochs: float = 3.0
    """Passes over the training examples, unless ``max_steps`` is given."""
    max_steps: int | None = None
    """Optimizer steps."""
    batch_size: int = 8
    """Examples a step, on each process."""
    accumulate: int = 1
    """Batches of which the gradients are summed for one step."""
    lr_lora: float = 1e-3
    """Peak learning rate of the low-rank matrices (and of any other method's weights)."""
    lr_nodes: float = 1e-3
    """Of the nodes: what they read, what they write, and the bias."""
    lr_tau: float = 1e-2
    """Of the time constants."""
    weight_decay: float = 0.0
    """Of matrices; biases and time constants never decay."""
    warmup: float = 0.05
    """Share of the steps over which the learning rates rise."""
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    clip: float = 1.0
    """Largest norm of the gradient."""
    eval_share: float = 0.1
    """Of the examples, held out; 0 holds none out."""
    eval_steps: int | None = None
    """Steps between two evaluations; None is about ten times a run."""
    patience: int | None = None
    """Evaluations without improvement before training stops; None never stops early."""
    save_steps: int | None = None
    """Steps between two checkpoints to resume from; with an evaluation they coincide with it."""
    answers_only: bool = True
    """Loss on answers only."""
    carry: bool = False
    """Turns are separate calls between which the nodes' state is carried; else one sequence."""
    carry_tau: float = 8.0
    """Time constant of forgetting between the turns, in turns; that of an ``Experience``."""
    precision: Precision = "float32"
    """``bfloat16`` runs the forward pass in mixed precision."""
    checkpointing: Checkpointing = "off"
    """Gradient checkpointing: less memory, more time."""
    seed: int = 0
    """Of the adapter's weights, the split, the order of the examples and dropout."""

    def __post_init__(self) -> None:
        positive = ("epochs", "batch_size", "accumulate", "clip", "carry_tau")
        rates = ("lr_lora", "lr_nodes", "lr_tau", "weight_decay")
        counts = ("max_steps", "eval_steps", "patience", "save_steps")
        for name in positive:
            self._refuse(name, getattr(self, name) > 0, "above 0")
        for name in rates:
            self._refuse(name, getattr(self, name) >= 0, "at least 0")
        for name in counts:
            value = getattr(self, name)
            self._refuse(name, value is None or value >= 1, "at least 1")
        self._refuse("warmup", 0 <= self.warmup < 1, "at least 0 and below 1")
        self._refuse("eval_share", 0 <= self.eval_share < 1, "at least 0 and below 1")
        self._refuse("seed", 0 <= self.seed < 2**32, "from 0 up to 2**32 - 1")
        for name, known in (
            ("schedule", ("linear", "cosine", "constant")),
            ("precision", ("float32", "bfloat16")),
            ("checkpointing", ("off", "reentrant", "non-reentrant")),
        ):
            if getattr(self, name) not in known:
                raise unknown(name, str(getattr(self, name)), known)
        if self.patience is not None and self.eval_share == 0:
            raise InvalidInputError(
                f"patience={self.patience} needs held-out examples; pass eval_share above 0"
            )

    def _refuse(self, name: str, fits: bool, expected: str) -> None:
        value = getattr(self, name)
        finite = value is None or math.isfinite(value)
        if not (fits and finite):
            raise InvalidInputError(f"{name}={value}: a finite number {expected} is expected")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for records."""
        return dataclasses.asdict(self)
