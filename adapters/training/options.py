"""Settings of a training run, shared by :func:`train`, ``adapter train`` and the record.

Nothing heavy is imported here, so that ``--help`` stays fast.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from ed_interp.models.options import ModelOptions
from ed_interp.options import MODEL, RUNNING, OptionError, Options, Seeded, option

EXAMPLES, ADAPTER, STEPS, CARD = "Examples", "Adapter", "Optimisation", "Model card"
LARGEST_SEED = 2**32 - 1
"""NumPy's old generator, which transformers seeds too, takes no greater one."""

_DEFAULT = "by method"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleOptions(Options):
    """A file of examples."""

    data: Path | None = option(
        None,
        help="File of examples: .jsonl, .json, .csv, .parquet or .txt.",
        panel=EXAMPLES,
        shown="required",
    )
    input_column: str = option("input", help="Column of inputs.", panel=EXAMPLES)
    output_column: str = option("output", help="Column of outputs.", panel=EXAMPLES)
    template: str | None = option(
        None,
        help=r"Text of a pair, with {input} and {output}; \n is a line break.",
        panel=EXAMPLES,
        shown=r"'{input} -> {output}\n'",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodOptions(Options):
    """The kind of adapter."""

    method: str = option(
        "bias-injection",
        help="Method: bias-injection, lora, dora, vera, ia3, loha or lokr.",
        panel=ADAPTER,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterOptions(Options):
    """What the adapter is; None leaves a choice to the method."""

    r: int = option(8, help="Rank of the low-rank update.", panel=ADAPTER, min=0)
    alpha: float | None = option(
        None, help="The low-rank update is scaled by alpha / r.", panel=ADAPTER, shown="2 r"
    )
    dropout: float = option(
        0.0,
        help="Dropout on the input of the low-rank update, while training.",
        panel=ADAPTER,
        min=0,
        below=1,
    )
    targets: tuple[str, ...] | None = option(
        None,
        help="Names of the layers to adapt, such as c_attn,c_proj.",
        panel=ADAPTER,
        shown="by architecture",
    )
    layers: tuple[int, ...] | None = option(
        None, help="Blocks to adapt, such as 0-3 or 2,5.", panel=ADAPTER, shown="all", min=0
    )
    nodes: int | None = option(
        None, help="Feedback nodes per adapted layer.", panel=ADAPTER, shown=_DEFAULT, min=0
    )
    tau: float | None = option(
        None,
        help="Initial time constant of the nodes, in tokens.",
        panel=ADAPTER,
        shown=_DEFAULT,
        above=0,
    )
    fixed_tau: bool = option(
        False, help="Keep the time constants at their initial values.", panel=ADAPTER
    )
    feedback: Literal["input", "output", "none"] | None = option(
        None, help="What the nodes read of their layer.", panel=ADAPTER, shown=_DEFAULT
    )
    bias: bool | None = option(
        None, help="Train a bias in every adapted layer.", panel=ADAPTER, shown=_DEFAULT
    )
    neutral: bool = option(
        False, help="Keep the bias at minus the sum of the node weights.", panel=ADAPTER
    )

    def changed(self) -> list[str]:
        """Names of the adapter's settings that are not at their default."""
        fields = dataclasses.fields(AdapterOptions)  # not those of a subclass
        return [field.name for field in fields if getattr(self, field.name) != field.default]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions(Seeded):
    """How to train. Equal options, data, model and seed give equal weights on the same machine."""

    epochs: float = option(3.0, help="Passes over the training examples.", panel=STEPS, above=0)
    max_steps: int | None = option(
        None, help="Optimizer steps, in place of --epochs.", panel=STEPS, min=1, shown="by epochs"
    )
    batch_size: int = option(
        8, help="Examples per step (per batch, with --accumulate).", panel=RUNNING, min=1
    )
    accumulate: int = option(
        1, help="Batches whose gradients are summed for one step.", panel=STEPS, min=1
    )
    lr_lora: float = option(
        1e-3, help="Learning rate of low-rank matrices and other methods.", panel=STEPS, min=0
    )
    lr_nodes: float = option(
        1e-3, help="Learning rate of feedback nodes and bias.", panel=STEPS, min=0
    )
    lr_tau: float = option(1e-2, help="Learning rate of the time constants.", panel=STEPS, min=0)
    weight_decay: float = option(
        0.0, help="Weight decay of matrices; biases and time constants have none.", panel=STEPS,
        min=0,
    )  # fmt: skip
    warmup: float = option(
        0.05, help="Share of the steps over which learning rates rise.", panel=STEPS, min=0, below=1
    )
    schedule: Literal["linear", "cosine", "constant"] = option(
        "cosine", help="Course of the learning rates after warm-up.", panel=STEPS
    )
    clip: float = option(1.0, help="Largest norm of the gradient.", panel=STEPS, above=0)
    eval_share: float = option(
        0.1, help="Share of the examples held out; 0 holds out none.", panel=STEPS, min=0, below=1
    )
    eval_steps: int | None = option(
        None, help="Steps between evaluations.", panel=STEPS, min=1, shown="a tenth of the run"
    )
    patience: int | None = option(
        None,
        help="Stop after this many evaluations without improvement.",
        panel=STEPS,
        min=1,
        shown="never",
    )
    save_steps: int | None = option(
        None,
        help="Steps between checkpoints to resume from, where nothing is held out.",
        panel=STEPS,
        min=1,
        shown="as --eval-steps",
    )
    all_tokens: bool = option(
        False, help="Put loss on every token, not only on answers.", panel=EXAMPLES
    )
    carry: bool = option(
        False, help="Run turns as separate calls that carry the nodes' states.", panel=STEPS
    )
    carry_tau: float = option(
        8.0, help="Time constant of forgetting between turns, in turns.", panel=STEPS, above=0
    )
    precision: Literal["float32", "bfloat16"] = option(
        "float32", help="Precision of the forward pass; bfloat16 is mixed.", panel=RUNNING
    )
    checkpointing: Literal["off", "reentrant", "non-reentrant"] = option(
        "off", help="Gradient checkpointing: less memory, more time.", panel=RUNNING
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed > LARGEST_SEED:
            raise OptionError("seed", f"must be {LARGEST_SEED} or less, got {self.seed}")
        if self.patience is not None and self.eval_share == 0:
            raise OptionError(
                "patience", "must come with held-out examples, got eval_share 0; give a share"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CardFields(Options):
    """What only the person who trains can say; the card prints None as not stated."""

    licence: str | None = option(None, help="Licence of the adapter, such as mit.", panel=CARD)
    data_licence: str | None = option(None, help="Licence of the data.", panel=CARD)
    base_licence: str | None = option(None, help="Licence of the base model.", panel=CARD)
    description: str | None = option(None, help="What the adapter is for.", panel=CARD)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions(
    CardFields, TrainingOptions, AdapterOptions, MethodOptions, ExampleOptions, ModelOptions
):
    """All that :func:`~ed_interp.adapters.training.train` takes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data is None:
            raise OptionError("data", "must be a file of examples, got nothing")

    def part(self, kind: type[Options]) -> dict[str, Any]:
        """The settings of one of the classes above, as plain data."""
        whole = self.to_dict()
        return {field.name: whole[field.name] for field in dataclasses.fields(kind)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderOptions(Options):
    """An adapter that has been trained."""

    folder: Path = option(help="Folder of an adapter.", argument=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MergeOptions(ModelOptions, FolderOptions):
    """An adapter, and the base model to load it on."""

    model: str = option("", help="Base model.", panel=MODEL, shown="the adapter's")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions(MergeOptions):
    """All that ``adapter export`` takes."""

    drop_feedback: bool = option(
        False, help="Leave out feedback nodes that are not zero.", panel=ADAPTER
    )
