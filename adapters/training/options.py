"""Settings of a training run, shared by :func:`train`, ``adapter train`` and the record.

Nothing heavy is imported here, so that ``--help`` stays fast.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, Literal

from ed_interp.models.options import ModelOptions
from ed_interp.options import MODEL, RUNNING, OptionError, Options, Seeded, option
from ed_interp.prompts.options import PromptOptions

EXAMPLES = "Examples"

_examples = functools.partial(option, panel=EXAMPLES)
_adapter = functools.partial(option, panel="Adapter")
_steps = functools.partial(option, panel="Optimisation")
_running = functools.partial(option, panel=RUNNING)
_card = functools.partial(option, panel="Model card")

# transformers seeds NumPy's old generator too, which takes no greater number.
_LARGEST_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleOptions(Options):
    """A file of examples."""

    data: Path = option(help="File: .jsonl, .json, .csv, .parquet or .txt.", panel=EXAMPLES)
    input_column: str = _examples("input", help="Column of inputs.")
    output_column: str = _examples("output", help="Column of outputs.")
    template: str | None = PromptOptions.same("template", panel=EXAMPLES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MethodOptions(Options):
    """The kind of adapter."""

    method: str = _adapter(
        "bias-injection", help="Method: bias-injection, lora, dora, vera, ia3, loha or lokr."
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterOptions(Options):
    """What the adapter is; None leaves a choice to the method."""

    r: int = _adapter(8, help="Rank of the low-rank update.", min=0)
    alpha: float | None = _adapter(None, help="The update is scaled by alpha / r.", shown="2 r")
    dropout: float = _adapter(0.0, help="Dropout on the input of the update.", min=0, below=1)
    targets: tuple[str, ...] | None = _adapter(
        None, help="Layers to adapt by name, such as c_attn,c_proj.", shown="by architecture"
    )
    layers: tuple[int, ...] | None = _adapter(
        None, help="Blocks to adapt, such as 0-3 or 2,5.", shown="all", min=0
    )
    nodes: int | None = _adapter(None, help="Feedback nodes per layer.", shown="by method", min=0)
    tau: float | None = _adapter(
        None, help="Initial time constant of the nodes, in tokens.", shown="by method", above=0
    )
    fixed_tau: bool = _adapter(False, help="Keep the time constants at their initial values.")
    feedback: Literal["input", "output", "none"] | None = _adapter(
        None, help="What the nodes read of their layer.", shown="by method"
    )
    bias: bool | None = _adapter(None, help="Train a bias in each layer.", shown="by method")
    neutral: bool = _adapter(False, help="Keep the bias at minus the sum of the node weights.")

    def changed(self) -> list[str]:
        """Names of the adapter's settings that are not at their default."""
        fields = dataclasses.fields(AdapterOptions)  # not those of a subclass
        return [field.name for field in fields if getattr(self, field.name) != field.default]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingOptions(Seeded):
    """How to train. Equal options, data, model and seed give equal weights on the same machine."""

    epochs: float = _steps(3.0, help="Passes over the training examples.", above=0)
    max_steps: int | None = _steps(None, help="Steps, in place of --epochs.", min=1, shown="epochs")
    batch_size: int = _running(8, help="Examples per step (with --accumulate per batch).", min=1)
    accumulate: int = _steps(1, help="Batches whose gradients are summed for one step.", min=1)
    lr_lora: float = _steps(1e-3, help="Learning rate of low-rank matrices.", min=0)
    lr_nodes: float = _steps(1e-3, help="Learning rate of feedback nodes and bias.", min=0)
    lr_tau: float = _steps(1e-2, help="Learning rate of the time constants.", min=0)
    weight_decay: float = _steps(0.0, help="Weight decay of matrices, not of biases.", min=0)
    warmup: float = _steps(0.05, help="Share of the steps for warm-up.", min=0, below=1)
    schedule: Literal["linear", "cosine", "constant"] = _steps(
        "cosine", help="Course of the learning rates after warm-up."
    )
    clip: float = _steps(1.0, help="Largest norm of the gradient.", above=0)
    eval_share: float = _steps(0.1, help="Share of examples held out, or 0.", min=0, below=1)
    eval_steps: int | None = _steps(
        None, help="Steps between evaluations.", min=1, shown="a tenth of the run"
    )
    patience: int | None = _steps(
        None, help="Stop after this many evaluations without improvement.", min=1, shown="never"
    )
    save_steps: int | None = _steps(
        None, help="Steps between checkpoints, without held-out examples.", min=1, shown="the same"
    )
    all_tokens: bool = _examples(False, help="Put loss on every token, not only on answers.")
    carry: bool = _steps(False, help="Run turns as separate calls that carry the nodes' states.")
    carry_tau: float = _steps(8.0, help="Turns in which carried states decay by 1/e.", above=0)
    precision: Literal["float32", "bfloat16"] = _running(
        "float32", help="Precision of the forward pass; bfloat16 is mixed."
    )
    checkpointing: Literal["off", "reentrant", "non-reentrant"] = _running(
        "off", help="Gradient checkpointing: less memory, more time."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed > _LARGEST_SEED:
            raise OptionError("seed", f"must be {_LARGEST_SEED} or less, got {self.seed}")
        if self.patience is not None and self.eval_share == 0:
            problem = "must come with held-out examples, got eval_share 0; give a share"
            raise OptionError("patience", problem, "eval_share")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CardFields(Options):
    """What only the person who trains can say; the card prints None as not stated."""

    licence: str | None = _card(None, help="Licence of the adapter, such as mit.")
    data_licence: str | None = _card(None, help="Licence of the data.")
    base_licence: str | None = _card(None, help="Licence of the base model.")
    description: str | None = _card(None, help="What the adapter is for.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions(
    CardFields, TrainingOptions, AdapterOptions, MethodOptions, ExampleOptions, ModelOptions
):
    """All that :func:`~ed_interp.adapters.training.train` takes."""

    def part(self, kind: type[Options]) -> dict[str, Any]:
        """The settings of one of the classes above, as plain data."""
        whole = self.to_dict()
        return {field.name: whole[field.name] for field in dataclasses.fields(kind)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderOptions(Options):
    """An adapter that has been trained."""

    folder: Path = option(help="Folder of an adapter.", argument=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MergeOptions(FolderOptions):
    """An adapter, and how to load its base model: no `model`, whose default would be another."""

    base: str | None = option(None, "Base model.", MODEL, shown="the adapter's")
    tokenizer: str | None = ModelOptions.same("tokenizer")
    revision: str | None = ModelOptions.same("revision")
    trust_remote_code: bool = ModelOptions.same("trust_remote_code")
    device: str | None = ModelOptions.same("device")
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = ModelOptions.same("dtype")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions(MergeOptions):
    """All that ``adapter export`` takes."""

    drop_feedback: bool = _adapter(False, help="Leave out feedback nodes that are not zero.")
