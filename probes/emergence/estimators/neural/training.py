"""The training loop: all members at once, every one stopped by its own held-out rows.

At step 0 and every ``every`` steps each member's critic is valued on rows it does not train on. The
best state is kept, and a member that has not improved for ``patience`` valuations leaves the batch,
which then gets cheaper. Where a reference is the start, step 0 is the reference itself, so the
learned correction is used only as far as it helps on rows that no step has seen.

A member whose weights or value become NaN or infinite, or whose value falls ``_COLLAPSE`` nats
below its start, leaves the batch with the best state it had and is marked as diverged.

Cost of a step: per member the products of the critic on ``batch`` rows, three times, and some
dozens of small operations for all members together. Memory: five times the weights,
the batch, and the rows of all members in float32.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.options import Options, option
from ed_interp.probes.emergence.estimators.neural import scoring
from ed_interp.probes.emergence.estimators.neural.critics import Critic, Weights
from ed_interp.probes.emergence.estimators.neural.sampling import BATCH, draw
from ed_interp.records import tensors
from ed_interp.records.files import explained

_KIND = "critics"
# Between two savings of one training.
_SECONDS = 30.0
_COLLAPSE = 5.0
# Steps over which the learning rate rises, as Adam's first estimates of the moments are rough.
_WARM_UP = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule(Options):
    """How long and how fast to train."""

    steps: int = option(1000, "Most training steps.", min=1)
    batch: int = option(
        128,
        "Most rows of a minibatch; a quarter of the rows to train on where they are few.",
        min=4,
    )
    lr: float = option(3e-3, "Highest learning rate of Adam.", above=0)
    every: int = option(50, "Steps between two valuations on the rows to stop by.", min=1)
    patience: int = option(5, "Valuations without improvement before a stop.", min=1)
    weight_decay: float = option(0.0, "Weight decay of Adam.", min=0)


class Adam:
    """torch's fused Adam on stacked weights, which can lose members and be saved."""

    def __init__(self, weights: Weights, *, decay: float = 0.0) -> None:
        self.decay = decay
        self._make(weights)

    def _make(self, weights: Weights) -> None:
        self.weights = weights
        kind = torch.optim.AdamW if self.decay else torch.optim.Adam
        self._torch = kind(list(weights.values()), weight_decay=self.decay, fused=True)

    def step(self, gradients: Weights, lr: float) -> None:
        """One step uphill, in place."""
        for name, value in self.weights.items():
            value.grad = gradients[name].neg_()  # torch goes downhill
        self._torch.param_groups[0]["lr"] = lr
        self._torch.step()

    def state(self) -> Weights:
        """The moments by name, ``first/...`` and ``second/...``, and the number of steps."""
        state: Weights = {}
        for name, value in self.weights.items():
            if value not in self._torch.state:  # No step yet.
                return {}
            own = self._torch.state[value]
            state[f"first/{name}"], state[f"second/{name}"] = own["exp_avg"], own["exp_avg_sq"]
            state["taken"] = own["step"]
        return state

    def restore(self, weights: Weights, state: Mapping[str, Tensor]) -> None:
        """Go on with these weights and moments."""
        self._make(weights)
        for name, value in weights.items() if state else ():
            self._torch.state[value] = {
                "step": state["taken"].clone(),
                "exp_avg": state[f"first/{name}"].to(value),
                "exp_avg_sq": state[f"second/{name}"].to(value),
            }

    def keep(self, which: Tensor) -> None:
        """Drop the other members, of the weights too."""
        state = self.state()
        # All have a first axis of members but the number of steps, which is one for all.
        state |= {name: one[which.to(one.device)] for name, one in state.items() if name != "taken"}
        self.restore({name: one[which.to(one.device)] for name, one in self.weights.items()}, state)


class Saved:
    """Where one training keeps its state: a checked file of tensors; nowhere for ``folder=None``.

    The file is named by a hash of the data and of every setting, so a folder can serve any number
    of trainings, and a changed setting never continues an old state. A state that is already there
    is continued; random numbers come from counters, so the result is that of an uninterrupted run.
    """

    def __init__(
        self, folder: str | Path | None, data: Sequence[Tensor], settings: Mapping[str, Any]
    ) -> None:
        self._file: Path | None = None
        self._last = time.monotonic()
        if folder is None:
            return
        path = Path(folder).expanduser()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explained(error, path) from error
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
        for tensor in data:
            digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        self._file = path / f"critics-{digest.hexdigest()[:24]}.safetensors"

    def due(self) -> bool:
        """Whether it is time to save again."""
        return self._file is not None and time.monotonic() - self._last > _SECONDS

    def put(self, state: Mapping[str, Tensor]) -> None:
        """Save, if there is a folder."""
        if self._file is not None:
            tensors.write(self._file, state, kind=_KIND)
            self._last = time.monotonic()

    def get(self) -> dict[str, Tensor] | None:
        """The state that an earlier run left; None if it left none. A damaged one is refused."""
        if self._file is None or not self._file.exists():
            return None
        try:
            return tensors.read(self._file, kind=_KIND)[0]
        except InvalidInputError as error:
            # The advice of the reader is for files that people exchange.
            problem = str(error).partition(";")[0]
            raise RunFolderError(f"{problem}; remove it and run again") from error


class Training:
    """A training of all members, which ends with their best state in ``best``; see the module.

    ``parts`` are the rows to draw minibatches from and the rows to stop by; ``start`` is not
    changed.
    """

    def __init__(
        self,
        critic: Critic,
        bound: scoring.Bound,
        start: Weights,
        parts: Sequence[scoring.Part],
        schedule: Schedule,
        seed: int,
    ) -> None:
        self.critic, self.schedule, self.seed = critic, schedule, seed
        self.bound: scoring.Bound = bound
        self.parts, self.stop = parts, parts[1]
        now, self.best = ({name: one.clone() for name, one in start.items()} for _ in range(2))
        """The best state of every member."""
        self.adam = Adam(now, decay=schedule.weight_decay)  # the weights of the active members
        members = len(next(iter(start.values())))
        self.active, self.number = torch.arange(members), 0
        self.best_value = torch.full((members,), -torch.inf, dtype=torch.float64)
        """On the rows to stop by, in nats."""
        self.first_value = torch.full((members,), torch.nan, dtype=torch.float64)
        self.best_step = torch.zeros(members, dtype=torch.int64)
        """When it was reached; 0 is the start."""
        self.diverged = torch.zeros(members, dtype=torch.bool)
        # The same separate pairs at every valuation, or the best would be the luckiest.
        self.stop_shifts = scoring.some_shifts(scoring.SHIFTS, seed, BATCH)

    def run(self, saved: Saved, advance: Callable[[int], None]) -> None:
        """Train, or go on where ``saved`` has a state; ``advance`` gets the number of steps."""
        steps, every = self.schedule.steps, self.schedule.every
        known = saved.get()
        if known is not None:
            self.restore(known)
            advance(self.number)
        else:
            self.value_now()
        data = self.parts[0].members(self.active)
        while self.number < steps and len(self.active):
            self.step(data)
            advance(1)
            if self.number % every == 0 or self.number == steps:
                before = len(self.active)
                self.value_now()
                if len(self.active) < before:
                    data = self.parts[0].members(self.active)
                if saved.due():
                    saved.put(self.state())
        advance(steps - self.number)
        self.number = steps
        saved.put(self.state())

    def step(self, data: scoring.Part) -> None:
        """One step of every active member."""
        stream = (self.seed, BATCH, self.number)
        batch = data.rows(draw(data.weights, self.schedule.batch, *stream))
        shifts = scoring.some_shifts(scoring.SHIFTS, *stream)
        gradients = scoring.training_gradients(
            self.critic, self.adam.weights, batch, self.bound, shifts
        )
        self.number += 1
        self.adam.step(gradients, self.schedule.lr * min(1.0, self.number / _WARM_UP))

    @torch.no_grad()
    def value_now(self) -> None:
        """Value the active members, keep the better ones, let the finished ones go."""
        now, shifts = self.adam.weights, self.stop_shifts
        value = scoring.stop_value(self.critic, now, self.stop, self.bound, shifts).cpu().double()
        if self.number == 0:
            self.first_value[self.active] = value
        sound = torch.isfinite(value)
        for one in now.values():
            sound &= torch.isfinite(one).flatten(1).all(1).cpu()
        lost = ~sound | (value < self.first_value[self.active] - _COLLAPSE)
        better = ~lost & (value > self.best_value[self.active])
        # Masks are over the active members, the tables of the best over all.
        chosen = self.active[better]
        for name, one in now.items():
            self.best[name][chosen.to(one.device)] = one[better.to(one.device)]
        self.best_value[chosen] = value[better]
        self.best_step[chosen] = self.number
        self.diverged[self.active[lost]] = True
        waited = self.number - self.best_step[self.active]
        keep = ~lost & (waited < self.schedule.patience * self.schedule.every)
        if not bool(keep.all()):
            self.active = self.active[keep]
            self.adam.keep(keep)
            self.stop = self.stop.members(keep)

    def state(self) -> dict[str, Tensor]:
        """Everything needed to go on."""
        state = {name: getattr(self, name) for name in _KEPT}
        for label, table in (("now", self.adam.weights), ("best", self.best)):
            state |= {f"{label}/{name}": one for name, one in table.items()}
        return state | {"number": torch.tensor(self.number)} | self.adam.state()

    def restore(self, known: dict[str, Tensor]) -> None:
        """Go on from such a state."""
        self.number = int(known["number"])
        for name in _KEPT:
            setattr(self, name, known[name])
        self.stop = self.parts[1].members(self.active)
        now, self.best = (
            {name: known[f"{label}/{name}"].to(one) for name, one in self.best.items()}
            for label in ("now", "best")
        )
        self.adam.restore(now, known)


_KEPT = ("active", "best_value", "first_value", "best_step", "diverged")
