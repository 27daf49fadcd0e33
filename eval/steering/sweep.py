"""`sweep`: how strongly, and where, to steer: chosen on one half of the samples, told on the other.

    result = sweep(model, direction, samples, neutral=texts, instruction="Answer happily. ")
    result.verdict; result.plot(); result.save("RUN")

On the first half every site (or all at once) is tried at every coefficient; the greatest mean
change of the score whose perplexity on neutral text, steered at every token, stays within the
budget is chosen. On the second half it is compared, sample by sample, with no steering, with random
directions of the same length at the same place, and with an instruction in the prompt.

Cost: per cell one pass over half of the samples (two where continuations have several tokens) and
one over the neutral text; then a few passes over the other half. With ``folder`` every cell is
kept as it is measured, and an interrupted sweep goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
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

from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.eval.steering.plan import Cell, grid_of
from ed_interp.eval.steering.result import SweepCell, SweepComparison, SweepResult
from ed_interp.eval.steering.samples import Sample, check_samples, fingerprint_of, questions
from ed_interp.eval.steering.scoring import answer, neutral_rows, perplexity
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load
from ed_interp.progress import Progress, track
from ed_interp.records import write_json
from ed_interp.statistics import bootstrap_interval, holm, paired_difference, wilson_interval
from ed_interp.streams.direction import Direction
from ed_interp.streams.injection import Intervention
from ed_interp.streams.injection.where import Selector

COEFFICIENTS = (-2.0, -1.0, 0.5, 1.0, 2.0, 4.0)


def sweep(
    model: Any,
    direction: Direction,
    samples: Sequence[Sample],
    *,
    neutral: Sequence[str],
    instruction: str,
    coefficients: Sequence[float] = COEFFICIENTS,
    together: bool = False,
    where: Selector | None = None,
    budget: float = 1.1,
    random_directions: int = 5,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    folder: str | Path | None = None,
    progress: Progress = None,
) -> SweepResult:
    """Sweep a direction over places and strengths, against controls.

    Args:
        model: Anything :func:`ed_interp.load` takes.
        direction: Its sites are the places tried.
        samples: Prompts with a wanted and an unwanted continuation.
        neutral: Texts on which the model should stay as it is.
        instruction: Put before every prompt instead of steering: the control that asks nicely.
        coefficients: Tried at every place; 0 is always measured.
        together: Write at all sites of the direction at once, as function vectors need.
        where: Which tokens of a sample are steered; None is every one. Neutral text is always
            steered at every token, the hardest case.
        budget: Perplexity ratio that a cell may reach to be chosen.
        random_directions: Over which the random control is averaged.
        level: Of the intervals.
        resamples: Of the bootstrap over samples.
        seed: Of the halves, the random directions and the bootstrap.
        folder: Keep every cell there and resume from them.
        progress: See :mod:`ed_interp.progress`.

    Raises:
        InvalidInputError: too few samples, a direction of another model, no neutral text, an empty
            instruction, or a coefficient that overflows.
        RunFolderError: ``folder`` holds another sweep.
    """
    hooked = load(model)
    direction.check(hooked)
    check_samples(samples)
    if not instruction.strip():
        raise InvalidInputError("instruction='': the prompt-only control needs one, in words")
    if not (math.isfinite(budget) and budget >= 1):
        raise InvalidInputError(f"budget={budget}: a perplexity ratio of at least 1 is expected")
    if random_directions < 1:
        raise InvalidInputError(f"random_directions={random_directions}: at least 1 is expected")
    cells = grid_of(direction, coefficients, together=together)
    for cell in cells:
        for intervention in cell.interventions(where):
            intervention.check(hooked)
    neutral_ids = neutral_rows(hooked, neutral)
    order = random.Random(seed).sample(range(len(samples)), len(samples))
    half = len(samples) // 2
    choice = _Scores(hooked, [samples[row] for row in sorted(order[:half])])
    report = _Scores(hooked, [samples[row] for row in sorted(order[half:])])
    prompted = _Scores(hooked, [
        dataclasses.replace(sample, prompt=instruction + sample.prompt) for sample in report.samples
    ])  # fmt: skip
    settings: dict[str, Any] = {
        "model": hooked.fingerprint,
        "direction": direction.provenance.to_dict(),
        "norms": direction.norm(),
        "samples": fingerprint_of(samples),
        "neutral": len(neutral_ids),
        "instruction": instruction,
        "coefficients": [float(value) for value in coefficients],
        "together": together,
        "where": repr(where),
        "budget": budget,
        "random_directions": random_directions,
        "level": level,
        "resamples": resamples,
        "seed": seed,
    }
    settings = json.loads(json.dumps(settings))  # as they are read back: lists for tuples
    kept = _Kept(None if folder is None else Path(folder), settings)
    statistics = {"level": level, "resamples": resamples, "seed": seed}

    with track(progress, "steering", len(cells) + 2) as advance:
        plain = kept.get("unsteered") or {
            "scores": choice.under(()).tolist(),
            "perplexity": perplexity(hooked, neutral_ids),
        }
        kept.put("unsteered", plain)
        advance(1)
        rows = []
        for number, cell in enumerate(cells):
            found = kept.get(f"{number:04d}")
            if found is None:
                found = {
                    "scores": choice.under(cell.interventions(where)).tolist(),
                    "perplexity": _finite(perplexity(hooked, neutral_ids, cell.interventions())),
                }
                kept.put(f"{number:04d}", found)
            rows.append(_cell(cell, found, plain, budget, statistics))
            advance(1)
        best = _best(rows)
        outcome: dict[str, Any] = {"comparisons": (), "score": None, "wrong_way": None}
        outcome |= {"wrong_way_low": None, "wrong_way_high": None}
        if best is not None:
            steered = report.under(cells[best].interventions(where))
            controls = {
                "no steering": report.under(()),
                "random direction": torch.stack(
                    [
                        report.under(cells[best].random(seed + turn).interventions(where))
                        for turn in range(random_directions)
                    ]
                ).mean(0),
                "prompt only": prompted.under(()),
            }
            outcome = _outcome(steered, controls, statistics)
        advance(1)
    return SweepResult(
        model=hooked.name,
        method=direction.provenance.method,
        cells=tuple(rows),
        chosen=None if best is None else rows[best],
        samples=(len(choice.samples), len(report.samples)),
        budget=budget,
        perplexity=plain["perplexity"],
        settings=settings,
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
        self._asked = questions(hooked, wanted)
        # Not in one call: a text that tokenises badly would change how all others are cut.
        self._asked += questions(hooked, unwanted) if unwanted else []

    def under(self, interventions: Sequence[Intervention]) -> Float[Tensor, " sample"]:
        """Log p(wanted) - log p(unwanted), in nats."""
        found = answer(self.hooked, self._asked, interventions).logprob
        scores = found[: len(self.samples)].clone()
        scores[self._rows] -= found[len(self.samples) :]
        return scores


class _Kept:
    """Measured cells in a folder, each a file; nothing at all without one."""

    def __init__(self, folder: Path | None, settings: dict[str, Any]) -> None:
        self._folder = None if folder is None else folder / "cells"
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        known = self.get("request")
        if known is not None and known != settings:
            raise RunFolderError(
                f"{folder} holds a sweep of another direction, other samples or settings; use "
                "another folder or remove it"
            )
        self.put("request", settings)

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

    def put(self, name: str, data: dict[str, Any]) -> None:
        """Keep ``data``, unless it is there."""
        if self._folder is not None and not (self._folder / f"{name}.json").exists():
            write_json(self._folder / f"{name}.json", data)


def _cell(
    cell: Cell,
    found: dict[str, Any],
    plain: dict[str, Any],
    budget: float,
    statistics: dict[str, Any],
) -> SweepCell:
    change = np.asarray(found["scores"]) - np.asarray(plain["scores"])
    low, high = bootstrap_interval(change, **statistics)
    ratio = None if found["perplexity"] is None else found["perplexity"] / plain["perplexity"]
    return SweepCell(
        site=cell.label,
        coefficient=cell.coefficient,
        change=float(change.mean()),
        ci_low=float(low),
        ci_high=float(high),
        wrong_way=float((change < 0).mean()),
        perplexity_ratio=ratio,
        within_budget=ratio is not None and ratio <= budget,
    )


def _best(rows: Sequence[SweepCell]) -> int | None:
    allowed = [number for number, row in enumerate(rows) if row.within_budget]
    return max(allowed, key=lambda number: rows[number].change) if allowed else None


def _outcome(
    steered: Tensor, controls: dict[str, Tensor], statistics: dict[str, Any]
) -> dict[str, Any]:
    found = {
        name: paired_difference(steered.numpy(), control.numpy(), **statistics)
        for name, control in controls.items()
    }
    adjusted = holm([float(row.p_value) for row in found.values()])
    fell = int((steered < controls["no steering"]).sum())
    low, high = wilson_interval(fell, len(steered), level=statistics["level"])
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
            for (name, row), p_holm in zip(found.items(), adjusted, strict=True)
        ),
        "score": float(steered.mean()),
        "wrong_way": fell / len(steered),
        "wrong_way_low": low,
        "wrong_way_high": high,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
