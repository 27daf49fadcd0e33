"""Rows of a study: its arms, its trials, and the arms over seeds."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to change the model, or not to."""

    name: str
    about: str
    """What it is, in a sentence."""
    method: str
    """A method of ``ed_interp.adapters.training``, ``frozen``, ``direction`` or ``checkpoint``."""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Fields of ``AdapterOptions``."""
    equal_parameters: bool = False
    """The rank is chosen so that it trains as many parameters as ``bias-injection`` does."""
    shuffled_time: bool = False
    """Feedback reads a random earlier token instead of the previous one."""

    @property
    def trained(self) -> bool:
        """Whether anything is learned."""
        return self.method not in ("frozen", "direction", "checkpoint")

    @property
    def fixed(self) -> bool:
        """Whether it has neither a rate nor a seed."""
        return self.method in ("frozen", "checkpoint")


@dataclasses.dataclass(frozen=True)
class StudiedArm(Arm):
    """An arm as it was run."""

    parameters: int | None = None
    """Number of trained parameters."""
    sweep: tuple[float, ...] = ()
    """The values of its sweep."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One arm at one rate and one seed."""

    arm: str
    rate: float
    """Learning rate; for a direction, its length over that of the stream's states."""
    seed: int
    sweep: bool
    """Part of the sweep, or one of the seeds that are compared."""

    @property
    def name(self) -> str:
        """Name of its files."""
        kind = "sweep" if self.sweep else "final"
        return f"{kind}-{self.arm}-rate{self.rate:g}-seed{self.seed}"

    @property
    def adapter(self) -> str:
        """Name of the folder of its adapter, which the sweep and the comparison share."""
        return f"{self.arm}-rate{self.rate:g}-seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class TrialRow(Trial):
    """The outcome of one trial. Lists over shots are in the order of ``shots``."""

    status: str
    """``done`` or ``failed``."""
    error: str = ""
    """Why it failed."""
    attempt: int = 1
    """How often it was started."""
    eval_loss: float | None = None
    """Nats per token on held-out training examples; the rate is chosen by it."""
    steps: int | None = None
    seconds: float | None = None
    """Wall time of the training."""
    parameters: int | None = None
    """Number of trained parameters."""
    neutral: bool | None = None
    """The before-state is the identity, bit for bit."""
    shots: tuple[int, ...] = ()
    accuracy: tuple[float, ...] = ()
    accuracy_change: tuple[float, ...] = ()
    """Difference from the frozen model, paired by prompt."""
    logprob: tuple[float, ...] = ()
    logprob_change: tuple[float, ...] = ()
    p_holm: tuple[float, ...] = ()
    """P-values of the changes of the log-probability, corrected over the whole comparison."""
    forgetting: float | None = None
    """Rise of the cross-entropy on neutral text, nats per token."""
    divergence: float | None = None
    """KL(frozen || arm) per token of neutral text, mean, in nats."""
    divergence_p99: float | None = None
    harmed: tuple[str, ...] = ()
    """What became worse at the corrected level."""
    emergence_change: float | None = None
    """Largest change of E by size, in bits."""
    emergence_where: str = ""
    emergence_p: float | None = None
    checkpoint_bytes: int | None = None
    peak_bytes: int | None = None
    decode_ratio: float | None = None
    worst: str = ""
    """The relation that lost most log-probability, whether or not the tests hold it."""
    worst_change: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ArmRow:
    """One arm and metric over seeds."""

    arm: str
    metric: str
    mean: float
    ci_low: float | None
    """Lower end of Student's interval over seeds; None with one seed."""
    ci_high: float | None
    seeds: int
    difference: float | None = None
    """The arm under test minus this arm, paired by seed; None for the arm under test itself."""
    difference_low: float | None = None
    difference_high: float | None = None
    p_value: float | None = None
    """Paired t-test over seeds; None if fewer than 2 seeds are shared, or nothing varies."""
    p_holm: float | None = None
