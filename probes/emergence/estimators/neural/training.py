"""The training loop: all members at once, every one stopped by its own held-out rows.

At step 0 and every ``every`` steps each member's critic is valued on rows it does not train on. The
best state is kept, and a member that has not improved for ``patience`` valuations leaves the batch,
which then gets cheaper. Where a reference is the start, step 0 is the reference itself, so the
learned correction is used only as far as it helps on rows that no step has seen.

A member whose weights or value become NaN or infinite, or whose value falls ``_COLLAPSE`` nats
below its start, leaves the batch with the best state it had and is marked as diverged.

Cost of a step: per member the products of the critic on ``batch`` rows, three times; beside that
some dozens of small operations for all members together. Memory: five times the weights,
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
    Part,
    some_shifts,
    stop_value,
    training_gradients,
)

_COLLAPSE = 5.0
_WARM_UP = 20


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long and how fast to train."""

    steps: int
    batch: int
    lr: float
    every: int
    patience: int
    shifts: int
    """Separate pairs per row, for critics that do not score all pairs."""
    weight_decay: float


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
            value.grad = gradients[name].neg_()
        self._torch.param_groups[0]["lr"] = lr
        self._torch.step()

    def state(self) -> Weights:
        """The moments by name, ``first/...`` and ``second/...``, and the number of steps."""
        found: Weights = {}
        for name, value in self.weights.items():
            if value not in self._torch.state:  # No step yet.
                return {}
            own = self._torch.state[value]
            found[f"first/{name}"], found[f"second/{name}"] = own["exp_avg"], own["exp_avg_sq"]
            found["taken"] = own["step"]
        return found

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
        kept = {name: one[which.to(one.device)] for name, one in self.weights.items()}
        moments = {
            name: one if name == "taken" else one[which.to(one.device)]
            for name, one in state.items()
        }
        self.restore(kept, moments)


def train(
    critic: Critic,
    start: Weights,
    train_on: Part,
    stop_by: Part,
    bound: Bound,
    plan: Plan,
    *,
    seed: int,
    saved: Saved,
    advance: Callable[[int], None],
) -> Trained:
    """Train every member; see the module.

    Args:
        critic: the architecture.
        start: its initial weights; not changed.
        train_on: rows to draw minibatches from.
        stop_by: rows to stop by.
        bound: the objective.
        plan: how long and how fast.
        seed: of the minibatches.
        saved: where the state is kept and found.
        advance: called with the number of steps done.
    """
    run = _Run(critic, start, stop_by, bound, plan, seed)
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
            if saved.due():
                saved.put(run.state())
    advance(plan.steps - run.number)
    run.number = plan.steps
    saved.put(run.state())
    return Trained(run.best, run.best_value, run.best_step, run.diverged)


class _Run:
    """A training in progress."""

    def __init__(
        self, critic: Critic, start: Weights, stop_by: Part, bound: Bound, plan: Plan, seed: int
    ) -> None:
        members = len(next(iter(start.values())))
        self.critic, self.bound, self.plan, self.seed = critic, bound, plan, seed
        self.whole_stop = self.stop = stop_by
        self.active = torch.arange(members)
        self.number = 0
        now = {name: one.clone() for name, one in start.items()}
        self.adam = Adam(now, decay=plan.weight_decay)
        self.best = {name: one.clone() for name, one in start.items()}
        self.best_value = torch.full((members,), -torch.inf, dtype=torch.float64)
        self.first_value = torch.full((members,), torch.nan, dtype=torch.float64)
        self.best_step = torch.zeros(members, dtype=torch.int64)
        self.diverged = torch.zeros(members, dtype=torch.bool)
        self.stop_shifts = some_shifts(plan.shifts, seed, BATCH)

    @property
    def now(self) -> Weights:
        """The weights of the active members."""
        return self.adam.weights

    def step(self, data: Part) -> None:
        """One step of every active member."""
        rows = draw(data.weights, self.plan.batch, self.seed, BATCH, self.number)
        shifts = some_shifts(self.plan.shifts, self.seed, BATCH, self.number)
        found = training_gradients(self.critic, self.now, data.rows(rows), self.bound, shifts)
        self.number += 1
        lr = self.plan.lr * min(1.0, self.number / _WARM_UP)
        self.adam.step(found, lr)

    @torch.no_grad()
    def value_now(self) -> None:
        """Value the active members, keep the better ones, let the finished ones go."""
        value = stop_value(self.critic, self.now, self.stop, self.bound, self.stop_shifts).cpu()
        value = value.double()
        if self.number == 0:
            self.first_value[self.active] = value
        sound = torch.isfinite(value)
        for one in self.now.values():
            sound &= torch.isfinite(one).flatten(1).all(1).cpu()
        lost = ~sound | (value < self.first_value[self.active] - _COLLAPSE)
        better = ~lost & (value > self.best_value[self.active])
        chosen = self.active[better]
        for name, one in self.now.items():
            self.best[name][chosen.to(one.device)] = one[better.to(one.device)]
        self.best_value[chosen] = value[better]
        self.best_step[chosen] = self.number
        self.diverged[self.active[lost]] = True
        waited = self.number - self.best_step[self.active]
        keep = ~lost & (waited < self.plan.patience * self.plan.every)
        if not bool(keep.all()):
            self._keep(keep)

    def _keep(self, keep: Bool[Tensor, "active"]) -> None:
        self.active = self.active[keep]
        self.adam.keep(keep)
        self.stop = self.stop.members(keep)

    def state(self) -> dict[str, Tensor]:
        """Everything needed to go on."""
        found = {
            "number": torch.tensor(self.number),
            "active": self.active,
            "best_value": self.best_value,
            "first_value": self.first_value,
            "best_step": self.best_step,
            "diverged": self.diverged,
        }
        for label, table in (("now", self.now), ("best", self.best)):
            found |= {f"{label}/{name}": one for name, one in table.items()}
        return found | self.adam.state()

    def restore(self, known: dict[str, Tensor]) -> None:
        """Go on from such a state."""
        self.number = int(known["number"])
        self.active = known["active"]
        self.best_value, self.first_value = known["best_value"], known["first_value"]
        self.best_step, self.diverged = known["best_step"], known["diverged"]
        self.stop = self.whole_stop.members(self.active)
        device = next(iter(self.now.values())).device

        def table(label: str) -> Weights:
            return {name: known[f"{label}/{name}"].to(device) for name in self.now}

        self.best = table("best")
        self.adam.restore(table("now"), known)
