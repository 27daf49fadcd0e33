"""`sweep`: how strongly and where to steer, chosen on one half of the samples, tested on the other.

    result = sweep(model, direction, samples, neutral=texts, instruction="Answer happily. ")
    result.verdict; result.plot(); result.save("RUN")

On the first half every site (or all at once) is tried at every coefficient; the greatest mean
change of the score whose perplexity on neutral text, steered at every token, stays within the
budget is chosen. On the second half it is compared, sample by sample, with no steering, with random
directions of the same length at the same place, and with an instruction in the prompt.

Cost: per cell one pass over half of the samples (two where continuations have several tokens) and
one over the neutral text; then a few passes over the other half. With ``out`` every cell is kept as
it is measured, and an interrupted sweep goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import RunFolderError
from ed_interp.eval.steering.options import SweepOptions
from ed_interp.eval.steering.plan import Cell, direction_of, grid_of, selector_of
from ed_interp.eval.steering.result import SweepResult, too_few
from ed_interp.eval.steering.rows import SweepCell, SweepComparison
from ed_interp.eval.steering.samples import Sample, check_samples, questions, samples_from_file
from ed_interp.eval.steering.scoring import answer, neutral_rows, perplexity
from ed_interp.models.hooked import HookedModel
from ed_interp.options import takes_options
from ed_interp.progress import Progress, track
from ed_interp.prompts.files import text_from_file
from ed_interp.prompts.tokens import Ids
from ed_interp.records.files import write_json
from ed_interp.results import keep
from ed_interp.statistics import bootstrap_interval, holm, paired_difference, wilson_interval
from ed_interp.streams.direction import Direction
from ed_interp.streams.injection import Intervention
from ed_interp.streams.injection.where import Selector

_OUTCOME = ("comparisons", "score", "wrong_way", "wrong_way_low", "wrong_way_high")


@takes_options(SweepOptions)
def sweep(
    model: Any = None,
    direction: Direction | str | Path | None = None,
    samples: Sequence[Sample] | str | Path | None = None,
    *,
    neutral: Sequence[str] | str | Path | None = None,
    where: Selector | str | None = None,
    options: SweepOptions,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = None,
) -> SweepResult:
    """Sweep a direction over places and strengths, against controls.

    Args:
        model: Anything :func:`ed_interp.load` takes.
        direction: A direction or a file of one; its sites are the places tried.
        samples: Prompts with a wanted and an unwanted continuation, or a file of them.
        neutral: Texts on which the model should stay as it is, or a file of them.
        where: Tokens of a sample to steer: a selector, or a name. Neutral text is always steered
            at every token, the hardest case.
        out: Run folder to make; an interrupted sweep in it is resumed.
        overwrite: Replace the run in ``out``.
        progress: See :mod:`ed_interp.progress`.

    Raises:
        InvalidInputError: too few samples, another model, or a coefficient that overflows.
        RunFolderError: ``out`` exists, or holds an interrupted sweep of something else.
    """
    direction, tokens = direction_of(direction, options), selector_of(where)
    if isinstance(samples, (str, Path)):
        samples = samples_from_file(samples)
    samples = list(samples or ())
    check_samples(samples)
    if isinstance(neutral, (str, Path)):
        neutral = text_from_file(neutral).texts
    hooked = options.load(model)
    direction.check(hooked)
    cells = grid_of(direction, options.coefficients, together=options.together)
    for cell in cells:
        for intervention in cell.interventions(tokens):
            # Refused now, not after an hour: a strength beyond the model's precision, say.
            intervention.check(hooked)
    texts = neutral_rows(hooked, neutral or ())
    order = random.Random(options.seed).sample(range(len(samples)), len(samples))
    halves = (order[: len(samples) // 2], order[len(samples) // 2 :])
    # Halves are drawn at random; within each, samples keep their order, as batches depend on it.
    choice, report = ([samples[row] for row in sorted(half)] for half in halves)
    if progress is True and (caution := too_few(len(report))):
        print(caution, file=sys.stderr)  # before the work: more samples may be at hand
    before = options.instruction
    prompted = [dataclasses.replace(sample, prompt=before + sample.prompt) for sample in report]
    size = options.batch_size
    scores = (_Scores(hooked, some, size) for some in (choice, report, prompted))
    plan = _Plan(hooked, direction, cells, tokens, texts, options, *scores)
    # An interrupted sweep of another direction or other samples must not be resumed, though their
    # names or files may be the same.
    inputs = {
        "model": hooked.fingerprint,
        "direction": direction.provenance.to_dict(),
        # A direction whose vectors were replaced may keep its provenance.
        "norms": direction.norm(),
        # In their order, on which the halves depend.
        "samples": _digits([dataclasses.astuple(sample) for sample in samples]),
        "neutral": _digits(texts),
        "where": repr(tokens),
    }
    record = {**options.to_dict(), "inputs": json.loads(json.dumps(inputs))}  # tuples as lists
    make = functools.partial(plan.measured, progress)
    return keep(make, options=record, out=out, overwrite=overwrite, progress=progress)


def _digits(data: Any) -> str:
    """Sixteen hexadecimal digits of plain data."""
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()[:16]


class _Scores:
    """The score of each of some samples, under interventions."""

    def __init__(self, hooked: HookedModel, samples: list[Sample], size: int | None) -> None:
        self.hooked, self.samples, self.size = hooked, samples, size
        wanted = [(sample.prompt, sample.wanted) for sample in samples]
        self._rows = [row for row, sample in enumerate(samples) if sample.unwanted is not None]
        unwanted = [(samples[row].prompt, samples[row].unwanted or "") for row in self._rows]
        self._questions = questions(hooked, wanted)
        # Not in one call: a text that tokenises badly would change how all others are cut.
        self._questions += questions(hooked, unwanted) if unwanted else []

    def under(self, interventions: Sequence[Intervention]) -> Float[Tensor, " sample"]:
        """Log p(wanted) - log p(unwanted), in nats."""
        logprob = answer(self.hooked, self._questions, interventions, self.size).logprob
        # First all wanted continuations, then the unwanted ones of the samples that have one.
        scores = logprob[: len(self.samples)].clone()
        scores[self._rows] -= logprob[len(self.samples) :]
        return scores


@dataclasses.dataclass(frozen=True)
class _Plan:
    """A sweep whose inputs are loaded and checked."""

    hooked: HookedModel
    direction: Direction
    cells: list[Cell]
    tokens: Selector
    neutral: list[Ids]
    options: SweepOptions
    choice: _Scores
    report: _Scores
    prompted: _Scores

    def measured(self, progress: Progress, work: Path | None) -> SweepResult:
        """Measure every cell, keeping each in ``work``, and compare the best with its controls."""
        with track(progress, "steering", len(self.cells) + 2) as advance:
            plain = _kept(work, "unsteered", self._numbers)
            advance(1)
            rows = []
            for number, cell in enumerate(self.cells):
                numbers = _kept(work, f"{number:04d}", functools.partial(self._numbers, cell))
                rows.append(self._row(cell, numbers, plain))
                advance(1)
            # However great its change: a cell that harms neutral text is never chosen.
            allowed = [number for number, row in enumerate(rows) if row.within_budget]
            best = max(allowed, key=lambda number: rows[number].change, default=None)
            outcome: dict[str, Any] = {**dict.fromkeys(_OUTCOME), "comparisons": ()}
            if best is not None:
                outcome = self._outcome(self.cells[best])
            advance(1)
        return SweepResult(
            model=self.hooked.name,
            method=self.direction.provenance.method,
            cells=tuple(rows),
            chosen=None if best is None else rows[best],
            samples=(len(self.choice.samples), len(self.report.samples)),
            budget=self.options.budget,
            perplexity=plain["perplexity"],
            **outcome,
        )

    def _numbers(self, cell: Cell | None = None) -> dict[str, Any]:
        """Scores of the samples to choose on, and perplexity; None if it is infinite."""
        scores = self.choice.under(() if cell is None else cell.interventions(self.tokens))
        everywhere = () if cell is None else cell.interventions()
        value = perplexity(self.hooked, self.neutral, everywhere, self.options.batch_size)
        return {"scores": scores.tolist(), "perplexity": value if math.isfinite(value) else None}

    def _row(self, cell: Cell, numbers: dict[str, Any], plain: dict[str, Any]) -> SweepCell:
        # Paired by sample: differences vary much less than the scores themselves.
        change = np.asarray(numbers["scores"]) - np.asarray(plain["scores"])
        low, high = map(float, bootstrap_interval(change, **self._statistics))
        steered = numbers["perplexity"]
        ratio = None if steered is None else steered / plain["perplexity"]
        return SweepCell(
            cell.label, cell.coefficient, float(change.mean()), low, high,
            wrong_way=float((change < 0).mean()), perplexity_ratio=ratio,
            within_budget=ratio is not None and ratio <= self.options.budget,
        )  # fmt: skip

    def _outcome(self, cell: Cell) -> dict[str, Any]:
        """The cell on the other half of the samples, compared with each control."""
        steered, plain = self.report.under(cell.interventions(self.tokens)), self.report.under(())
        # Averaged sample by sample, so that this control is paired like the others.
        randoms = [
            self.report.under(cell.random(self.options.seed + turn).interventions(self.tokens))
            for turn in range(self.options.random_directions)
        ]
        controls = {
            "no steering": plain,
            "random direction": torch.stack(randoms).mean(0),
            "prompt only": self.prompted.under(()),
        }
        scores = [control.numpy() for control in controls.values()]
        tests = [paired_difference(steered.numpy(), one, **self._statistics) for one in scores]
        adjusted = holm([float(test.p_value) for test in tests])
        fell = int((steered < plain).sum())
        low, high = wilson_interval(fell, len(steered), level=self.options.level)
        # A test is difference, both ends of its interval and p, in the order of the fields.
        comparisons = [
            SweepComparison(name, *map(float, (control.mean(), *test, p_holm)))
            for (name, control), test, p_holm in zip(controls.items(), tests, adjusted, strict=True)
        ]
        numbers = (tuple(comparisons), float(steered.mean()), fell / len(steered), low, high)
        return dict(zip(_OUTCOME, numbers, strict=True))

    @property
    def _statistics(self) -> dict[str, Any]:
        return {name: getattr(self.options, name) for name in ("level", "resamples", "seed")}


def _kept(work: Path | None, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``make`` returns; with a folder, kept in it as a file and read back from there."""
    if work is None:
        return make()
    file = work / f"{name}.json"
    if not file.exists():
        work.mkdir(exist_ok=True)
        write_json(file, make())
    try:
        data: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise RunFolderError(f"{file} is damaged ({error}); remove it and resume") from error
    return data
