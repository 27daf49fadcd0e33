"""One trial: train an arm with one learning rate and seed, and compare it with the frozen model.

Everything a trial found is one :class:`TrialRow`, written to a file of its own when it is done, so
that what is finished stays, whatever happens later. Cost: the training, and one comparison.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch

from ed_interp.errors import EdInterpError, InvalidInputError
from ed_interp.eval.study.arms import Arm, adapter_options, shuffled_time
from ed_interp.eval.compare.control import Panel
from ed_interp.eval.compare.files import plain, read_as, write_comparison
from ed_interp.eval.study.plan import Plan, Trial
from ed_interp.eval.study.problems import Problem
from ed_interp.eval.compare.questions import neutral_texts
from ed_interp.eval.compare.reading import read_prompts
from ed_interp.eval.compare.result import Comparison
from ed_interp.eval.compare.subjects import Subject, open_subject
from ed_interp.models.load import load
from ed_interp.prompts.population import draw
from ed_interp.prompts.tasks import LabelledTask
from ed_interp.prompts.tokens import tokenize
from ed_interp.records import write_json
from ed_interp.streams.capture import capture
from ed_interp.models.sites import resid_post

Keep = Literal["all", "tested", "rows"]
"""Which comparisons stay: every one, that of the arm under test at its first seed, or none."""


@dataclasses.dataclass(frozen=True, slots=True)
class TrialRow:
    """What one trial gave. Lists over shots are in the order of ``shots``."""

    arm: str
    rate: float
    """Learning rate; for a direction, its length over that of the stream's states."""
    seed: int
    sweep: bool
    status: str
    """``done`` or ``failed``."""
    error: str = ""
    """Why it failed."""
    attempt: int = 1
    """How often it was started."""
    eval_loss: float | None = None
    """Nats per token on held-out training examples: what the rate is chosen by."""
    steps: int | None = None
    seconds: float | None = None
    """Wall time of the training."""
    parameters: int | None = None
    """Trained."""
    neutral: bool | None = None
    """The before-state is the identity, bit for bit."""
    shots: tuple[int, ...] = ()
    accuracy: tuple[float, ...] = ()
    accuracy_change: tuple[float, ...] = ()
    """Against the frozen model, by prompt."""
    logprob: tuple[float, ...] = ()
    logprob_change: tuple[float, ...] = ()
    p_holm: tuple[float, ...] = ()
    """Of the change of the log-probability, corrected over the whole comparison."""
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


class Bench:
    """The model and questions of a plan, loaded when first needed and used by every trial."""

    def __init__(self, plan: Plan, folder: Path, *, keep: Keep = "all") -> None:
        self.plan = plan
        self.folder = folder
        self.keep = keep

    @cached_property
    def problem(self) -> Problem:
        """What is trained on and asked."""
        return self.plan.make_problem()

    @cached_property
    def base(self) -> Subject:
        """The frozen model."""
        return open_subject(load(self.plan.model, device=self.plan.device))

    @cached_property
    def panel(self) -> Panel:
        """The frozen model's readings."""
        problem, plan = self.problem, self.plan
        return Panel.open(
            self.base,
            on=problem.on,
            shots=problem.shots,
            prompts=plan.prompts,
            watch_prompts=plan.watch_prompts,
            texts=neutral_texts(documents=plan.texts),
            emergence=plan.emergence,
            permutations=19999,
        )

    def run(self, trial: Trial) -> TrialRow:
        """Train and compare; a failure is a row too, so that other trials go on."""
        file = self.folder / "trials" / f"{trial.name}.json"
        before = read_row(file)
        attempt = 1 if before is None else before.attempt + 1
        try:
            row = dataclasses.replace(self._row(trial), attempt=attempt)
        except (EdInterpError, RuntimeError, ValueError, LookupError, OSError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
            row = TrialRow(
                trial.arm, trial.rate, trial.seed, trial.sweep, "failed", reason, attempt
            )
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, plain(row))
        return row

    def _row(self, trial: Trial) -> TrialRow:
        arm = self.plan.arm(trial.arm)
        row = TrialRow(trial.arm, trial.rate, trial.seed, trial.sweep, "done")
        subject, training = self._made(arm, trial)
        row = dataclasses.replace(row, **training)
        if trial.sweep:
            return row
        first = trial.arm == self.plan.tested and trial.seed == self.plan.seeds[0]
        found = self.panel.compare(
            subject,
            require_identity=self.plan.require_identity,
            session=self._session(subject) if first else None,
            decode_rounds=self.plan.decode_rounds,
            training_seconds=row.seconds,
        )
        if self.keep == "all" or (self.keep == "tested" and first):
            target = self.folder / "comparisons" / trial.name
            target.mkdir(parents=True, exist_ok=True)
            write_comparison(found, target, tables=self.keep == "all")
        return dataclasses.replace(row, **_found(found))

    def _session(self, subject: Subject) -> LabelledTask | None:
        """The task of sessions with feedback, where the subject has nodes that could remember."""
        settings = subject.details.get("adapter", {})
        feeds = settings.get("n_nodes", 0) and settings.get("feedback") != "none"
        asked = self.problem.on
        return asked if feeds and isinstance(asked, LabelledTask) else None

    def _made(self, arm: Arm, trial: Trial) -> tuple[Subject, dict[str, Any]]:
        """The subject of a trial, and what is known of its training."""
        if arm.method == "frozen":
            return dataclasses.replace(self.base, name=arm.name), {"parameters": 0}
        if arm.method == "direction":
            return self._directed(trial)
        if arm.method == "checkpoint":
            options = {"device": self.plan.device} if self.plan.device else {}
            return open_subject(str(arm.options["folder"]), name=arm.name, **options), {}
        return self._trained(arm, trial)

    def _trained(self, arm: Arm, trial: Trial) -> tuple[Subject, dict[str, Any]]:
        from ed_interp.adapters.training import TrainingOptions, train

        folder = self.folder / "adapters" / f"{arm.name}-rate{trial.rate:g}-seed{trial.seed}"
        clock = folder.with_name(f"{folder.name}.seconds.json")
        options = TrainingOptions(
            max_steps=self.plan.steps,
            batch_size=self.plan.batch_size,
            lr_lora=trial.rate,
            lr_nodes=trial.rate,
            eval_share=0.2,
            seed=trial.seed,
        )
        scope: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
        if arm.shuffled_time:
            scope = lambda: shuffled_time(trial.seed)  # noqa: E731
        if not folder.exists():
            start = time.perf_counter()
            with scope():
                train(
                    self.base.hooked,
                    self.problem.examples,
                    out=folder,
                    method=arm.method,
                    adapter=adapter_options(arm, self.base.model),
                    options=options,
                )
            write_json(clock, {"seconds": time.perf_counter() - start})
        from ed_interp.adapters.training import TrainedAdapter
        from ed_interp.adapters.training.methods import IMPORTS

        if arm.method in IMPORTS:  # PEFT knows it from then on, also where training was skipped.
            import_module(IMPORTS[arm.method])
        done = TrainedAdapter.load(folder)
        subject = open_subject(_adapted(self.base, folder), name=arm.name)
        seconds = json.loads(clock.read_text("utf-8"))["seconds"] if clock.exists() else None
        return dataclasses.replace(subject, scope=scope, folder=folder), {
            "eval_loss": done.eval_loss,
            "steps": done.steps,
            "seconds": seconds,
            "parameters": int(done.record["parameters"]["trained"]),
        }

    def _directed(self, trial: Trial) -> tuple[Subject, dict[str, Any]]:
        """A random direction at the middle of the model, as long as ``rate`` of the stream."""
        from ed_interp.streams.injection import Add, inject

        hooked = self.base.hooked
        site = resid_post(max(0, hooked.n_layers // 2 - 1))
        known = self.problem.known or self.problem.on
        shots = self.problem.shots[:1]
        population = tokenize(draw(known, prompts=32, shots=shots), hooked.tokenizer)
        states = capture(hooked, population, sites=[site], answers=False)[site]
        generator = torch.Generator().manual_seed(trial.seed)
        vector = torch.randn(hooked.d_model, generator=generator)
        length = trial.rate * float(states.norm(dim=-1).mean())
        vector *= length / float(vector.norm())
        subject = Subject(
            trial.arm,
            "steered",
            hooked,
            scope=lambda: inject(hooked, Add(vector, site, coefficient=1.0), strict=False),
            details={"site": site.name, "length": length, "seed": trial.seed},
        )
        found = read_prompts(subject, population, emergence=False)
        loss = None if found.logprob is None else -float(found.logprob.mean())
        return subject, {"eval_loss": loss, "parameters": 0}


def read_row(file: Path) -> TrialRow | None:
    """A trial's file; None if there is none or it cannot be read, and the trial is to be run."""
    try:
        return read_as(TrialRow, json.loads(file.read_text("utf-8")), "trial")  # type: ignore[no-any-return]
    except (OSError, ValueError, InvalidInputError):
        return None


def _adapted(base: Subject, folder: Path) -> Any:
    """The adapter of ``folder`` on a copy of the base model, under hooks."""
    import copy
    import warnings

    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out")
        model = PeftModel.from_pretrained(copy.deepcopy(base.model), str(folder)).eval()
    return load(model, tokenizer=base.hooked.tokenizer)


def _found(comparison: Comparison) -> dict[str, Any]:
    """The fields of a row that a comparison gives."""
    accuracy = comparison.effect("behaviour", "accuracy")
    logprob = comparison.effect("behaviour", "logprob")
    emergence = comparison.effect("emergence", "emergence")
    text, cost, identity = comparison.forgetting, comparison.cost, comparison.identity
    row: dict[str, Any] = {
        "shots": tuple(int(effect.shots or 0) for effect in accuracy),
        "accuracy": tuple(effect.treated for effect in accuracy),
        "accuracy_change": tuple(effect.difference for effect in accuracy),
        "logprob": tuple(effect.treated for effect in logprob),
        "logprob_change": tuple(effect.difference for effect in logprob),
        "p_holm": tuple(effect.p_holm for effect in logprob),
        "harmed": comparison.harmed(),
        "neutral": None if identity is None else identity.neutral,
    }
    if text is not None:
        row |= {"forgetting": text.increase, "divergence": text.divergence_mean}
        row |= {"divergence_p99": text.divergence_p99}
    if emergence:
        largest = max(emergence, key=lambda effect: abs(effect.difference))
        row |= {"emergence_change": largest.difference, "emergence_p": largest.p_holm}
        row |= {"emergence_where": f"{largest.name}, {largest.shots} shots"}
    if cost is not None:
        row |= {"checkpoint_bytes": cost.checkpoint_bytes, "decode_ratio": cost.decode_ratio}
        row |= {"peak_bytes": cost.peak_bytes_treated}
    relations = comparison.effect("relation", "logprob")
    if relations:
        lowest = min(relations, key=lambda effect: effect.difference)
        row |= {"worst": lowest.name, "worst_change": lowest.difference}
    return row
