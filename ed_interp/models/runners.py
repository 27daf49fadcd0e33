"""One forward pass that reads chosen sites at chosen positions, on any kind of model.

A runner hides whether the model is a ``transformers`` model (or a PEFT wrapper of one), hooked on
its own modules, or a TransformerLens model, hooked on its hook points. It keeps the states at the
requested positions only, stops after the last block needed unless logits are requested, computes
logits at the requested positions only, and raises if a hook did not fire. Hooks are always removed,
and the model's training mode and parameters do not change.

Cost: that of the forward pass (see ``tests/benchmarks/bench_capture.py``), and in memory one
``batch read site d_model`` tensor in float32.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ed_interp.errors import CaptureError
from ed_interp.models.families import Side, blocks_of, hook_states, module_of
from ed_interp.models.sites import Site


@dataclasses.dataclass(frozen=True)
class Reading:
    """States and logits of one forward pass."""

    states: Float[Tensor, "batch read site d_model"]
    """In float32, on the model's device."""
    logits: Float[Tensor, "batch read_logits d_vocab"] | None
    """At the requested positions, in the model's dtype, after its own soft-capping or scaling."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Token ids, right-padded, with their positions and masks."""

    ids: Int[Tensor, "batch pos"]
    position_ids: Int[Tensor, "batch pos"] | None = None
    visible: Bool[Tensor, "batch pos pos"] | None = None
    """Which position (last axis) each position attends to; None is causal."""
    valid: Bool[Tensor, "batch keys"] | None = None
    """Mask over cached and new tokens; None is all of them."""
    cache: Any = None
    """A ``transformers`` cache of the tokens before ``ids``."""


class _StopForward(Exception):
    """Raised in a hook to end a forward pass whose remainder is not needed."""


def gather(
    hidden: Float[Tensor, "batch pos d"], reads: Int[Tensor, "batch read"]
) -> Float[Tensor, "batch read d"]:
    """The hidden states at ``reads``, one list of positions per row."""
    rows = torch.arange(hidden.shape[0], device=hidden.device)[:, None]
    return hidden[rows, reads.to(hidden.device)]


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while."""
    # Module by module: part of a model may have been in evaluation mode before.
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


class _Collector:
    """Keeps the states that hooks see, at the requested positions, and lists missing sites."""

    def __init__(self, sites: Sequence[Site], reads: Int[Tensor, "batch read"]) -> None:
        self.sites = list(sites)
        self.reads = reads
        self.seen: dict[Site, Tensor] = {}

    def keep(self, site: Site, hidden: Tensor, hook: Any = None) -> None:
        """``hook`` is the hook point, which TransformerLens passes."""
        if hidden.ndim == 2:  # OPT flattens its stream inside some blocks
            hidden = hidden.view(self.reads.shape[0], -1, hidden.shape[-1])
        self.seen[site] = gather(hidden, self.reads).float()

    def stack(self, device: torch.device) -> Tensor:
        missing = [site.name for site in self.sites if site not in self.seen]
        if missing:
            raise CaptureError(
                f"hooks did not fire at {', '.join(missing)}, {len(missing)} of {len(self.sites)} "
                "sites; the model skipped or replaced these modules"
            )
        return torch.stack([self.seen[site].to(device) for site in self.sites], dim=2)


class Runner(abc.ABC):
    """See the module's docstring."""

    model: Any
    config: Any
    n_layers: int
    d_model: int
    takes_masks = False
    """Whether it takes custom masks, position ids and a prefix cache."""
    virtual_tokens = 0
    """Tokens that prompt tuning puts before the input, which shifts all positions."""

    @property
    def device(self) -> torch.device:
        """The device for token ids."""
        return next(iter(self.model.parameters())).device  # type: ignore[no-any-return]

    @abc.abstractmethod
    def place(self, site: Site) -> tuple[nn.Module, Side]:
        """The module whose input or output is the site; CaptureError if the model has none."""

    @torch.no_grad()
    def run(
        self,
        inputs: Inputs,
        *,
        sites: Sequence[Site],
        reads: Int[Tensor, "batch read"],
        logit_reads: Int[Tensor, "batch read_logits"] | None = None,
    ) -> Reading:
        """One forward pass."""
        collector = _Collector(sites, reads + self.virtual_tokens)
        wanted = None if logit_reads is None else logit_reads + self.virtual_tokens
        with ExitStack() as stack:
            stack.enter_context(evaluation_mode(self.model))
            logits = self._pass(inputs, collector, wanted, stack)
        return Reading(collector.stack(self.device), logits)

    @abc.abstractmethod
    def _pass(
        self, inputs: Inputs, collector: _Collector, wanted: Tensor | None, stack: ExitStack
    ) -> Tensor | None:
        """One pass under hooks, which the stack removes; the logits at the positions ``wanted``."""


class TransformersRunner(Runner):
    """Hooks on the modules of a ``transformers`` model; PEFT models are called as they are."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        wrapped: Any = model
        base = wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else wrapped
        # The model inside torch.compile's wrapper.
        self.base: Any = getattr(base, "_orig_mod", base)
        config: Any = self.base.config
        self.config = config.get_text_config() if hasattr(config, "get_text_config") else config
        self.n_layers = int(self.config.num_hidden_layers)
        self.d_model = int(self.config.hidden_size)
        self.blocks = blocks_of(self.base, self.n_layers)
        self.virtual_tokens = virtual_tokens(model)
        # Adapters that carry states along the sequence cannot follow the branches of a packed one.
        carries = any(getattr(module, "carries_states", False) for module in model.modules())
        self.takes_masks = not (self.virtual_tokens or carries)

    @property
    def device(self) -> torch.device:
        embedding: nn.Module = self.base.get_input_embeddings()
        return next(embedding.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.blocks[0].parameters()).dtype

    def place(self, site: Site) -> tuple[nn.Module, Side]:
        return module_of(self.base, self.blocks, site)

    def _pass(
        self, inputs: Inputs, collector: _Collector, wanted: Tensor | None, stack: ExitStack
    ) -> Tensor | None:
        # Offloaded models move weights in their own hooks, which an exception would skip.
        offloaded = len(set(getattr(self.base, "hf_device_map", {}).values())) > 1

        def read(site: Site, hidden: Tensor) -> Tensor:
            collector.keep(site, hidden)
            if wanted is None and not offloaded and len(collector.seen) == len(collector.sites):
                raise _StopForward
            return hidden

        for site in collector.sites:
            stack.callback(hook_states(self.place(site), partial(read, site)).remove)
        fired = [False]
        if wanted is not None:
            self._hook_head(stack, lambda hidden: gather(hidden, wanted), fired)
        with contextlib.suppress(_StopForward):
            output = self.model(**self._arguments(inputs))
            if wanted is not None:
                logits: Tensor = output.logits
                return logits if fired[0] else gather(logits, wanted)
        return None

    @torch.no_grad()
    def prefix_cache(self, ids: Int[Tensor, "batch pos"], valid: Bool[Tensor, "batch pos"]) -> Any:
        """The key-value cache of ``ids`` (right-padded), for :attr:`Inputs.cache`."""
        with ExitStack() as stack:
            stack.enter_context(evaluation_mode(self.model))
            self._hook_head(stack, lambda hidden: hidden[:, -1:], [False])
            ids, mask = ids.to(self.device), valid.to(self.device).long()
            output = self.model(input_ids=ids, attention_mask=mask, use_cache=True)
        return output.past_key_values

    def _hook_head(
        self, stack: ExitStack, select: Callable[[Tensor], Tensor], fired: list[bool]
    ) -> None:
        """Feed the head the selected positions only."""
        # So the model's own head, soft-capping and scaling apply, and a full `pos d_vocab` tensor
        # is never made.
        head = self.base.get_output_embeddings()
        if head is None:
            return

        def before(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            fired[0] = True
            return (select(args[0]), *args[1:])

        stack.callback(head.register_forward_pre_hook(before).remove)

    def _arguments(self, inputs: Inputs) -> dict[str, Any]:
        device = self.device
        arguments: dict[str, Any] = {"input_ids": inputs.ids.to(device), "use_cache": False}
        if inputs.position_ids is not None:
            arguments["position_ids"] = inputs.position_ids.to(device)
        if inputs.visible is not None:
            arguments["attention_mask"] = self._masks(inputs, device)
        elif inputs.valid is not None:
            arguments["attention_mask"] = inputs.valid.to(device).long()
        elif self.virtual_tokens:
            arguments["attention_mask"] = torch.ones_like(arguments["input_ids"])
        if inputs.cache is not None:
            arguments |= {"past_key_values": inputs.cache, "use_cache": True}
        return arguments

    def _masks(self, inputs: Inputs, device: torch.device) -> Any:
        """The additive masks for each kind of layer."""
        # A boolean mask is silently wrong under eager attention, and a single tensor silently drops
        # the window of Gemma 2 and 3; hence floats and a dictionary.
        assert inputs.visible is not None
        visible = inputs.visible.to(device)
        kinds = set(getattr(self.config, "layer_types", None) or [])
        used = getattr(self.config, "use_sliding_window", True)
        window = getattr(self.config, "sliding_window", None) if used else None
        full = self._additive(visible)
        if window is None or (kinds and "sliding_attention" not in kinds):
            return full
        assert inputs.position_ids is not None
        # The window counts positions, not indices: a branch lies further back in the sequence.
        positions = inputs.position_ids.to(device)
        near = positions[:, :, None] - positions[:, None, :] < window
        sliding = self._additive(visible & near)
        if "sliding_attention" in kinds and "full_attention" in kinds:
            return {"full_attention": full, "sliding_attention": sliding}
        return sliding

    def _additive(self, visible: Bool[Tensor, "batch pos pos"]) -> Tensor:
        lowest = torch.finfo(self.dtype).min
        mask = torch.zeros(visible.shape, dtype=self.dtype, device=visible.device)
        return mask.masked_fill_(~visible, lowest)[:, None]


def virtual_tokens(model: nn.Module, *, cached: bool = False) -> int:
    """Number of tokens that a prompt-learning adapter puts before the input, or in the cache."""
    config = getattr(model, "active_peft_config", None)
    if config is None or not getattr(config, "is_prompt_learning", False):
        return 0
    # All other methods of prompt learning (prefix tuning) put keys and values in the cache.
    embedded = {"PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING"}
    return int(config.num_virtual_tokens) if cached or config.peft_type in embedded else 0


class LensRunner(Runner):
    """Hook points of a ``HookedTransformer`` or ``TransformerBridge``."""

    def __init__(self, model: Any) -> None:
        self.model, self.config = model, model.cfg
        self.n_layers = int(model.cfg.n_layers)
        self.d_model = int(model.cfg.d_model)

    def place(self, site: Site) -> tuple[nn.Module, Side]:
        point: Any = self.model.hook_dict.get(site.name)
        if point is None:
            # A bridge lists canonical names only; its aliases are attributes.
            point = self.model
            for part in site.name.split("."):
                point = point[int(part)] if part.isdigit() else getattr(point, part, None)
        if isinstance(point, nn.Module):
            return point, "output"
        near = [name for name in self.model.hook_dict if name.startswith(f"blocks.{site.layer}.")]
        raise CaptureError(
            f"{site.name} is not a hook point of this {type(self.model).__name__}; its block has: "
            f"{', '.join(near) or 'none'}"
        )

    def _pass(
        self, inputs: Inputs, collector: _Collector, wanted: Tensor | None, stack: ExitStack
    ) -> Tensor | None:
        if inputs.visible is not None or inputs.cache is not None or inputs.valid is not None:
            raise CaptureError(
                "masks and caches must be left out for a TransformerLens model; use path='separate'"
            )
        # The bridge cannot stop early and warns about it.
        whole = wanted is not None or type(self.model).__name__ == "TransformerBridge"
        last = max((site.layer for site in collector.sites), default=0)
        stop = {} if whole else {"stop_at_layer": last + 1}
        # A bridge does not list the modules of the model it wraps as its own.
        if isinstance(inner := getattr(self.model, "original_model", None), nn.Module):
            stack.enter_context(evaluation_mode(inner))
        logits = self.model.run_with_hooks(
            inputs.ids.to(self.device),
            fwd_hooks=[(site.name, partial(collector.keep, site)) for site in collector.sites],
            return_type=None if wanted is None else "logits",
            **stop,
        )
        return None if wanted is None else gather(logits, wanted)
