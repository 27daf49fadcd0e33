"""Settings of a study: plain data from which every trial can be made again, anywhere.

A trial is one arm at one learning rate and one seed, trained and compared with the frozen model.
The sweep comes first (every arm, every rate, the first seed; judged by the loss on held-out
training examples, never on the prompts of the comparison), then every seed at the arm's best rate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from ed_interp.eval.study.arms import ARMS, CONTROLS, arms_of, sweep_of
from ed_interp.eval.study.rows import Arm, Trial
from ed_interp.models.options import ModelOptions
from ed_interp.options import MEASURE, MODEL, OUTPUT, PROMPTS, TRAIN, OptionError, Seeded, option
from ed_interp.prompts.options import SHOTS, PromptOptions

CHECKPOINT = "treated"
"""Name of the arm that is a checkpoint of the user's."""
Keep = Literal["all", "tested", "rows"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyOptions(ModelOptions, PromptOptions, Seeded):
    """Arms, what they are trained on, and how they are compared."""

    default_task: ClassVar[str] = "country-capital"

    treated: str = option(
        "bias-injection", "Folder of an adapter, or the name of an arm to train.", MODEL
    )
    controls: tuple[str, ...] = option(
        ("all",), f"Arms to compare with: {', '.join(CONTROLS)}; all, or none.", MODEL
    )
    task: str | None = PromptOptions.same("task", shown=default_task)
    shots: tuple[int, ...] = option((0, 1, 2, 4), SHOTS, PROMPTS, min=0)
    prompts: int = option(100, "Number of prompts to sample.", PROMPTS, min=2)
    watch_prompts: int = option(
        24, "Prompts of every other relation, where side effects are looked for.", PROMPTS, min=2
    )
    texts: int = option(40, "Number of neutral texts, for forgetting.", PROMPTS, min=1)
    emergence: bool = option(True, "Also compare E per block.", MEASURE)
    decode_rounds: int = option(5, "Rounds of timed decoding; 0 leaves it out.", MEASURE, min=0)
    allow_non_neutral: bool = option(
        False, "Also compare an adapter that changes the model before it is trained.", MEASURE
    )
    held_out: float = option(
        0.3,
        "Share of the task's inputs that is prompted and not trained on.",
        TRAIN,
        above=0,
        below=1,
    )
    seeds: int = option(5, "Number of seeds per arm, counted from --seed.", TRAIN, min=1)
    rates: tuple[float, ...] | None = option(
        None, "Learning rates of the sweep.", TRAIN, shown="0.001,0.003,0.01", above=0
    )
    steps: int = option(60, "Training steps.", TRAIN, min=2)
    batch_size: int = option(16, "Examples per training step.", TRAIN, min=2)
    keep: Keep = option(
        "all",
        "Comparisons and adapters to keep: all, only the comparison of the arm under test "
        "at its first seed, or only the rows.",
        OUTPUT,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        # Comma-separated nothing is a slip of the keyboard; no controls at all must be meant.
        if not self.controls:
            raise OptionError("controls", "must name arms, all or none, got nothing")
        if self.seed + self.seeds > 2**32:
            # Numpy, which the trainer seeds, takes no larger one.
            most = 2**32 - self.seeds + 1
            raise OptionError("seed", f"must be less than {most}, got {self.seed}")
        if self.rates == ():
            raise OptionError("rates", "must hold one or more learning rates, got none")
        if self.controls not in (("all",), ("none",)):
            arms_of(self.controls)  # all and none stand alone; any other name must be an arm

    @property
    def checkpoint(self) -> Path | None:
        """The folder of the adapter under test; None if it is an arm to train."""
        return None if self.treated in ARMS else Path(self.treated).expanduser().resolve()

    @property
    def tested(self) -> str:
        """Name of the arm under test."""
        return self.treated if self.checkpoint is None else CHECKPOINT

    @property
    def every_seed(self) -> range:
        """The seeds of the trainings."""
        return range(self.seed, self.seed + self.seeds)

    def arms(self) -> tuple[Arm, ...]:
        """The arm under test, the frozen model, and the controls."""
        # The frozen model is always there: every arm is compared with it prompt by prompt.
        chosen = {"all": CONTROLS, "none": ()}.get(self.controls[0], self.controls)
        if self.checkpoint is None:
            return arms_of([self.treated, "frozen", *chosen])
        about = "The checkpoint under test, as it was given."
        given = Arm(CHECKPOINT, about, "checkpoint", {"folder": str(self.checkpoint)})
        return (given, *arms_of(["frozen", *chosen]))

    def arm(self, name: str) -> Arm:
        """One of :meth:`arms`."""
        return next(arm for arm in self.arms() if arm.name == name)

    def sweep(self) -> list[Trial]:
        """Trials of the sweep: arms with a choice to make, at the first seed."""
        # At one seed: a sweep over seeds would cost as much as the study.
        return [
            Trial(arm.name, rate, self.seed, True)
            for arm in self.arms()
            if not arm.fixed
            for rate in sweep_of(arm, self.rates)
        ]

    def final(self, best: Mapping[str, float]) -> list[Trial]:
        """Every seed at the best rate; one trial if nothing depends on the seed."""
        return [
            Trial(arm.name, best.get(arm.name, 0.0), seed, False)
            for arm in self.arms()
            if arm.fixed or arm.name in best
            for seed in (self.every_seed[:1] if arm.fixed else self.every_seed)
        ]
