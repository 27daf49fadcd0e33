"""`inject`: interventions on a model for as long as a context lasts.

All injections on one model share the hooks that know which pass or ``generate`` runs. The first
injection sets them, the last one removes them. State is kept per thread.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load
from ed_interp.models.runners import TransformersRunner, virtual_tokens
from ed_interp.streams.injection.calls import Call, Generation
from ed_interp.streams.injection.injection import Injection
from ed_interp.streams.injection.interventions import Intervention

_LOCK = threading.Lock()
_REGISTRIES: dict[int, _Registry] = {}


@contextlib.contextmanager
def inject(
    model: Any,
    *interventions: Intervention,
    prompt_length: int | Int[Tensor, " batch"] | None = None,
    strict: bool = True,
    all_threads: bool = False,
) -> Iterator[Injection]:
    """Write to the residual stream of ``model`` inside the context.

    Args:
        model: Anything :func:`ed_interp.load` takes. A live model is used as before (``generate``,
            forward, ``capture``); it runs with the interventions until the context ends.
        *interventions: Applied in this order at each site. Without any the model is left alone.
        prompt_length: Where the prompt ends, for plain forward passes: tokens per row (or one
            number for all), padding not counted. Not needed for ``generate``.
        strict: Raise on leaving if an intervention touched no token, if an integer position was
            never reached, or if the model was not called.
        all_threads: Also act when another thread calls the model (``generate`` in a worker, for a
            streamer). By default other threads' calls are left alone.

    Raises:
        InvalidInputError: an intervention that does not fit (another model's direction, a wrong
            width, NaN, a number too large for the precision), positions that do not exist, a
            selection that matched no token, or a model wrapped by ``torch.compile``.
        UnknownNameError: no such site; the nearest are listed.
        CaptureError: this architecture has no such place, or the hooks did not fire.
    """
    hooked = load(model)
    lengths = None
    if prompt_length is not None:
        lengths = torch.as_tensor(prompt_length).reshape(-1)
        if lengths.is_floating_point() or bool((lengths < 0).any()):
            wanted = "prompt_length must be a number of tokens, one for all or one per row"
            raise InvalidInputError(f"{wanted}, got {prompt_length}")
        lengths = lengths.long()
    owner = None if all_threads else threading.get_ident()
    injection = Injection(hooked, interventions, lengths, strict, owner)
    with _Registry.of(hooked, injection):
        yield injection
    injection.verify()


class _Running(threading.local):
    """The forward pass of a thread, and its ``generate`` calls, the innermost last, after None."""

    call: Call | None = None

    def __init__(self) -> None:
        self.generations: list[Generation | None] = [None]


class _Registry:
    """The injections on one model, outermost first."""

    def __init__(self, hooked: HookedModel) -> None:
        self.model = hooked.model
        self.runner = hooked.runner
        self.base: Any = getattr(hooked.runner, "base", hooked.model)
        self.virtual = virtual_tokens(hooked.model, cached=True)
        self.injections: list[Injection] = []
        self.last: list[RemovableHandle] = []
        self._running = _Running()
        self._undo = contextlib.ExitStack()

    @classmethod
    @contextlib.contextmanager
    def of(cls, hooked: HookedModel, injection: Injection) -> Iterator[None]:
        """``injection`` acts on the model inside the context."""
        # By the innermost model: a PEFT wrapper and its base share their modules.
        key = id(getattr(hooked.runner, "base", hooked.model))
        handles: list[RemovableHandle] = []
        registry: _Registry | None = None
        try:
            with _LOCK:
                registry = _REGISTRIES.get(key)
                if registry is None:
                    registry = cls(hooked)
                    registry._install()
                    _REGISTRIES[key] = registry
                # A new list, as for `last` below: another thread may be going through the old one.
                registry.injections = [*registry.injections, injection]
            running = registry._running
            for install, last in injection.places:
                installed = install(lambda at, states: injection.write(at, states, running.call))
                handles += installed
                if last:
                    registry.last = [*registry.last, *installed]
            # Behind all hooks set since; moved in place, not removed and set again: a pass running
            # in another thread must not miss one.
            for handle in registry.last:
                hooks = handle.hooks_dict_ref()
                if hooks is not None and handle.id in hooks:
                    hooks.move_to_end(handle.id)
            yield
        finally:
            for handle in handles:
                handle.remove()
            with _LOCK:
                if registry is not None:
                    registry.last = [one for one in registry.last if one not in handles]
                    left = [other for other in registry.injections if other is not injection]
                    registry.injections = left
                    if not left and _REGISTRIES.get(key) is registry:
                        del _REGISTRIES[key]
                        registry._undo.close()

    def _install(self) -> None:
        with contextlib.ExitStack() as stack:
            inner = getattr(self.model, "original_model", None)
            if isinstance(self.runner, TransformersRunner):
                # The module that runs the blocks: OPT's head calls it past the model in between.
                blocks = self.runner.blocks
                owners = (m for m in self.base.modules() if any(c is blocks for c in m.children()))
                self._follow_decoder(stack, next(owners, self.base))
            elif isinstance(inner, nn.Module):  # a TransformerBridge calls the model it wraps
                self._follow_decoder(stack, getattr(inner, "base_model", inner))
            else:
                self._follow_forward(stack)
            # generate knows how long the prompts are; single passes do not show it, above all with
            # prefill in chunks or assisted decoding. Wrapped on the instance, never on the class.
            if hasattr(self.base, "generate"):
                self._replace(stack, "generate", self._generate)
            if hasattr(self.base, "generate_stream"):
                self._replace(stack, "generate_stream", lambda _: _refuse_stream)
            self._undo = stack.pop_all()

    def _replace(self, stack: contextlib.ExitStack, name: str, make: Callable[[Any], Any]) -> None:
        """Shadow a method on the instance until the stack is closed."""
        own = self.base.__dict__
        before = own.get(name)
        own[name] = make(getattr(self.base, name))
        if before is None:
            stack.callback(own.pop, name, None)
        else:
            stack.callback(own.__setitem__, name, before)

    def _begin(self, call: Call) -> None:
        self._running.call = call
        # A list, not any(): every injection must see the beginning.
        concerned = [injection for injection in self.injections if injection.begin(call)]
        if not concerned or not torch.is_grad_enabled():
            return
        modules = self.base.modules()
        if any(getattr(m, "gradient_checkpointing", False) and m.training for m in modules):
            raise InvalidInputError(
                "gradient checkpointing must be off inside inject(...), got it on: it would run "
                "blocks again without the injection; call gradient_checkpointing_disable()"
            )

    def _end(self, *, complete: bool) -> None:
        call, self._running.call = self._running.call, None
        if complete and call is not None:
            for injection in self.injections:
                injection.finish(call)

    def _follow_decoder(self, stack: contextlib.ExitStack, decoder: nn.Module) -> None:
        """Notice each call of the decoder, through its head, an adapter or ``generate``."""
        names = list(inspect.signature(decoder.forward).parameters)

        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            # Positional arguments by name; fewer may be given than there are parameters.
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            self._begin(Call.of(given, self.virtual, self._running.generations[-1]))

        def after(_: nn.Module, args: Any, output: Any) -> None:
            # always_call: after an exception the output is None, and no site has to have fired.
            self._end(complete=output is not None)

        stack.callback(decoder.register_forward_pre_hook(before, with_kwargs=True).remove)
        stack.callback(decoder.register_forward_hook(after, always_call=True).remove)

    def _follow_forward(self, stack: contextlib.ExitStack) -> None:
        """Notice each call of a HookedTransformer, whose ``forward`` PyTorch hooks do not see."""
        signature = inspect.signature(type(self.model).forward)

        def make(forward: Any) -> Any:
            @functools.wraps(forward)
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                given = signature.bind_partial(self.model, *args, **kwargs).arguments
                self._begin(_lens_call(given, self._running.generations[-1]))
                complete = False
                try:
                    output = forward(*args, **kwargs)
                    complete = given.get("stop_at_layer") is None
                finally:
                    self._end(complete=complete)
                return output

            return wrapped

        self._replace(stack, "forward", make)

    def _generate(self, generate: Any) -> Any:
        @functools.wraps(generate)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            running = self._running.generations
            running.append(_generation(args, kwargs))
            try:
                return generate(*args, **_without_compile(kwargs))
            finally:
                running.pop()

        return wrapped


def _generation(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Generation:
    guidance = kwargs.get("guidance_scale")
    guidance = guidance or getattr(kwargs.get("generation_config"), "guidance_scale", None)
    if guidance not in (None, 1, 1.0):
        why = "it adds prompts of its own, whose positions are unknown"
        wanted = "guidance_scale must be left out inside inject(...)"
        raise InvalidInputError(f"{wanted}, got {guidance}: {why}")
    given = args[0] if args else None
    for name in ("inputs", "input_ids", "input", "inputs_embeds"):
        given = kwargs.get(name) if given is None else given
    if not isinstance(given, Tensor) or given.ndim < 2:
        return Generation(None, None, None)
    mask = kwargs.get("attention_mask")
    return Generation(given.shape[0], given.shape[1], mask if isinstance(mask, Tensor) else None)


def _without_compile(kwargs: dict[str, Any]) -> dict[str, Any]:
    # With some caches `generate` compiles by itself, and a compiled graph would keep our hooks.
    config = copy.copy(kwargs.get("generation_config"))
    if config is not None:
        config.disable_compile = True
        return {**kwargs, "generation_config": config}
    if kwargs.get("cache_implementation") or kwargs.get("past_key_values") is not None:
        return {**kwargs, "disable_compile": True}
    return kwargs


def _refuse_stream(*_: Any, **__: Any) -> Any:
    raise InvalidInputError(
        "generate_stream cannot be used inside inject(...), as its prompt is unknown; use generate"
    )


def _lens_call(given: dict[str, Any], generation: Generation | None) -> Call:
    """The call from the arguments of ``HookedTransformer.forward``."""
    tokens = given.get("input")
    if not isinstance(tokens, Tensor):
        raise InvalidInputError(
            "the input must be token ids inside inject(...), got text, whose padding and begin "
            "token are unknown here; give model.to_tokens(text)"
        )
    if tokens.ndim == 1:
        tokens = tokens[None]
    cache = given.get("past_kv_cache")
    arguments = {
        "input_ids" if tokens.ndim == 2 else "inputs_embeds": tokens,
        "attention_mask": given.get("attention_mask"),
        # As the old form of a transformers cache, `batch head pos d_head`, to tell its length.
        "past_key_values": [[cache[0].past_keys.transpose(1, 2)]] if cache is not None else None,
    }
    return Call.of(arguments, 0, generation)
