"""The plan of a controlled study: plain data from which every trial can be made again, anywhere.

A trial is one arm at one learning rate and one seed, trained and compared with the frozen model.
The sweep comes first (every arm, every rate, the first seed; judged by the loss on held-out
training examples, never on what is asked), then every seed at the arm's best rate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ed_interp.errors import InvalidInputError
from ed_interp.eval.study.arms import ARMS, Arm, arms_of
from ed_interp.eval.study.problems import Problem, question, relation_problem
from ed_interp.prompts.tasks import LabelledTask, builtin_task
from ed_interp.prompts.template import Template

TREATED = "bias-injection"
CHECKPOINT = "treated"
"""Name of the arm that is a checkpoint of the user's."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trial:
    """One arm at one rate and one seed."""

    arm: str
    rate: float
    seed: int
    sweep: bool
    """Part of the sweep, or one of the seeds that are compared."""

    @property
    def name(self) -> str:
        """Of its files."""
        kind = "sweep" if self.sweep else "final"
        return f"{kind}-{self.arm}-rate{self.rate:g}-seed{self.seed}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that a study is asked for."""

    model: str
    """A name or folder that :func:`ed_interp.load` takes."""
    problem: Mapping[str, Any]
    """Arguments of the problem; see :meth:`make_problem`."""
    arms: tuple[str, ...]
    """Names of :data:`~ed_interp.eval.study.arms.ARMS`, the first one being under test."""
    treated: str | None = None
    """Folder of an adapter that is under test in place of an arm that is trained here."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    rates: tuple[float, ...] | None = None
    """Learning rates of the sweep; None for the arms' own."""
    steps: int = 60
    batch_size: int = 16
    prompts: int = 60
    watch_prompts: int = 16
    texts: int = 12
    emergence: bool = True
    decode_rounds: int = 5
    require_identity: bool = True
    device: str | None = None

    def __post_init__(self) -> None:
        arms_of(list(self.arms))
        counts = ("steps", "batch_size", "prompts", "watch_prompts")
        for name in counts:
            if getattr(self, name) < 2:
                raise InvalidInputError(f"{name}={getattr(self, name)}: at least 2 is expected")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InvalidInputError(
                f"seeds={list(self.seeds)}: one or more different ones expected"
            )
        if self.rates is not None and not all(rate > 0 for rate in self.rates):
            raise InvalidInputError(
                f"rates={list(self.rates)}: learning rates above 0 are expected"
            )
        if self.texts < 1:
            raise InvalidInputError(f"texts={self.texts}: at least 1 neutral text is needed")

    @property
    def tested(self) -> str:
        """Name of the arm under test."""
        return CHECKPOINT if self.treated is not None else self.arms[0]

    def every_arm(self) -> tuple[Arm, ...]:
        """The arm under test, then its controls."""
        found = [ARMS[name] for name in self.arms]
        if self.treated is not None:
            about = "The checkpoint under test, as it was given."
            found.insert(0, Arm(CHECKPOINT, about, "checkpoint", {"folder": self.treated}))
        return tuple(found)

    def arm(self, name: str) -> Arm:
        """One of :meth:`every_arm`."""
        return next(arm for arm in self.every_arm() if arm.name == name)

    def sweep(self) -> list[Trial]:
        """Trials of the sweep: arms with a choice to make."""
        return [
            Trial(arm.name, rate, self.seeds[0], True)
            for arm in self.every_arm()
            if arm.method not in ("frozen", "checkpoint")
            for rate in arm.sweep(self.rates)
        ]

    def final(self, best: Mapping[str, float]) -> list[Trial]:
        """Every seed at the best rate; once where nothing depends on the seed."""
        return [
            Trial(arm.name, best.get(arm.name, 0.0), seed, False)
            for arm in self.every_arm()
            for seed in (self.seeds[:1] if arm.method in ("frozen", "checkpoint") else self.seeds)
            if arm.name in best or arm.method in ("frozen", "checkpoint")
        ]

    def make_problem(self) -> Problem:
        """The problem, from plain data.

        Raises:
            InvalidInputError: plain data that is no problem, or pairs that cannot be split.
        """
        asked = dict(self.problem)
        kind = asked.pop("kind", None)
        if "shots" in asked:
            asked["shots"] = tuple(asked["shots"])
        if kind == "question":
            trained = [arm.name for arm in self.every_arm() if arm.trained]
            if trained:
                raise InvalidInputError(
                    f"{', '.join(trained)} would have to be trained, for which one relation is "
                    f"needed, found task {asked.get('task')!r}; name a relation, or no such arm"
                )
            return question(**asked)
        if kind == "relation":
            pairs, template = asked.pop("pairs", None), asked.pop("template", None)
            task: str | LabelledTask = asked.pop("task")
            if pairs is not None:
                shape = Template() if template is None else Template(template)
                task = LabelledTask(str(task), tuple((str(a), str(b)) for a, b in pairs), "", shape)
            elif template is not None:
                found = builtin_task(str(task), template=template)
                task = found if isinstance(found, LabelledTask) else str(task)
            return relation_problem(task, **asked)
        raise InvalidInputError(f"a problem of kind {kind!r} is unknown; use relation or question")

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        found = {name: getattr(self, name) for name in (f.name for f in dataclasses.fields(self))}
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in found.items()
        } | {"problem": dict(self.problem)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """The inverse of :meth:`to_dict`."""
        lists = ("arms", "seeds", "rates")
        given: dict[str, Any] = {
            key: tuple(value) if key in lists and value is not None else value
            for key, value in data.items()
        }
        return cls(**given)
