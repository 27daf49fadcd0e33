"""Where node states live between forward passes, and how layers learn about the pass they are in.

Hooks on the base model (and on encoder and decoder, where there are two) open a :class:`Frame` for
the duration of a forward pass: masks, positions and the cache that came with the call. The layers
ask the frame for their starting states and hand it their final ones; when the pass ends these go
into the cache of ``transformers``, as a cache layer of their own, so that beam search, cropping,
repeating and resetting reach them like keys and values.

The frame is a context variable: threads that share a model do not see each other's. Gradient
checkpointing runs layers again after the pass is over; the functions that do so are wrapped so that
they bring their frame along.

COST: a few microseconds per forward pass; in the cache, ``nodes`` float32 numbers per targeted
layer and sequence, and as many for each of the last 64 tokens, so that the cache can be cropped.
"""

from __future__ import annotations

import contextvars
import dataclasses
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, CacheLayerMixin, EncoderDecoderCache

from ed_interp.adapters.bias_injection.masks import Plan, plan, read_mask, restarts_of
from ed_interp.errors import InvalidInputError

CROP_REACH = 64
"""Tokens by which a cache can be cropped, unless past recording is on."""


@runtime_checkable
class Memory(Protocol):
    """What an experience provides to a forward pass; see :mod:`.experience`."""

    def owns(self, module: nn.Module) -> bool: ...

    def start(self, key: str, rows: int, nodes: int) -> Tensor | None: ...

    def finish(self, finals: dict[str, Tensor], rows: int) -> None: ...


MEMORY: contextvars.ContextVar[Memory | None] = contextvars.ContextVar("node_memory", default=None)
"""The experience that this thread is in."""
FRAME: contextvars.ContextVar[Frame | None] = contextvars.ContextVar("node_frame", default=None)
"""The forward pass that is going on in this thread."""


class NodeStates(CacheLayerMixin):  # type: ignore[misc]
    """The node states of one stack of layers, as a layer of the ``transformers`` cache."""

    is_compileable = False
    is_croppable = True
    is_sliding = False
    supports_early_init = False

    def __init__(self, stack: str) -> None:
        super().__init__()
        self.stack = stack
        self.tokens = 0
        self.counts: Tensor | None = None
        """Tokens that count, per row."""
        self.states: dict[str, Tensor] = {}
        """States after the last token, by layer and adapter."""
        self.before: dict[str, deque[Tensor]] = {}
        """States before each of the last tokens, newest last: what crop goes back to."""
        self.record_past = False

    def activate_past_recording(self) -> None:
        """From now on keep every state, so that any number of tokens can be cropped."""
        self.record_past = True
        self.before = {key: deque(past) for key, past in self.before.items()}

    def keep(self, key: str, final: Tensor, past: Tensor) -> None:
        """Store the states after the pass, and those before each of its tokens."""
        self.states[key] = final
        if key not in self.before:
            self.before[key] = deque(maxlen=None if self.record_past else CROP_REACH)
        if past.shape[1] == 1:
            self.before[key].append(past[:, 0])
        else:
            # A clone, since a view of the last 64 would keep the states of a whole prompt alive.
            reach = past if self.record_past else past[:, -CROP_REACH:].detach().clone()
            self.before[key].extend(reach.unbind(1))

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.is_initialized = True

    def update(self, key_states: Any, value_states: Any, *args: Any, **kwargs: Any) -> Any:
        if key_states is None and value_states is None:
            return None, None
        raise NotImplementedError("this cache layer holds node states, not keys and values")

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.tokens + query_length, 0

    def get_seq_length(self) -> int:
        return self.tokens

    def get_max_length(self) -> int:
        return -1

    def offload(self) -> None:
        """Nothing: the states are small."""

    get_max_cache_shape = get_max_length
    prefetch = offload

    def reset(self) -> None:
        self.tokens, self.counts = 0, None
        self.states, self.before = {}, {}

    def crop(self, tokens_to_remove: int) -> None:
        if tokens_to_remove > 0:
            raise ValueError("crop takes minus the number of tokens to remove")
        remove = -tokens_to_remove
        if remove == 0:
            return
        short = min((len(past) for past in self.before.values()), default=0)
        if remove > short or self.counts is None:
            raise InvalidInputError(
                f"cannot crop the cache by {remove} tokens: node states are kept for the last "
                f"{short}, and none after beam search; run the shorter sequence again"
            )
        for key, past in self.before.items():
            # past[-1] is the state before the last token, so past[-n] the one without the last n.
            self.states[key] = past[-remove]
            for _ in range(remove):
                past.pop()
        self.tokens -= remove
        self.counts = (self.counts - remove).clamp(min=0)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._rows(lambda tensor: tensor.index_select(0, beam_idx.to(tensor.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._rows(lambda tensor: tensor.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        self._rows(lambda tensor: tensor[indices])

    def _rows(self, change: Callable[[Tensor], Tensor]) -> None:
        self.states = {key: change(value) for key, value in self.states.items()}
        self.counts = None if self.counts is None else change(self.counts)
        # What was before belongs to rows that may be gone; beams are never cropped.
        self.before = {key: deque(maxlen=past.maxlen) for key, past in self.before.items()}


@dataclasses.dataclass(eq=False)
class Frame:
    """One forward pass of a stack of layers."""

    module: nn.Module
    stack: str
    rows: int | None
    time: int | None
    mask: Any
    position_ids: Any
    encoder_mask: Any
    cache: Cache | None
    past: int
    memory: Memory | None
    keeps: bool
    """Whether anything reads the states after the pass."""
    outer: Frame | None
    stored: NodeStates | None = None
    """The states in the cache that came with the call."""
    finals: dict[str, tuple[Tensor, Tensor]] = dataclasses.field(default_factory=dict)
    closed: bool = False
    # None until it is made; in a tuple, as the plan may itself be None.
    _plan: tuple[Plan | None] | None = None
    _encoder_plan: tuple[Plan | None] | None = None
    _counts: Tensor | None = None

    def fits(self, rows: int, time: int) -> bool:
        """Whether an input of this shape is this stack's sequence."""
        return self.time is None or (rows == self.rows and time == self.time)

    def start(self, key: str, rows: int, nodes: int, device: torch.device) -> Tensor | None:
        """States before the first token of this pass, ``row node``; None for zeros.

        A cache that was filled while the adapter was off, or with another batch, is refused.
        """
        if self.past:
            state = None if self.stored is None else self.stored.states.get(key)
            # A cache longer than the states: tokens were added while the adapter was off.
            if state is None or self.stored is None or self.stored.tokens != self.past:
                raise InvalidInputError(
                    f"the cache holds {self.past} tokens without the node states of {key!r}: it "
                    "was filled while this adapter was off; start from an empty cache"
                )
            if state.shape != (rows, nodes):
                raise InvalidInputError(
                    f"the cache holds node states of shape {tuple(state.shape)} for {key!r}, but "
                    f"this pass has {rows} sequences and {nodes} nodes; start from an empty cache"
                )
            return state.to(device)
        state = None if self.memory is None else self.memory.start(key, rows, nodes)
        return None if state is None else state.to(device)

    def plan(self, rows: int, time: int) -> Plan | None:
        """The layout of this stack's tokens, made once per pass."""
        if self._plan is None:
            real, restarts = read_mask(self.mask, rows=rows, time=time, past=self.past)
            if real is not None and real.shape != (rows, time):
                real = None
            counts = self.stored.counts if self.stored is not None and self.past else None
            if counts is not None:
                self._check_past(counts)
            if restarts is None:
                # Position 0 begins a sequence only where the row has tokens before it, here or in
                # the cache.
                seen = None if counts is None else counts > 0
                restarts = restarts_of(self.position_ids, real, seen)
                if restarts is not None and restarts.shape != (rows, time):
                    # One row of positions serves the whole batch.
                    restarts = restarts.expand(rows, time) if restarts.shape[0] == 1 else None
            self._counts = None
            if self.keeps:
                given = (real, self.mask, self.position_ids)
                device = next((each.device for each in given if isinstance(each, Tensor)), None)
                added = torch.full((rows,), time, device=device) if real is None else real.sum(1)
                self._counts = added if counts is None else counts.to(added.device) + added
            self._plan = (plan(real, restarts, final=self.keeps),)
        return self._plan[0]

    def encoder_plan(self, rows: int, time: int) -> Plan | None:
        """The layout of the encoder's tokens, which cross-attention reads."""
        mask = self.encoder_mask
        if not isinstance(mask, Tensor) or mask.ndim != 2 or mask.shape != (rows, time):
            return None
        if self._encoder_plan is None:
            self._encoder_plan = (plan(mask.bool(), None, final=False),)
        return self._encoder_plan[0]

    def _check_past(self, counts: Tensor) -> None:
        """Masks that hide cached tokens would need states from before them, which are gone."""
        if not isinstance(self.mask, Tensor) or self.mask.ndim != 2:
            return
        # Comparing values would break the graph; a mask of the present tokens only hides nothing.
        if torch.compiler.is_compiling() or self.mask.shape[1] < self.past:
            return
        visible = self.mask[:, : self.past].sum(1)
        if visible.shape == counts.shape and not bool((visible == counts.to(visible.device)).all()):
            raise InvalidInputError(
                "the attention mask hides cached tokens that were visible when the cache was "
                "filled, and node states cannot forget them; run those sequences from the start"
            )

    def keep(self, key: str, final: Tensor, past: Tensor) -> None:
        """Take a layer's states after the pass, and those before each of its tokens."""
        if not self.closed:
            self.finals[key] = (final, past)

    def close(self, output: Any) -> None:
        """Put the final states into the cache and the experience."""
        self.closed = True
        if not self.finals:
            return
        named = [getattr(output, name, None) for name in ("past_key_values", "cache_params")]
        parts = [self.cache, *named, *(output if isinstance(output, tuple) else ())]
        cache = next((part for part in parts if isinstance(part, Cache)), None)
        if cache is not None and self.time is not None:
            states = self.stored
            if states is None:
                # Behind the layers of keys and values: those are addressed by their index.
                states = NodeStates(self.stack)
                _layers(cache).append(states)
            for key, (final, past) in self.finals.items():
                states.keep(key, final, past)
            states.tokens = self.past + self.time
            states.counts = self._counts
        if self.memory is not None:
            last = {key: value for key, (value, _) in self.finals.items()}
            self.memory.finish(last, next(iter(last.values())).shape[0])


def open_frame(module: nn.Module, stack: str, given: dict[str, Any]) -> Frame:
    """Read the arguments of a forward pass."""
    cache = given.get("past_key_values")
    if cache is None:
        cache = given.get("cache_params")  # the name in Mamba and its like
    memory = MEMORY.get()
    if memory is not None and (stack == "encoder" or not memory.owns(module)):
        memory = None
    use_cache = given.get("use_cache")
    if use_cache is None:
        use_cache = getattr(getattr(module, "config", None), "use_cache", False)
    keeps = stack != "encoder" and bool(memory is not None or cache is not None or use_cache)
    if not isinstance(cache, Cache):
        cache = None
    # Around an encoder and a decoder, what the head reads is the decoder's sequence.
    prefix = "decoder_" if stack == "head" else ""
    tokens = given.get(f"{prefix}input_ids")
    if tokens is None:
        tokens = given.get(f"{prefix}inputs_embeds")
    rows, time = None, None
    if isinstance(tokens, Tensor) and tokens.ndim >= 2:
        rows, time = tokens.shape[0], tokens.shape[1]
    stored, past = None, 0
    if cache is not None:
        ours = (layer for layer in _layers(cache) if isinstance(layer, NodeStates))
        stored = next((layer for layer in ours if layer.stack == stack), None)
        past = stored.tokens if stored is not None else 0
        # Reading the length would break a compiled graph; the node states know it.
        if not torch.compiler.is_compiling():
            try:
                past = int(cache.get_seq_length())
            except ValueError:
                # Caches without any attention layer do not know their length.
                past = past if stored is not None else int(bool(cache.has_previous_state()))
    return Frame(
        module=module,
        stack=stack,
        rows=rows,
        time=time,
        mask=given.get(f"{prefix}attention_mask"),
        position_ids=given.get(f"{prefix}position_ids"),
        encoder_mask=given.get("encoder_attention_mask"),
        cache=cache,
        past=past,
        memory=memory,
        keeps=keeps,
        outer=FRAME.get(),
        stored=stored,
    )


def _layers(cache: Cache) -> list[Any]:
    inner = cache.self_attention_cache if isinstance(cache, EncoderDecoderCache) else cache
    layers: list[Any] = inner.layers
    return layers
