"""Options of steering and of its evaluations. Imports nothing heavy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ed_interp.models.options import ModelOptions
from ed_interp.options import MEASURE, PROMPTS, Batched, OptionError, Options, Seeded, option
from ed_interp.probes.directions.options import SiteOptions

COEFFICIENTS = (-2.0, -1.0, 0.5, 1.0, 2.0, 4.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SteerOptions(ModelOptions, SiteOptions, Seeded):
    """A direction, and where it is added."""

    direction: Path = option(help="File that `steer find` wrote.", panel=PROMPTS)
    sites: tuple[str, ...] | None = SiteOptions.same("sites", shown="all of the direction's")
    # Text rather than a choice: in Python it is any selector, recorded by its name here.
    where: str = option("all", "Tokens to steer: all, prompt, last (of it) or generation.", MEASURE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ApplyOptions(SteerOptions):
    """How to continue prompts with and without a direction."""

    prompts: tuple[str, ...] = option(
        help=r"Text to continue; \n is a line break.", flag="--prompt", whole=True, panel=PROMPTS
    )
    coefficient: float = option(1.0, "Strength.", MEASURE)
    max_new_tokens: int = option(20, "Most tokens to generate.", MEASURE, flag="--tokens", min=1)
    temperature: float = option(0.0, "Sampling temperature; 0 is greedy.", MEASURE, min=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepOptions(SteerOptions, Batched):
    """How to choose strength and place, and what to compare with."""

    samples: Path = option(
        help="Columns prompt, wanted, unwanted: .jsonl, .json, .csv, .parquet.", panel=PROMPTS
    )
    neutral: Path = option(
        help="Text that should stay as likely: .txt, or a .json list.", panel=PROMPTS
    )
    instruction: str = option(
        help="Text before every prompt in the prompt-only control.", panel=PROMPTS
    )
    coefficients: tuple[float, ...] = option(
        COEFFICIENTS, "Strengths to try; 0 is always measured.", MEASURE
    )
    together: bool = option(False, "Write at all sites at once, as function vectors need.", MEASURE)
    budget: float = option(
        1.1, "Largest ratio of perplexity on --neutral to unsteered.", MEASURE, min=1
    )
    random_directions: int = option(
        5, "Random directions in the control.", MEASURE, flag="--randoms", min=1
    )
    level: float = option(0.95, "Confidence level of the intervals.", MEASURE, above=0, below=1)
    resamples: int = option(1000, "Number of bootstrap resamples.", MEASURE, min=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.instruction.strip():
            raise OptionError("instruction", "must be words: the prompt-only control needs one")
        if len(set(self.coefficients)) < len(self.coefficients):
            raise OptionError("coefficients", f"must be different, got {list(self.coefficients)}")
        if not any(self.coefficients):
            # No steering is always measured.
            raise OptionError("coefficients", "must hold at least one other than 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShowOptions(Options):
    """What to show."""

    file: Path = option(help="A direction, or the run folder of a sweep.", argument=True)
