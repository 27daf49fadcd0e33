"""The options of the bias-injection adapter, checked when they are given.

STABLE: every field below, and :class:`BiasInjectionConfig` itself. ``format_version`` changes when
old checkpoints can no longer be read as they are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft.config import PeftConfig
from peft.utils import PeftType
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.options import option
from ed_interp.records.files import write_text
from ed_interp.records.tensors import read_unchecked

NAME = "BIAS_INJECTION"
PREFIX = "bias_injection_"
"""How the name of every parameter of the adapter begins."""
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


def _member() -> PeftType:
    """The member of PEFT's list of methods, which is a closed enumeration."""
    # PEFT and transformers use the `.value` of its members, so a plain string will not do.
    known: Any = PeftType
    if NAME not in known._member_map_:
        # What the class statement of an enumeration does for each member; there is no public way
        # to add one afterwards. The maps serve PeftType["..."], PeftType("...") and iteration.
        member: Any = str.__new__(PeftType, NAME)
        member._name_ = member._value_ = NAME
        member.__objclass__ = PeftType
        member._sort_order_ = len(known._member_names_)
        known._member_names_.append(NAME)
        known._member_map_[NAME] = known._value2member_map_[NAME] = member
        # Enumerations refuse setattr on the class; type's own does not.
        type.__setattr__(PeftType, NAME, member)
    registered: PeftType = known._member_map_[NAME]
    return registered


BIAS_INJECTION = _member()
"""The member of ``peft.PeftType``."""


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the adapter's tensors: names, types, shapes, bytes. Cost: one pass over them."""
    total = hashlib.sha256()
    # Modules saved whole (modules_to_save) have other names in a model than in a file.
    for name in sorted(name for name in tensors if PREFIX in name):
        value = tensors[name].detach().cpu().contiguous()
        total.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
        # NumPy has no bfloat16; as bytes every dtype is the same.
        total.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


@dataclasses.dataclass
class BiasInjectionConfig(PeftConfig):  # type: ignore[misc]
    """A linear layer ``y = W x`` becomes ``y_t = W x_t + (alpha/r) B A x_t + b + V s_t``.

    The feedback nodes follow ``s_t = exp(-1/tau) s_{t-1} + R x_{t-1}`` along the sequence. A fresh
    adapter changes nothing, exactly: ``B``, ``b`` and ``V`` are zero.

    Raises:
        InvalidInputError: on construction, for a value that cannot be used.
    """

    r: int = option(8, "Rank of the low-rank part A, B; 0 leaves it out.")
    lora_alpha: float | int = option(8, "The low-rank part is scaled by lora_alpha / r.")
    n_nodes: int = option(4, "Nodes per targeted layer; 0 leaves them out.")
    tau: float | int | list[float] | None = option(
        None,
        "Time constant of the nodes in tokens, above 0: at the start of training, or for "
        "good if learn_tau is false. One number, or one per node; by default spread "
        "geometrically from 4 to 256. A node forgets what it read after a few time "
        "constants.",
    )
    learn_tau: bool = option(True, "Whether the time constants are trained.")
    use_bias: bool = option(True, "Whether the adapter adds a bias b.")
    feedback: str = option(
        "input",
        "What the nodes read: 'input', what the layer read at the tokens before; 'output', "
        "what it wrote (nodes then feed each other, the recurrence is dense and may grow); "
        "'none', nothing: nodes hold a learned constant value.",
    )
    neutral: bool = option(
        False,
        "Keep the paper's neutral relation under training: the bias is always minus the sum "
        "of the node weights, b = -sum_i V_i, so nodes at value 1 cancel it.",
    )
    dropout: float = option(0.0, "Dropout on what A and R read, while training.")
    target_modules: list[str] | set[str] | str | None = option(
        None,
        "Names or a regular expression of the linear layers to adapt, or 'all-linear'; by "
        "default the ones PEFT's LoRA takes for the architecture.",
    )
    exclude_modules: list[str] | set[str] | str | None = option(
        None, "Names or a regular expression of layers to leave alone."
    )
    layers_to_transform: list[int] | int | None = option(
        None, "Indices of the blocks to adapt; all by default."
    )
    layers_pattern: list[str] | str | None = option(
        None, "Name of the list of blocks, for layers_to_transform."
    )
    modules_to_save: list[str] | None = option(None, "Further modules to train and save whole.")
    init_weights: bool = option(
        True, "Start neutral. False starts with random weights everywhere, for tests."
    )
    format_version: int = option(FORMAT_VERSION, "Version of the checkpoint format.")
    weights_sha256: str | None = option(
        None, "Digest of the saved tensors, written by save_pretrained."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = BIAS_INJECTION
        for name in ("target_modules", "exclude_modules"):
            if isinstance(getattr(self, name), list):
                setattr(self, name, set(getattr(self, name)))
        version = self.format_version
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise InvalidInputError(
                f"this bias-injection checkpoint has format {version}, and this version of "
                f"ed-interp reads up to {FORMAT_VERSION}; upgrade ed-interp"
            )
        for name in ("r", "n_nodes"):
            value = getattr(self, name)
            # A bool is an int to Python, and a mistake to whoever passes it as a count.
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise InvalidInputError(f"{name} must be a whole number from 0 up, got {value!r}")
        if self.feedback not in FEEDBACK:
            raise InvalidInputError(
                f"feedback must be one of {', '.join(FEEDBACK)}, got {self.feedback!r}"
            )
        if not (isinstance(self.lora_alpha, (int, float)) and math.isfinite(self.lora_alpha)):
            raise InvalidInputError(f"lora_alpha must be a finite number, got {self.lora_alpha!r}")
        if not (isinstance(self.dropout, (int, float)) and 0 <= self.dropout < 1):
            raise InvalidInputError(f"dropout must be in [0, 1), got {self.dropout!r}")
        if not (self.r or self.n_nodes or self.use_bias):
            raise InvalidInputError(
                "one of r, n_nodes and use_bias must be set, got r=0, n_nodes=0 and "
                "use_bias=False: nothing would be trained"
            )
        if self.neutral and not (self.n_nodes and self.use_bias):
            raise InvalidInputError(
                "neutral=True ties the bias to the node weights: n_nodes must be above 0 and "
                f"use_bias True, got n_nodes={self.n_nodes} and use_bias={self.use_bias}"
            )
        self.taus()
        if self.layers_pattern and self.layers_to_transform is None:
            raise InvalidInputError(
                "layers_pattern names the list of blocks and needs layers_to_transform, which "
                "says which of them to adapt"
            )
        if self.layers_to_transform is not None and isinstance(self.target_modules, str):
            raise InvalidInputError(
                "target_modules must be a list where layers_to_transform is given, got "
                f"{self.target_modules!r}; write the block numbers into the regular expression "
                "instead"
            )

    def taus(self) -> list[float]:
        """The initial time constant of each node, in tokens.

        Raises:
            InvalidInputError: one is not a positive finite number, or there is not one per node.
        """
        if self.tau is None:
            # Geometrically from 4 to 256; a single node gets their geometric mean.
            last = max(1, self.n_nodes - 1)
            spread = [4.0 * 64.0 ** (node / last) for node in range(self.n_nodes)]
            return [32.0] if self.n_nodes == 1 else spread
        # A single number is checked even where there are no nodes to take it.
        values = self.tau if isinstance(self.tau, list) else [self.tau] * max(1, self.n_nodes)
        for value in values:
            if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
                raise InvalidInputError(f"tau must be a positive number of tokens, got {value!r}")
        if isinstance(self.tau, list) and len(values) != self.n_nodes:
            raise InvalidInputError(
                f"tau must be one number or one per node, got {len(values)} for {self.n_nodes} "
                "nodes"
            )
        return [float(value) for value in values[: self.n_nodes]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data; names in order, so that the same adapter is the same file."""
        data: dict[str, Any] = super().to_dict()
        return {k: sorted(v) if isinstance(v, set) else v for k, v in data.items()}

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """As PEFT's, with the digest of the weights in it; the card says what to import."""
        before = self.weights_sha256
        weights = Path(save_directory) / "adapter_model.safetensors"
        # PEFT writes the weights first, so their digest can be taken from the file.
        self.weights_sha256 = digest(read_unchecked(weights)[0]) if weights.is_file() else None
        try:
            super().save_pretrained(os.fspath(save_directory), **kwargs)
        finally:
            self.weights_sha256 = before
        card = Path(save_directory) / "README.md"
        text = card.read_text("utf-8") if card.is_file() else ""
        if text and IMPORT not in text:
            write_text(card, f"{text.rstrip()}\n\n{NOTE}")
