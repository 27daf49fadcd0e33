"""Settings of a comparison of two models. Nothing heavy is imported."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from ed_interp.models.options import DEFAULT_MODEL, ModelOptions
from ed_interp.options import MEASURE, MODEL, PROMPTS, RUNNING, Batched, OptionError, Seeded, option
from ed_interp.probes.emergence.options import EmergenceOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inference(Seeded):
    """How effects are tested."""

    level: float = option(0.95, "Confidence level of the intervals.", MEASURE, above=0, below=1)
    resamples: int = option(1000, "Number of bootstrap resamples.", MEASURE, min=1)
    permutations: int = option(
        9999, "Sign patterns per test; more are used if the correction needs them.", MEASURE, min=1
    )

    @property
    def resampling(self) -> dict[str, Any]:
        """Arguments of every bootstrap, so that all share their resamples."""
        return {"level": self.level, "resamples": self.resamples, "seed": self.seed}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareOptions(Inference, Batched):
    """Two models, the prompts and texts that both get, and what is measured on them."""

    control: str = option(
        DEFAULT_MODEL, "Control: bundled model, hub id, model or adapter folder.", MODEL
    )
    treated: str | None = option(
        None, "Model to compare with the control, of the same tokenizer.", MODEL
    )
    tokenizer: str | None = ModelOptions.same("tokenizer")
    device: str | None = ModelOptions.same("device")
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = ModelOptions.same("dtype")
    # `on`, `watch` and `texts` may be live objects, which the options record by name or in full.
    on: Any = option(
        "mixed-country", "Task: a name, a task, a population, or (input, output) pairs.", PROMPTS
    )
    shots: tuple[int, ...] | None = EmergenceOptions.same("shots", shown="0-8; 1-8 for lists")
    prompts: int = option(200, "Number of prompts to sample.", PROMPTS, min=2)
    template: str | None = option(None, "Text of a pair, with {input} and {output}.", PROMPTS)
    watch: Any = option(
        "all",
        "Relations to check for side effects: names, tasks, None, or all built-in ones.",
        PROMPTS,
    )
    watch_prompts: int = option(24, "Prompts per watched relation.", PROMPTS, min=2)
    watch_shots: tuple[int, ...] = option(
        (1, 4), "Numbers of demonstrations of the watched relations.", PROMPTS, min=0
    )
    texts: int | tuple[str, ...] = option(
        60, "Neutral texts for forgetting, or how many to generate; 0 for none.", PROMPTS
    )
    text_tokens: int = option(128, "Tokens per window of neutral text.", PROMPTS, min=2)
    emergence: bool = option(True, "Also compare E per block.", MEASURE)
    cost: bool = option(True, "Also measure parameters, memory and speed.", MEASURE)
    decode_rounds: int = option(5, "Rounds of timed decoding; 0 leaves it out.", MEASURE, min=0)
    session: str | None = option(
        None,
        "Task of sessions with feedback, for a bias-injection adapter with feedback nodes.",
        MEASURE,
    )
    require_identity: bool = option(
        True, "Refuse an adapter that changes the model before training.", MEASURE
    )
    samples: bool = option(True, "Keep the scores of every prompt.", RUNNING)
    path: Literal["auto", "packed", "prefix", "separate"] = EmergenceOptions.same("path")

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
