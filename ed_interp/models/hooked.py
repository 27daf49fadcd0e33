"""`HookedModel`: any causal language model, read at TransformerLens's hook points."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ed_interp.models.runners import LensRunner, Runner, TransformersRunner
from ed_interp.models.sites import KINDS, Site

Norm = Literal["layernorm", "rms"]


@dataclasses.dataclass(frozen=True, eq=False)
class HookedModel:
    """What :func:`ed_interp.load` returns. The user's object stays reachable and unchanged."""

    model: Any
    """The object that was loaded or handed in."""
    tokenizer: Any
    """Its tokenizer; None if there is none (populations of token ids still work)."""
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
        """Where token ids go."""
        return self.runner.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights of the first block."""
        for name, parameter in self.model.named_parameters():
            if "0" in name.split(".") and parameter.is_floating_point():
                return parameter.dtype  # type: ignore[no-any-return]
        return next(iter(self.model.parameters())).dtype  # type: ignore[no-any-return]

    @property
    def config(self) -> Any:
        """The text configuration (``transformers``) or ``cfg`` (TransformerLens)."""
        if isinstance(self.runner, TransformersRunner):
            return self.runner.config
        return self.model.cfg

    @property
    def context_window(self) -> int | None:
        """Longest sequence in tokens; None where the architecture sets no limit."""
        for name in ("max_position_embeddings", "n_positions", "n_ctx"):
            value = getattr(self.config, name, None)
            if value:
                return int(value) - getattr(self.runner, "virtual_tokens", 0)
        return None

    @property
    def norm(self) -> Norm:
        """Whether the model's norms centre (LayerNorm) or not (RMSNorm)."""
        kind = str(getattr(self.config, "normalization_type", "") or "")
        rms = kind.startswith("RMS") or getattr(self.config, "rms_norm_eps", None) is not None
        return "rms" if rms else "layernorm"

    @property
    def processed_weights(self) -> bool:
        """Whether norms were folded into the weights, so that the stream is not the raw one."""
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
        """Hook points that :func:`ed_interp.capture` can read, as names."""
        names = ["hook_embed"]
        names += [f"blocks.{layer}.hook_{kind}" for layer in range(self.n_layers) for kind in KINDS]
        return [name for name in names if self._has(Site.parse(name))]

    def _has(self, site: Site) -> bool:
        from ed_interp.errors import CaptureError

        try:
            self.runner.check(site)
        except CaptureError:
            return False
        return True

    def site(self, name: str | Site) -> Site:
        """The site called ``name`` on this model.

        Raises:
            UnknownNameError: no such hook point, or the block does not exist.
            CaptureError: this architecture has no such place.
        """
        site = Site.parse(name, n_layers=self.n_layers)
        self.runner.check(site)
        return site

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with the architecture or any sampled weight.

        Hashes names, shapes and up to 4,096 evenly spaced values of every parameter, in float32,
        so that it costs well under a second and does not depend on the device.
        """
        digest = hashlib.sha256(self.family.encode())
        for name, tensor in _named_tensors(self.model):
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            flat = tensor.detach().reshape(-1)
            step = max(1, flat.numel() // 4096)
            digest.update(flat[::step][:4096].float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's record: what was read, and in which basis."""
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
    """Sixteen hexadecimal digits of a tokenizer's vocabulary; None without one."""
    if tokenizer is None:
        return None
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()))
    return hashlib.sha256(vocabulary.encode()).hexdigest()[:16]


def is_transformer_lens(model: Any) -> bool:
    """Whether ``model`` is a HookedTransformer, TransformerBridge or a subclass of one.

    Goes by class names, so that TransformerLens is not imported for models that are not its own.
    """
    names = {kind.__name__ for kind in type(model).__mro__}
    return bool(names & {"HookedTransformer", "TransformerBridge"})


def _named_tensors(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    return sorted(model.named_parameters(), key=lambda item: item[0])


def _name_of(model: Any) -> str:
    config = getattr(model, "config", None) or getattr(model, "cfg", None)
    for attribute in ("_name_or_path", "name_or_path", "model_name"):
        value = getattr(config, attribute, None)
        if value:
            return str(value).rstrip("/").rsplit("/", 1)[-1]
    return type(model).__name__
