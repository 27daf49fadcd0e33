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
import hashlib
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import RunFolderError
from ed_interp.eval.steering.options import SweepOptions
from ed_interp.eval.steering.plan import Cell, direction_of, grid_of, selector_of
from ed_interp.eval.steering.result import SweepResult
from ed_interp.eval.steering.rows import SweepCell, SweepComparison
from ed_interp.eval.steering.samples import (
    Sample,
    check_samples,
    fingerprint_of,
    questions,
    samples_from_file,
)
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


@takes_options(SweepOptions)
def sweep(
    model: Any = None,
    direction: Direction | str | None = None,
    samples: Sequence[Sample] | str | None = None,
    *,
    neutral: Sequence[str] | str | None = None,
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
        options: All settings at once.
        out: Run folder to make; an interrupted sweep in it is resumed.
        overwrite: Replace the run in ``out``.
        progress: See :mod:`ed_interp.progress`.

    Raises:
        InvalidInputError: too few samples, a direction of another model, no neutral text, or a
            coefficient that overflows.
        RunFolderError: ``out`` exists, or holds an interrupted sweep of something else.
    """
    direction, tokens = direction_of(direction, options), selector_of(where)
    if isinstance(samples, (str, Path)):
        samples = samples_from_file(samples)
    if isinstance(neutral, (str, Path)):
        neutral = text_from_file(neutral).texts
    assert samples is not None
    assert neutral is not None
    check_samples(samples)
    hooked = options.load(model)
    direction.check(hooked)
    cells = grid_of(direction, options.coefficients, together=options.together)
    for cell in cells:
        for intervention in cell.interventions(tokens):
            intervention.check(hooked)
    subject = _Subject(hooked, direction, list(samples), neutral_rows(hooked, neutral), tokens)
    # An interrupted sweep of another direction or other samples must not be resumed, though their
    # names or files may be the same.
    record = {**options.to_dict(), "inputs": subject.fingerprints()}
    return keep(
        lambda work: _measured(subject, cells, options, work, progress),
        options=record,
        out=out,
        overwrite=overwrite,
        progress=progress,
    )


@dataclasses.dataclass(frozen=True)
class _Subject:
    """What a sweep is about, loaded and checked."""

    hooked: HookedModel
    direction: Direction
    samples: list[Sample]
    neutral: list[Ids]
    tokens: Selector

    def fingerprints(self) -> dict[str, Any]:
        """What the results depend on besides the settings, as plain data."""
        data = {
            "model": self.hooked.fingerprint,
            "direction": self.direction.provenance.to_dict(),
            "norms": self.direction.norm(),
            "samples": fingerprint_of(self.samples),
            "neutral": hashlib.sha256(json.dumps(self.neutral).encode()).hexdigest()[:16],
            "where": repr(self.tokens),
        }
        plain: dict[str, Any] = json.loads(json.dumps(data))  # as read back: lists for tuples
        return plain


def _measured(
    subject: _Subject,
    cells: Sequence[Cell],
    options: SweepOptions,
    work: Path | None,
    progress: Progress,
) -> SweepResult:
    hooked, samples, tokens = subject.hooked, subject.samples, subject.tokens
    order = random.Random(options.seed).sample(range(len(samples)), len(samples))
    half = len(samples) // 2
    choice = _Scores(hooked, [samples[row] for row in sorted(order[:half])])
    report = _Scores(hooked, [samples[row] for row in sorted(order[half:])])
    prompted = _Scores(hooked, [
        dataclasses.replace(sample, prompt=options.instruction + sample.prompt)
        for sample in report.samples
    ])  # fmt: skip
    kept = _Kept(work)
    with track(progress, "steering", len(cells) + 2) as advance:
        plain = kept.get("unsteered") or kept.put(
            "unsteered",
            {
                "scores": choice.under(()).tolist(),
                "perplexity": perplexity(hooked, subject.neutral),
            },
        )
        advance(1)
        rows = []
        for number, cell in enumerate(cells):
            numbers = kept.get(f"{number:04d}") or kept.put(
                f"{number:04d}",
                {
                    "scores": choice.under(cell.interventions(tokens)).tolist(),
                    "perplexity": _finite(
                        perplexity(hooked, subject.neutral, cell.interventions())
                    ),
                },
            )
            rows.append(_cell(cell, numbers, plain, options))
            advance(1)
        best = _best(rows)
        outcome: dict[str, Any] = {"comparisons": (), "score": None, "wrong_way": None}
        outcome |= {"wrong_way_low": None, "wrong_way_high": None}
        if best is not None:
            steered = report.under(cells[best].interventions(tokens))
            randoms = [
                report.under(cells[best].random(options.seed + turn).interventions(tokens))
                for turn in range(options.random_directions)
            ]
            controls = {
                "no steering": report.under(()),
                "random direction": torch.stack(randoms).mean(0),
                "prompt only": prompted.under(()),
            }
            outcome = _outcome(steered, controls, options)
        advance(1)
    return SweepResult(
        model=hooked.name,
        method=subject.direction.provenance.method,
        cells=tuple(rows),
        chosen=None if best is None else rows[best],
        samples=(len(choice.samples), len(report.samples)),
        budget=options.budget,
        perplexity=plain["perplexity"],
        **outcome,
    )


class _Scores:
    """The score of each of some samples, under interventions."""

    def __init__(self, hooked: HookedModel, samples: list[Sample]) -> None:
        self.hooked = hooked
        self.samples = samples
        wanted = [(sample.prompt, sample.wanted) for sample in samples]
        self._rows = [row for row, sample in enumerate(samples) if sample.unwanted is not None]
        unwanted = [(samples[row].prompt, samples[row].unwanted or "") for row in self._rows]
        self._questions = questions(hooked, wanted)
        # Not in one call: a text that tokenises badly would change how all others are cut.
        self._questions += questions(hooked, unwanted) if unwanted else []

    def under(self, interventions: Sequence[Intervention]) -> Float[Tensor, " sample"]:
        """Log p(wanted) - log p(unwanted), in nats."""
        logprob = answer(self.hooked, self._questions, interventions).logprob
        # First all wanted continuations, then the unwanted ones of the samples that have one.
        scores = logprob[: len(self.samples)].clone()
        scores[self._rows] -= logprob[len(self.samples) :]
        return scores


class _Kept:
    """Measured cells in a folder, each a file; nothing at all without one."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        if folder is not None:
            folder.mkdir(exist_ok=True)

    def get(self, name: str) -> dict[str, Any] | None:
        """What was kept under ``name``; None if nothing was."""
        if self._folder is None or not (self._folder / f"{name}.json").exists():
            return None
        file = self._folder / f"{name}.json"
        try:
            data: dict[str, Any] = json.loads(file.read_text("utf-8"))
        except ValueError as error:
            raise RunFolderError(f"{file} is damaged ({error}); remove it and resume") from error
        return data

    def put(self, name: str, data: dict[str, Any]) -> dict[str, Any]:
        """Keep ``data``, and return it."""
        if self._folder is not None:
            write_json(self._folder / f"{name}.json", data)
        return data


def _cell(
    cell: Cell, numbers: dict[str, Any], plain: dict[str, Any], options: SweepOptions
) -> SweepCell:
    change = np.asarray(numbers["scores"]) - np.asarray(plain["scores"])
    low, high = bootstrap_interval(change, **_statistics(options))
    steered = numbers["perplexity"]
    ratio = None if steered is None else steered / plain["perplexity"]
    return SweepCell(
        site=cell.label,
        coefficient=cell.coefficient,
        change=float(change.mean()),
        ci_low=float(low),
        ci_high=float(high),
        wrong_way=float((change < 0).mean()),
        perplexity_ratio=ratio,
        within_budget=ratio is not None and ratio <= options.budget,
    )


def _statistics(options: SweepOptions) -> dict[str, Any]:
    return {"level": options.level, "resamples": options.resamples, "seed": options.seed}


def _best(rows: Sequence[SweepCell]) -> int | None:
    allowed = [number for number, row in enumerate(rows) if row.within_budget]
    return max(allowed, key=lambda number: rows[number].change) if allowed else None


def _outcome(steered: Tensor, controls: dict[str, Tensor], options: SweepOptions) -> dict[str, Any]:
    tests = {
        name: paired_difference(steered.numpy(), control.numpy(), **_statistics(options))
        for name, control in controls.items()
    }
    adjusted = holm([float(row.p_value) for row in tests.values()])
    fell = int((steered < controls["no steering"]).sum())
    low, high = wilson_interval(fell, len(steered), level=options.level)
    return {
        "comparisons": tuple(
            SweepComparison(
                control=name,
                score=float(controls[name].mean()),
                difference=float(row.difference),
                ci_low=float(row.low),
                ci_high=float(row.high),
                p_value=float(row.p_value),
                p_holm=float(p_holm),
            )
            for (name, row), p_holm in zip(tests.items(), adjusted, strict=True)
        ),
        "score": float(steered.mean()),
        "wrong_way": fell / len(steered),
        "wrong_way_low": low,
        "wrong_way_high": high,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
