"""Options of training, measuring, describing, following and explaining the features of a model."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ed_interp.errors import InvalidInputError, unknown
from ed_interp.models.options import ModelOptions
from ed_interp.options import (
    MEASURE,
    MODEL,
    OUTPUT,
    PROMPTS,
    TRAIN,
    Batched,
    OptionError,
    Options,
    Seeded,
    named_values,
    option,
)
from ed_interp.prompts.options import SHOTS, PromptOptions

FEATURES = "Features by number, such as 17 or 0-8."
PROBE_TASKS = ("sentiment", "country-continent", "mixed-country", "mixed-adjective")
"""By default: classes of phrases and of words, and which relation a prompt is about."""

TEXT = "Text"
WINDOW, EXPLAIN_WINDOW = 128, 32
"""Tokens of a window by default; fewer if the model's context is shorter."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One kind of dictionary."""

    registered: str
    """SAELens's name of it."""
    takes_k: bool = True
    """Whether its sparsity is set by a number of active latents."""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Settings other than SAELens's defaults, for states scaled to norm ``sqrt(d_model)``."""


_JUMPRELU = {
    "jumprelu_sparsity_loss_mode": "quadratic",
    "jumprelu_ste_to_input": True,
    "jumprelu_bandwidth": 0.5,
    "jumprelu_init_threshold": 0.5,
    "l0_coefficient": 0.3,
}
ARCHITECTURES = {
    # The k largest latents of every token.
    "topk": Architecture("topk"),
    # k per token on average over a batch.
    "batchtopk": Architecture("batchtopk"),
    # batchtopk whose first latents also reconstruct by themselves.
    "matryoshka": Architecture("matryoshka_batchtopk"),
    # A learned threshold per latent, L0 held near k.
    "jumprelu": Architecture("jumprelu", options=_JUMPRELU),
    # ReLU with an L1 penalty.
    "standard": Architecture("standard", takes_k=False, options={"l1_coefficient": 1.0}),
    # A gate and a magnitude per latent, L1 on the gate.
    "gated": Architecture("gated", takes_k=False, options={"l1_coefficient": 1.0}),
    # A variational autoencoder with a probability of presence per latent.
    "spike-slab": Architecture("spike_slab"),
}
"""By the name that ``train`` takes."""

DEFAULT_K = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceOptions(Options):
    """One source of text. Without any it is the bundled models' own generated text."""

    text: Path | None = option(
        None,
        "Text from a .txt file (an empty line ends a document) or a .json list of strings.",
        TEXT,
        shown="generated text, no file needed",
    )
    task: str | None = PromptOptions.same("task", panel=TEXT, shown="")
    dataset: str | None = option(None, "Text from a Hugging Face data set.", TEXT)
    column: str | None = option(None, "Column (with --dataset).", TEXT, shown="text")
    split: str | None = option(None, "Split to read (with --dataset).", TEXT, shown="train")
    config: str | None = option(None, "Configuration to read (with --dataset).", TEXT)

    def __post_init__(self) -> None:
        if self.text is not None and not isinstance(self.text, (str, Path)):
            # Texts that were passed as they are: a result records their digest, not all of them.
            object.__setattr__(self, "text", Path("texts"))
        super().__post_init__()
        # The generated text is what remains when none of them is named.
        sources = [n for n in ("text", "task", "dataset") if getattr(self, n) is not None]
        if len(sources) > 1:
            raise InvalidInputError(
                f"the text must come from one source, got {' and '.join(sources)}; drop one"
            )
        for name in ("column", "split", "config"):
            if getattr(self, name) is not None and self.dataset is None:
                problem = f"must come with dataset; drop {name}, or name a data set"
                raise OptionError(name, problem, name, "dataset")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextOptions(SourceOptions):
    """Text in windows of tokens."""

    window: int | None = option(None, "Longest window in tokens.", TEXT, shown="128", min=2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DictionaryOptions(ModelOptions, Batched):
    """A dictionary, and the model whose stream it reads."""

    dictionary: str = option(help="Folder of a dictionary, or a release of SAELens.", argument=True)
    sae_id: str | None = option(None, "Dictionary of a release.", MODEL, flag="--id")
    model: str = ModelOptions.same("model", default="", shown="the dictionary's own")
    site: str | None = option(None, "Hook point.", MODEL, shown="its own")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions(ModelOptions, TextOptions, Seeded):
    """How a dictionary is trained."""

    site: str = option(help="Hook point, such as blocks.2.hook_resid_post.", panel=MODEL)
    architecture: str = option(
        "topk", f"Kind of dictionary: {', '.join(ARCHITECTURES)}.", TRAIN, flag="--arch"
    )
    latents: int = option(1024, "Size of the dictionary.", TRAIN, min=1)
    k: int | None = option(
        None,
        "Active latents per token, if the architecture takes a number.",
        TRAIN,
        shown=str(DEFAULT_K),
        min=1,
    )
    tokens: int = option(1_000_000, "Tokens to train on.", TRAIN, min=1)
    batch_size: int = option(512, "Tokens per step.", TRAIN, min=1)
    lr: float | None = option(
        None,
        "Peak learning rate of Adam.",
        TRAIN,
        shown="2e-3, less by sqrt(1024 / latents) above 1,024 latents",
        above=0,
    )
    sae_lens: tuple[str, ...] = option(
        (),
        "NAME=VALUE of SAELens's configuration, such as l1_coefficient=5; repeatable.",
        TRAIN,
        flag="--option",
        whole=True,
    )

    def __post_init__(self) -> None:
        if isinstance(self.sae_lens, Mapping):
            # A dictionary in Python; as text it can be typed and recorded like every option.
            pairs = tuple(f"{name}={json.dumps(value)}" for name, value in self.sae_lens.items())
            object.__setattr__(self, "sae_lens", pairs)
        super().__post_init__()
        if self.architecture not in ARCHITECTURES:
            raise unknown("architecture", self.architecture, list(ARCHITECTURES))
        if self.k is not None and not ARCHITECTURES[self.architecture].takes_k:
            raise OptionError(
                "k",
                f"must not be given for {self.architecture}, got {self.k}; set its sparsity by "
                "l1_coefficient (--option l1_coefficient=5)",
            )
        if (self.active or 0) > self.latents:
            raise OptionError("k", f"must be at most latents ({self.latents}), got {self.active}")
        if self.tokens < max(self.latents, self.batch_size):
            raise OptionError(
                "tokens",
                f"must not be fewer than latents ({self.latents}) or batch_size "
                f"({self.batch_size}), got {self.tokens}; 100 per latent are few",
            )
        _ = self.sae_lens_settings  # refuses what is not NAME=VALUE

    @property
    def active(self) -> int | None:
        """Active latents per token to train for; None if the architecture takes no number."""
        return (self.k or DEFAULT_K) if ARCHITECTURES[self.architecture].takes_k else None

    @property
    def steps(self) -> int:
        """Number of training steps."""
        return self.tokens // self.batch_size

    @property
    def peak_lr(self) -> float:
        """Peak learning rate."""
        # The rate that suits 1,024 latents makes wider dictionaries diverge.
        return self.lr or 2e-3 * min(1.0, math.sqrt(1024 / self.latents))

    @property
    def sae_lens_settings(self) -> dict[str, Any]:
        """``sae_lens`` as fields of SAELens's configuration; what is not JSON is text."""
        return named_values("sae_lens", self.sae_lens)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasureOptions(DictionaryOptions, TextOptions, Seeded):
    """How a dictionary is measured."""

    tokens: int = option(100_000, "Tokens to encode.", MEASURE, min=2)
    ce_tokens: int = option(20_000, "Tokens to predict.", MEASURE, min=2)
    tasks: tuple[str, ...] = option(PROBE_TASKS, "Tasks for sparse probing.", MEASURE)
    absorption: bool = option(True, "Measure splitting and absorption.", MEASURE)

    def __post_init__(self) -> None:
        # Live tasks are recorded by name.
        names = tuple(getattr(task, "name", task) for task in self.tasks)
        object.__setattr__(self, "tasks", names)
        super().__post_init__()


@dataclasses.dataclass(frozen=True, kw_only=True)
class DescribeOptions(DictionaryOptions, TextOptions, Seeded):
    """What is shown of every feature."""

    tokens: int = option(200_000, "Tokens of held-out text to read.", MEASURE, min=1)
    contexts: int = option(8, "Strongest contexts per feature.", MEASURE, min=1)
    top_tokens: int = option(8, "Promoted tokens to list.", MEASURE, min=1)
    neighbours: int = option(5, "Most similar features to list.", MEASURE, min=1)
    clamp_contexts: int = option(
        4, "Contexts in which each feature is clamped; 0 skips it.", MEASURE, min=0
    )
    clamp_features: tuple[int, ...] | None = option(
        None, "Clamp only these features.", MEASURE, shown="all", min=0
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShowOptions(DescribeOptions):
    """Which features are shown, and where."""

    feature: tuple[int, ...] | None = option(None, FEATURES, MEASURE, min=0)
    html: Path | None = option(None, "Page to write; it opens offline.", OUTPUT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureEmergenceOptions(DictionaryOptions, PromptOptions, Seeded):
    """How features are followed over shots and checkpoints."""

    shots: tuple[int, ...] | None = option(None, SHOTS, PROMPTS, shown="0-8", min=0)
    prompts: int = option(500, "Number of prompts to sample.", PROMPTS, min=2)
    about: Literal["auto", "answer", "relation"] = option(
        "auto",
        "Label to inform about; auto is the relation of a mixed task, else the answer.",
        MEASURE,
    )
    checkpoints: tuple[str, ...] = option(
        (), "Training steps of a bundled model, such as 300,949, or all.", MEASURE
    )
    permutations: int = option(200, "Permutations of the labels.", MEASURE, min=20)

    def __post_init__(self) -> None:
        # In Python, steps are numbers and "all" is a string.
        steps: Any = [self.checkpoints] if isinstance(self.checkpoints, str) else self.checkpoints
        object.__setattr__(self, "checkpoints", tuple(map(str, steps)))
        super().__post_init__()
        for step in self.checkpoints:
            if not step.isdecimal() and self.checkpoints != ("all",):
                raise OptionError("checkpoints", f"must be training steps or all, got {step!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExplainOptions(DictionaryOptions, TextOptions, Seeded):
    """How explanations of features are scored."""

    features: tuple[int, ...] | None = option(
        None, FEATURES, MEASURE, shown="all", flag="--feature", min=0
    )
    tokens: int = option(100_000, "Tokens of held-out text to read.", MEASURE, min=2)
    contexts: int = option(50, "Active contexts, and as many silent.", MEASURE, min=1)
    window: int | None = option(None, "Tokens of a context.", TEXT, shown="32", min=2)
