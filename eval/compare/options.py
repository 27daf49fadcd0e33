"""Settings of a comparison of two models. Nothing heavy is imported."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from ed_interp.models.options import DEFAULT_MODEL
from ed_interp.options import MEASURE, MODEL, PROMPTS, RUNNING, Batched, OptionError, Seeded, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inference(Seeded):
    """How effects are tested."""

    level: float = option(
        0.95, help="Confidence level of the intervals.", panel=MEASURE, above=0, below=1
    )
    resamples: int = option(1000, help="Number of bootstrap resamples.", panel=MEASURE, min=1)
    permutations: int = option(
        9999,
        help="Sign patterns per test; more are used if the correction needs them.",
        panel=MEASURE,
        min=1,
    )

    @property
    def resampling(self) -> dict[str, Any]:
        """Arguments of every bootstrap, so that all share their resamples."""
        return {"level": self.level, "resamples": self.resamples, "seed": self.seed}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareOptions(Inference, Batched):
    """Two models, the prompts and texts that both get, and what is measured on them."""

    control: str = option(
        DEFAULT_MODEL, help="Control: bundled model, hub id, model or adapter folder.", panel=MODEL
    )
    treated: str | None = option(
        None, help="Model to compare with the control, of the same tokenizer.", panel=MODEL
    )
    tokenizer: str | None = option(
        None, help="Tokenizer to use instead of the model's.", panel=MODEL
    )
    device: str | None = option(
        None, help="Device: cpu, cuda, cuda:1 or mps.", panel=RUNNING, shown="the best available"
    )
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = option(
        "float32", help="Precision of the model; auto keeps that of its files.", panel=RUNNING
    )
    # `on`, `watch` and `texts` may be live objects, which the options record by name or in full.
    on: Any = option(
        "mixed-country",
        help="Task: a name, a task, a population, or (input, output) pairs.",
        panel=PROMPTS,
    )
    shots: tuple[int, ...] | None = option(
        None, help="Numbers of demonstrations.", panel=PROMPTS, shown="0-8; 1-8 for lists", min=0
    )
    prompts: int = option(200, help="Number of prompts of the task.", panel=PROMPTS, min=2)
    template: str | None = option(
        None, help="Text of a pair, with {input} and {output}.", panel=PROMPTS
    )
    watch: Any = option(
        "all",
        help="Relations to check for side effects: names, tasks, None, or all built-in ones.",
        panel=PROMPTS,
    )
    watch_prompts: int = option(24, help="Prompts per watched relation.", panel=PROMPTS, min=2)
    watch_shots: tuple[int, ...] = option(
        (1, 4), help="Numbers of demonstrations of the watched relations.", panel=PROMPTS, min=0
    )
    texts: int | tuple[str, ...] = option(
        60, help="Neutral texts for forgetting, or how many to generate; 0 for none.", panel=PROMPTS
    )
    text_tokens: int = option(128, help="Tokens per window of neutral text.", panel=PROMPTS, min=2)
    emergence: bool = option(True, help="Also compare E per block.", panel=MEASURE)
    cost: bool = option(True, help="Also measure parameters, memory and speed.", panel=MEASURE)
    decode_rounds: int = option(
        5, help="Rounds of timed decoding; 0 leaves it out.", panel=MEASURE, min=0
    )
    session: str | None = option(
        None,
        help="Task of sessions with feedback, for a bias-injection adapter with feedback nodes.",
        panel=MEASURE,
    )
    require_identity: bool = option(
        True, help="Refuse an adapter that changes the model before training.", panel=MEASURE
    )
    samples: bool = option(True, help="Keep the scores of every prompt.", panel=RUNNING)
    path: Literal["auto", "packed", "prefix", "separate"] = option(
        "auto", help="How shot counts share forward passes.", panel=RUNNING
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        # A single string is a sequence of one-letter texts to Python.
        if isinstance(self.texts, (bool, str)) or not isinstance(self.texts, (int, Sequence)):
            problem = f"must be texts, or how many to generate, got {self.texts!r:.60}"
            raise OptionError("texts", problem)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; a watched task is recorded by its name."""
        data = super().to_dict()
        if isinstance(data["watch"], (list, tuple)):
            data["watch"] = [getattr(each, "name", each) for each in data["watch"]]
        return data
