"""The options of the bias-injection adapter, checked when they are given.

STABLE: every field below, and :class:`BiasInjectionConfig` itself. ``format_version`` changes when
old checkpoints can no longer be read as they are.
"""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import Any

from peft.config import PeftConfig

from ed_interp.adapters.bias_injection.checkpoint import digest_of_file
from ed_interp.adapters.bias_injection.register import BIAS_INJECTION
from ed_interp.errors import InvalidInputError
from ed_interp.records import write_text

FORMAT_VERSION = 1
IMPORT = "import ed_interp.adapters.bias_injection"
NOTE = f"""## Loading

PEFT learns this method when it is imported; without that, loading fails with a `KeyError`:

```python
{IMPORT}  # pip install ed-interp

from peft import AutoPeftModelForCausalLM
```
"""
FEEDBACK = ("input", "output", "none")


@dataclasses.dataclass
class BiasInjectionConfig(PeftConfig):  # type: ignore[misc]
    """A linear layer ``y = W x`` becomes ``y_t = W x_t + (alpha/r) B A x_t + b + V s_t``.

    The feedback nodes follow ``s_t = exp(-1/tau) s_{t-1} + R x_{t-1}`` along the sequence. A fresh
    adapter changes nothing, exactly: ``B``, ``b`` and ``V`` are zero.

    Raises:
        InvalidInputError: on construction, for a value that cannot be used.
    """

    r: int = dataclasses.field(
        default=8, metadata={"help": "Rank of the low-rank part A, B; 0 leaves it out."}
    )
    lora_alpha: float | int = dataclasses.field(
        default=8, metadata={"help": "The low-rank part is scaled by lora_alpha / r."}
    )
    n_nodes: int = dataclasses.field(
        default=4, metadata={"help": "Nodes per targeted layer; 0 leaves them out."}
    )
    tau: float | int | list[float] | None = dataclasses.field(
        default=None,
        metadata={
            "help": "Time constant of the nodes in tokens, above 0: at the start of training, or "
            "for good if learn_tau is false. One number, or one per node; by default spread "
            "geometrically from 4 to 256."
        },
    )
    learn_tau: bool = dataclasses.field(
        default=True, metadata={"help": "Whether the time constants are trained."}
    )
    use_bias: bool = dataclasses.field(
        default=True, metadata={"help": "Whether the adapter has a bias b of its own."}
    )
    feedback: str = dataclasses.field(
        default="input",
        metadata={
            "help": "What the nodes read: 'input', what the layer was given at the tokens before; "
            "'output', what it gave (nodes then feed each other, the recurrence is dense and may "
            "grow); 'none', nothing: nodes hold a learned constant value."
        },
    )
    neutral: bool = dataclasses.field(
        default=False,
        metadata={
            "help": "Keep the paper's neutral relation under training: the bias is always minus "
            "the sum of the node weights, b = -sum_i V_i, so nodes at value 1 cancel it."
        },
    )
    dropout: float = dataclasses.field(
        default=0.0, metadata={"help": "Dropout on what A and R read, while training."}
    )
    target_modules: list[str] | set[str] | str | None = dataclasses.field(
        default=None,
        metadata={
            "help": "Names or a regular expression of the linear layers to adapt, or 'all-linear'; "
            "by default the ones PEFT's LoRA takes for the architecture."
        },
    )
    exclude_modules: list[str] | set[str] | str | None = dataclasses.field(
        default=None, metadata={"help": "Names or a regular expression of layers to leave alone."}
    )
    layers_to_transform: list[int] | int | None = dataclasses.field(
        default=None, metadata={"help": "Indices of the blocks to adapt; all by default."}
    )
    layers_pattern: list[str] | str | None = dataclasses.field(
        default=None, metadata={"help": "Name of the list of blocks, for layers_to_transform."}
    )
    modules_to_save: list[str] | None = dataclasses.field(
        default=None, metadata={"help": "Further modules to train and save whole."}
    )
    init_weights: bool = dataclasses.field(
        default=True,
        metadata={"help": "Start neutral. False starts with random weights everywhere, for tests."},
    )
    format_version: int = dataclasses.field(
        default=FORMAT_VERSION, metadata={"help": "Version of the checkpoint format."}
    )
    weights_sha256: str | None = dataclasses.field(
        default=None,
        metadata={"help": "Digest of the saved tensors, written by save_pretrained."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = BIAS_INJECTION
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)
        self._check()

    def _check(self) -> None:
        if not isinstance(self.format_version, int) or self.format_version > FORMAT_VERSION:
            raise InvalidInputError(
                f"this bias-injection checkpoint has format {self.format_version}, and this "
                f"version of ed-interp reads up to {FORMAT_VERSION}; upgrade ed-interp"
            )
        for name in ("r", "n_nodes"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise InvalidInputError(
                    f"{name} must be a whole number of at least 0, not {value!r}"
                )
        if self.feedback not in FEEDBACK:
            raise InvalidInputError(
                f"feedback must be one of {', '.join(FEEDBACK)}, not {self.feedback!r}"
            )
        if not (isinstance(self.lora_alpha, (int, float)) and math.isfinite(self.lora_alpha)):
            raise InvalidInputError(f"lora_alpha must be a finite number, not {self.lora_alpha!r}")
        if not (isinstance(self.dropout, (int, float)) and 0 <= self.dropout < 1):
            raise InvalidInputError(f"dropout must be in [0, 1), not {self.dropout!r}")
        if not (self.r or self.n_nodes or self.use_bias):
            raise InvalidInputError(
                "nothing would be trained: r=0, n_nodes=0 and use_bias=False; set at least one"
            )
        if self.neutral and not (self.n_nodes and self.use_bias):
            raise InvalidInputError(
                "neutral=True ties the bias to the node weights and needs n_nodes above 0 and "
                f"use_bias=True, not n_nodes={self.n_nodes} and use_bias={self.use_bias}"
            )
        self.taus()
        if self.layers_pattern and self.layers_to_transform is None:
            raise InvalidInputError(
                "layers_pattern says where the blocks are and needs layers_to_transform, which "
                "says which of them"
            )
        if self.layers_to_transform is not None and isinstance(self.target_modules, str):
            raise InvalidInputError(
                "layers_to_transform applies to target_modules given as a list; write the block "
                "numbers into the regular expression instead"
            )

    def taus(self) -> list[float]:
        """The initial time constant of each node, in tokens.

        Raises:
            InvalidInputError: one is not a positive finite number, or there is not one per node.
        """
        if self.tau is None:
            steps = max(1, self.n_nodes - 1)
            if self.n_nodes == 1:
                return [32.0]
            return [4.0 * 64.0 ** (node / steps) for node in range(self.n_nodes)]
        values = self.tau if isinstance(self.tau, list) else [self.tau] * self.n_nodes
        if len(values) != self.n_nodes:
            raise InvalidInputError(
                f"tau has {len(values)} values for {self.n_nodes} nodes; give one number or one "
                "per node"
            )
        for value in values if isinstance(self.tau, list) else [self.tau]:
            if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
                raise InvalidInputError(f"tau must be a positive number of tokens, not {value!r}")
        return [float(value) for value in values]

    def to_dict(self) -> dict[str, Any]:
        """Plain data; names in order, so that the same adapter is the same file."""
        found: dict[str, Any] = super().to_dict()
        return {k: sorted(v) if isinstance(v, set) else v for k, v in found.items()}

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """As PEFT's, with the digest of the weights beside it; the card says what to import."""
        kept = self.weights_sha256
        weights = Path(save_directory) / "adapter_model.safetensors"
        self.weights_sha256 = digest_of_file(weights) if weights.is_file() else None
        try:
            super().save_pretrained(os.fspath(save_directory), **kwargs)
        finally:
            self.weights_sha256 = kept
        card = Path(save_directory) / "README.md"
        text = card.read_text("utf-8") if card.is_file() else ""
        if text and IMPORT not in text:
            write_text(card, f"{text.rstrip()}\n\n{NOTE}")
