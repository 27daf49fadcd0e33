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
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ed_interp.probes.emergence.estimators.neural.bounds import Bound
from ed_interp.probes.emergence.estimators.neural.critics import Critic, Weights
from ed_interp.probes.emergence.estimators.neural.sampling import BATCH, draw
from ed_interp.probes.emergence.estimators.neural.saving import Saved
from ed_interp.probes.emergence.estimators.neural.scoring import (
    SHIFTS,
    Part,
    some_shifts,
    stop_value,
    training_gradients,
)

_COLLAPSE = 5.0
# Steps over which the learning rate rises, as Adam's first estimates of the moments are rough.
_WARM_UP = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What to train, how long and how fast, and how to value it."""

    critic: Critic
    bound: Bound
    steps: int
    batch: int
    lr: float
    every: int
    patience: int
    weight_decay: float
    seed: int
    folds: int
    gaussian: bool
    """Start from the Gaussian reference."""
    debias: bool
    """Replace its held-out mean by its unbiased value."""
    clip: float
    """Tau of ``smile``, in nats."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """The best state of every member."""

    weights: Weights
    value: Float[Tensor, "member"]
    """On the rows to stop by, in nats."""
    step: Int64[Tensor, "member"]
    """When it was reached; 0 is the start."""
    diverged: Bool[Tensor, "member"]


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

        def kept(tables: Weights) -> Weights:
            # All have a first axis of members but the number of steps, which is one for all.
            return {
                name: one if name == "taken" else one[which.to(one.device)]
                for name, one in tables.items()
            }

        self.restore(kept(self.weights), kept(self.state()))


def train(
    start: Weights,
    train_on: Part,
    stop_by: Part,
    plan: Plan,
    *,
    saved: Saved,
    advance: Callable[[int], None],
) -> Trained:
    """Train every member; see the module.

    Args:
        start: Initial weights; not changed.
        train_on: Rows to draw minibatches from.
        stop_by: Rows to stop by.
        plan: What, how long and how fast.
        saved: Keeps the state and returns it after an interruption.
        advance: Called with the number of steps done.
    """
    run = _Run(start, stop_by, plan)
    known = saved.get()
    if known is not None:
        run.restore(known)
        advance(run.number)
    else:
        run.value_now()
    data = train_on.members(run.active)
    while run.number < plan.steps and len(run.active):
        run.step(data)
        advance(1)
        if run.number % plan.every == 0 or run.number == plan.steps:
            before = len(run.active)
            run.value_now()
            if len(run.active) < before:
                data = train_on.members(run.active)
            # Only here: between two valuations the state would not be enough to go on from.
            if saved.due():
                saved.put(run.state())
    advance(plan.steps - run.number)
    run.number = plan.steps
    saved.put(run.state())
    return Trained(run.best, run.best_value, run.best_step, run.diverged)


class _Run:
    """A training in progress."""

    def __init__(self, start: Weights, stop_by: Part, plan: Plan) -> None:
        members = len(next(iter(start.values())))
        self.plan = plan
        self.whole_stop = self.stop = stop_by
        self.active = torch.arange(members)
        self.number = 0
        now, self.best = ({name: one.clone() for name, one in start.items()} for _ in range(2))
        self.adam = Adam(now, decay=plan.weight_decay)
        self.best_value = torch.full((members,), -torch.inf, dtype=torch.float64)
        self.first_value = torch.full((members,), torch.nan, dtype=torch.float64)
        self.best_step = torch.zeros(members, dtype=torch.int64)
        self.diverged = torch.zeros(members, dtype=torch.bool)
        # The same separate pairs at every valuation, or the best would be the luckiest.
        self.stop_shifts = some_shifts(SHIFTS, plan.seed, BATCH)

    @property
    def now(self) -> Weights:
        """The weights of the active members."""
        return self.adam.weights

    def step(self, data: Part) -> None:
        """One step of every active member."""
        plan = self.plan
        stream = (plan.seed, BATCH, self.number)
        batch = data.rows(draw(data.weights, plan.batch, *stream))
        shifts = some_shifts(SHIFTS, *stream)
        gradients = training_gradients(plan.critic, self.now, batch, plan.bound, shifts)
        self.number += 1
        self.adam.step(gradients, plan.lr * min(1.0, self.number / _WARM_UP))

    @torch.no_grad()
    def value_now(self) -> None:
        """Value the active members, keep the better ones, let the finished ones go."""
        plan = self.plan
        value = stop_value(plan.critic, self.now, self.stop, plan.bound, self.stop_shifts)
        value = value.cpu().double()
        if self.number == 0:
            self.first_value[self.active] = value
        sound = torch.isfinite(value)
        for one in self.now.values():
            sound &= torch.isfinite(one).flatten(1).all(1).cpu()
        lost = ~sound | (value < self.first_value[self.active] - _COLLAPSE)
        better = ~lost & (value > self.best_value[self.active])
        # Masks are over the active members, the tables of the best over all.
        chosen = self.active[better]
        for name, one in self.now.items():
            self.best[name][chosen.to(one.device)] = one[better.to(one.device)]
        self.best_value[chosen] = value[better]
        self.best_step[chosen] = self.number
        self.diverged[self.active[lost]] = True
        waited = self.number - self.best_step[self.active]
        keep = ~lost & (waited < plan.patience * plan.every)
        if not bool(keep.all()):
            self.active = self.active[keep]
            self.adam.keep(keep)
            self.stop = self.stop.members(keep)

    def state(self) -> dict[str, Tensor]:
        """Everything needed to go on."""
        state = {name: getattr(self, name) for name in _KEPT}
        for label, table in (("now", self.now), ("best", self.best)):
            state |= {f"{label}/{name}": one for name, one in table.items()}
        return state | {"number": torch.tensor(self.number)} | self.adam.state()

    def restore(self, known: dict[str, Tensor]) -> None:
        """Go on from such a state."""
        self.number = int(known["number"])
        for name in _KEPT:
            setattr(self, name, known[name])
        self.stop = self.whole_stop.members(self.active)
        now, self.best = (
            {name: known[f"{label}/{name}"].to(one) for name, one in self.now.items()}
            for label in ("now", "best")
        )
        self.adam.restore(now, known)


_KEPT = ("active", "best_value", "first_value", "best_step", "diverged")
