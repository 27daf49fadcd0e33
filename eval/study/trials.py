"""One trial: train an arm with one learning rate and seed, and compare it with the frozen model.

The outcome of a trial is one :class:`TrialRow`, written to a file of its own when it is done, so
that what is finished stays, whatever happens later. Under ``accelerate launch`` each process runs
``python -m ed_interp.eval.study.trials WORK RANK/COUNT`` for its share of the trials. Cost: the
training, and one comparison.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import json
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ed_interp.errors import EdInterpError
from ed_interp.eval.compare.control import Panel, open_panel
from ed_interp.eval.compare.cost import adapter_state
from ed_interp.eval.compare.reading import read_prompts
from ed_interp.eval.compare.result import Comparison
from ed_interp.eval.compare.subjects import Subject, open_subject
from ed_interp.eval.study.arms import adapter_options, shuffled_time
from ed_interp.eval.study.options import StudyOptions
from ed_interp.eval.study.problems import Problem, make_problem
from ed_interp.eval.study.rows import Arm, Trial, TrialRow
from ed_interp.models.load import load
from ed_interp.models.sites import resid_post
from ed_interp.prompts.population import draw
from ed_interp.prompts.tasks import LabelledTask
from ed_interp.prompts.tokens import tokenize
from ed_interp.records import write_json
from ed_interp.streams.capture import capture


@dataclasses.dataclass(frozen=True)
class Bench:
    """The frozen model and the problem of a study, used by every trial."""

    options: StudyOptions
    problem: Problem
    base: Subject
    """The frozen model."""
    panel: Callable[[], Panel]
    """The frozen model, read on the first call."""
    work: Path
    """Folder of files that are needed until the study is done; its parent is the run folder."""

    def row(self, trial: Trial) -> TrialRow | None:
        """The row of a finished trial; None if it has none yet, or one that cannot be read."""
        import pydantic

        try:
            text = self._file(trial).read_text("utf-8")
            return pydantic.TypeAdapter(TrialRow).validate_json(text, strict=True)
        except (OSError, ValueError):  # pydantic's errors are ValueErrors
            return None

    def run(self, trial: Trial) -> TrialRow:
        """Train and compare; a failure is a row too, so that other trials go on."""
        before, file = self.row(trial), self._file(trial)
        attempt = 1 if before is None else before.attempt + 1
        file.parent.mkdir(parents=True, exist_ok=True)
        # Errors of one trial (an unstable rate, a full accelerator) must not cost the others.
        try:
            row = dataclasses.replace(self._row(trial), attempt=attempt)
            write_json(file, dataclasses.asdict(row))  # refuses a loss that is NaN
        except (EdInterpError, RuntimeError, ValueError, LookupError, OSError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
            row = _row_of(trial, status="failed", error=reason, attempt=attempt)
            write_json(file, dataclasses.asdict(row))
        return row

    def _file(self, trial: Trial) -> Path:
        return self.work / "trials" / f"{trial.name}.json"

    def _row(self, trial: Trial) -> TrialRow:
        options = self.options
        subject, training = self._made(options.arm(trial.arm), trial)
        row = _row_of(trial, status="done", **training)
        if trial.sweep:
            return row
        # Sessions with feedback take long and are the same question at every seed. Adapters without
        # nodes carry nothing from one call to the next.
        first = trial.arm == options.tested and trial.seed == options.seed
        config, on = subject.details.get("adapter", {}), self.problem.on
        feeds = config.get("n_nodes", 0) and config.get("feedback") != "none"
        session = on if first and feeds and isinstance(on, LabelledTask) else None
        panel = self.panel()
        comparison = panel.compare(subject, session=session, training_seconds=row.seconds)
        if options.keep == "all" or (options.keep == "tested" and first):
            folder = self.work.parent / "comparisons" / trial.name
            folder.mkdir(parents=True, exist_ok=True)
            # Without pages: each would weigh 5 MB, and the study has one of its own.
            comparison.write_record(folder)
        return dataclasses.replace(row, **_outcome(comparison))

    def _made(self, arm: Arm, trial: Trial) -> tuple[Subject, dict[str, Any]]:
        """The subject of a trial, and what is known of its training."""
        if arm.method == "frozen":
            return dataclasses.replace(self.base, name=arm.name), {"parameters": 0}
        if arm.method == "direction":
            return self._directed(trial)
        if arm.method == "checkpoint":
            options = {"device": self.options.device, "dtype": self.options.dtype}
            subject = open_subject(str(arm.options["folder"]), name=arm.name, **options)
            state = adapter_state(subject) or {}
            return subject, {"parameters": sum(tensor.numel() for tensor in state.values())}
        return self._trained(arm, trial)

    def _trained(self, arm: Arm, trial: Trial) -> tuple[Subject, dict[str, Any]]:
        from peft import PeftModel

        from ed_interp.adapters.training import TrainedAdapter, train
        from ed_interp.adapters.training.methods import IMPORTS

        kept = self.work.parent if self.options.keep == "all" else self.work
        folder = kept / "adapters" / trial.adapter
        clock = self.work / f"{trial.adapter}.seconds.json"
        scope: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
        if arm.shuffled_time:
            scope = functools.partial(shuffled_time, trial.seed)
        # The sweep's training at the best rate and first seed is the final one too.
        if not folder.exists():
            start = time.perf_counter()
            with scope():
                train(
                    self.base.hooked,
                    self.problem.examples,
                    out=folder,
                    method=arm.method,
                    adapter=adapter_options(arm, self.base.model),
                    max_steps=self.options.steps,
                    batch_size=self.options.batch_size,
                    lr_lora=trial.rate,
                    lr_nodes=trial.rate,
                    eval_share=0.2,
                    seed=trial.seed,
                )
            write_json(clock, {"seconds": time.perf_counter() - start})
        if arm.method in IMPORTS:
            # PEFT knows the method from then on, also if a resumed run skipped the training.
            import_module(IMPORTS[arm.method])
        done = TrainedAdapter.load(folder)
        # On a copy: PEFT would put the layers of the adapter into the frozen model itself.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="fan_in_fan_out")
            model = PeftModel.from_pretrained(copy.deepcopy(self.base.model), str(folder)).eval()
        hooked = load(model, tokenizer=self.base.hooked.tokenizer)
        subject = open_subject(hooked, name=arm.name)
        seconds = json.loads(clock.read_text("utf-8"))["seconds"] if clock.exists() else None
        known = {"eval_loss": done.eval_loss, "steps": done.steps, "seconds": seconds}
        known["parameters"] = done.parameters["trained"]
        return dataclasses.replace(subject, scope=scope, folder=folder), known

    def _directed(self, trial: Trial) -> tuple[Subject, dict[str, Any]]:
        """A random direction at the middle of the model, as long as ``rate`` of the stream."""
        from ed_interp.streams.injection import Add, inject

        hooked = self.base.hooked
        site = resid_post(max(0, hooked.n_layers // 2 - 1))
        # Chosen on training pairs, as the rates of the trained arms are.
        known = self.problem.known or self.problem.on
        population = tokenize(
            draw(known, prompts=32, shots=self.problem.shots[:1]), hooked.tokenizer
        )
        states = capture(hooked, population, sites=[site], answers=False)[site]
        generator = torch.Generator().manual_seed(trial.seed)
        vector = torch.randn(hooked.d_model, generator=generator)
        length = trial.rate * float(states.norm(dim=-1).mean())
        # Of one length for every seed, so that arms differ in direction alone.
        vector *= length / float(vector.norm())
        subject = Subject(
            trial.arm,
            "steered",
            hooked,
            scope=lambda: inject(hooked, Add(vector, site, coefficient=1.0), strict=False),
            details={"site": site.name, "length": length, "seed": trial.seed},
        )
        reading = read_prompts(subject, population, emergence=False)
        loss = None if reading.logprob is None else -float(reading.logprob.mean())
        return subject, {"eval_loss": loss, "parameters": 0}


def control_of(options: StudyOptions, problem: Problem, base: Subject) -> Callable[[], Panel]:
    """The frozen model over the prompts and texts of the study, read on the first call."""
    same = ("prompts", "watch_prompts", "texts", "emergence", "decode_rounds", "device", "dtype")
    settings = {name: getattr(options, name) for name in (*same, "seed")}
    settings |= {"shots": problem.shots, "require_identity": not options.allow_non_neutral}
    return functools.cache(lambda: open_panel(base, on=problem.on, permutations=19999, **settings))


def _row_of(trial: Trial, **fields: Any) -> TrialRow:
    return TrialRow(trial.arm, trial.rate, trial.seed, trial.sweep, **fields)


def _outcome(comparison: Comparison) -> dict[str, Any]:
    """The fields of a row that a comparison fills."""
    accuracy = comparison.effect("behaviour", "accuracy")
    logprob = comparison.effect("behaviour", "logprob")
    cost, identity = comparison.cost, comparison.identity
    known = {field.name for field in dataclasses.fields(TrialRow)}
    row = {name: value for name, value in comparison.summary().items() if name in known}
    for name, effects in (("accuracy", accuracy), ("logprob", logprob)):
        row[name] = tuple(effect.treated for effect in effects)
        row[f"{name}_change"] = tuple(effect.difference for effect in effects)
    row |= {
        "shots": tuple(int(effect.shots or 0) for effect in accuracy),
        "p_holm": tuple(effect.p_holm for effect in logprob),
        "harmed": comparison.harmed(),
        "neutral": None if identity is None else identity.neutral,
    }
    if cost is not None:
        row |= {"checkpoint_bytes": cost.checkpoint_bytes, "peak_bytes": cost.peak_bytes_treated}
    relations = comparison.effect("relation", "logprob")
    if relations:
        lowest = min(relations, key=lambda effect: effect.difference)
        row |= {"worst": lowest.name, "worst_change": lowest.difference}
    return row


def main(work: str, share: str) -> None:
    """Run every ``COUNT``-th pending trial of a run folder that is not done, in this process."""
    rank, count = (int(part) for part in share.split("/"))
    folder = Path(work)
    plan = json.loads((folder / "plan.json").read_text("utf-8"))
    options = StudyOptions.from_dict(plan["options"])
    problem = make_problem(options.make_task(), options)
    base = open_subject(options.load())
    bench = Bench(options, problem, base, control_of(options, problem, base), folder)
    # Every COUNT-th: neighbours are of one arm, so that all processes get some of the slow ones.
    for entry in json.loads((folder / "pending.json").read_text("utf-8"))[rank::count]:
        row = bench.row(Trial(**entry))
        if row is None or row.status != "done":
            bench.run(Trial(**entry))


if __name__ == "__main__":
    main(*sys.argv[1:])
