"""`HookedModel`: any causal language model, read at TransformerLens's hook points."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from functools import cached_property
from typing import Any, Literal

import torch

from ed_interp.errors import CaptureError
from ed_interp.models.runners import LensRunner, Runner, TransformersRunner
from ed_interp.models.sites import KINDS, Site


@dataclasses.dataclass(frozen=True, eq=False)
class HookedModel:
    """What :func:`ed_interp.load` returns. The user's object is :attr:`model`, unchanged."""

    model: Any
    """The object that was loaded or passed in."""
    tokenizer: Any
    """Its tokenizer, or None (populations of token ids still work)."""
    name: str
    runner: Runner = dataclasses.field(repr=False)

    @classmethod
    def wrap(cls, model: Any, tokenizer: Any = None, *, name: str | None = None) -> HookedModel:
        """Hook a live object; see :func:`ed_interp.load`, which calls this."""
        lens = is_transformer_lens(model)
        runner: Runner = LensRunner(model) if lens else TransformersRunner(model)
        if tokenizer is None and lens:
            tokenizer = getattr(model, "tokenizer", None)
        return cls(model, tokenizer, name or _name_of(model), runner)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return self.runner.n_layers

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.runner.d_model

    @property
    def device(self) -> torch.device:
        """The device for token ids."""
        return self.runner.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the first block's weights."""
        # Embeddings, heads and adapters may be in another one.
        for name, parameter in self.model.named_parameters():
            if "0" in name.split(".") and parameter.is_floating_point():
                return parameter.dtype  # type: ignore[no-any-return]
        return next(iter(self.model.parameters())).dtype  # type: ignore[no-any-return]

    @property
    def config(self) -> Any:
        """The text configuration (``transformers``) or ``cfg`` (TransformerLens)."""
        return self.runner.config

    @property
    def context_window(self) -> int | None:
        """Longest sequence in tokens; None where the architecture sets no limit."""
        for name in ("max_position_embeddings", "n_positions", "n_ctx"):
            if value := getattr(self.config, name, None):
                return int(value) - getattr(self.runner, "virtual_tokens", 0)
        return None

    @property
    def norm(self) -> Literal["layernorm", "rms"]:
        """``layernorm`` if the model's norms centre, ``rms`` if not."""
        kind = str(getattr(self.config, "normalization_type", "") or "")
        rms = kind.startswith("RMS") or getattr(self.config, "rms_norm_eps", None) is not None
        return "rms" if rms else "layernorm"

    @property
    def processed_weights(self) -> bool:
        """Whether norms were folded into the weights, which changes the stream's basis."""
        folded = str(getattr(self.config, "normalization_type", "") or "").endswith("Pre")
        return folded or bool(getattr(self.model, "compatibility_mode", False))

    @property
    def family(self) -> str:
        """The architecture, for instance ``gpt2`` or ``gemma2``."""
        inner = getattr(getattr(self.model, "original_model", None), "config", None)
        return str(
            getattr(inner, "model_type", None)
            or getattr(self.config, "model_type", None)
            or getattr(self.config, "original_architecture", None)
            or type(self.model).__name__
        )

    @property
    def sites(self) -> list[str]:
        """Names of the hook points that :func:`ed_interp.capture` can read."""
        blocks = (f"blocks.{layer}.hook_{kind}" for layer in range(self.n_layers) for kind in KINDS)
        present = []
        for name in ("hook_embed", *blocks):
            with contextlib.suppress(CaptureError):
                present.append(self.site(name).name)
        return present

    def site(self, name: str | Site) -> Site:
        """The site called ``name``.

        UnknownNameError for no such hook point or block; CaptureError if the model lacks the place.
        """
        site = Site.parse(name, n_layers=self.n_layers)
        self.runner.place(site)
        return site

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with the architecture or any sampled weight."""
        # Up to 4,096 evenly spaced values of every parameter, which takes well under a second, in
        # float32, so that the device does not matter.
        digest = hashlib.sha256(self.family.encode())
        for name, tensor in sorted(self.model.named_parameters(), key=lambda item: item[0]):
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            flat = tensor.detach().reshape(-1)
            step = max(1, flat.numel() // 4096)
            digest.update(flat[::step][:4096].float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """The model as plain data, for the record of a run."""
        return {
            "name": self.name,
            "family": self.family,
            "fingerprint": self.fingerprint,
            "n_layers": self.n_layers,
            "d_model": self.d_model,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": str(self.device),
            "basis": "processed weights" if self.processed_weights else "raw weights",
            "tokenizer": tokenizer_fingerprint(self.tokenizer),
        }


def tokenizer_fingerprint(tokenizer: Any) -> str | None:
    """Sixteen hexadecimal digits that identify a vocabulary; None without a tokenizer."""
    if tokenizer is None:
        return None
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(vocabulary.encode()).hexdigest()[:16]


def is_transformer_lens(model: Any) -> bool:
    """Whether ``model`` is a HookedTransformer, TransformerBridge or a subclass of one."""
    # By class names, as importing TransformerLens takes seconds.
    kinds = {"HookedTransformer", "TransformerBridge"}
    return any(kind.__name__ in kinds for kind in type(model).__mro__)


def _name_of(model: Any) -> str:
    config = getattr(model, "config", None) or getattr(model, "cfg", None)
    for attribute in ("_name_or_path", "name_or_path", "model_name"):
        if value := getattr(config, attribute, None):
            return str(value).rstrip("/").rsplit("/", 1)[-1]
    return type(model).__name__
