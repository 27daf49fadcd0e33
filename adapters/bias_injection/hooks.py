"""Hooks that open a frame around each forward pass, and carry it through gradient checkpointing.

They are functions of the module they are called with and hold no reference to a model, so a model
that carries them can be copied, pickled and moved like any other.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ed_interp.adapters.bias_injection.state import FRAME, open_frame


def install(model: nn.Module) -> None:
    """Put the hooks on ``model``, on its inner stack, or on its encoder and decoder. Repeatable."""
    for stack, module in hooked_modules(model):
        if any(_is_ours(hook, enter) for hook in module._forward_pre_hooks.values()):
            continue
        # Positional arguments reach a hook without their names; [1:] leaves out self.
        names = tuple(inspect.signature(type(module).forward).parameters)[1:]
        opened = functools.partial(enter, stack=stack, names=names)
        module.register_forward_pre_hook(opened, with_kwargs=True)
        # Also after an exception: a frame left open would be taken for the next pass's outer one.
        module.register_forward_hook(leave, always_call=True)


def remove(model: nn.Module) -> None:
    """Take the hooks off, and the wrapping of the checkpointing functions."""
    for module in model.modules():
        # Handles are not kept, as they would not survive a copy of the model; so torch's own
        # bookkeeping for each hook is cleared here, as RemovableHandle.remove would do it.
        for hooks, ours, extra in (
            (module._forward_pre_hooks, enter, module._forward_pre_hooks_with_kwargs),
            (module._forward_hooks, leave, module._forward_hooks_always_called),
        ):
            for number in [n for n, hook in hooks.items() if _is_ours(hook, ours)]:
                del hooks[number]
                extra.pop(number, None)
        function = module.__dict__.get("_gradient_checkpointing_func")
        if isinstance(function, Carrying):
            module._gradient_checkpointing_func = function.function


def enter(
    module: nn.Module, args: Any, kwargs: dict[str, Any], *, stack: str, names: tuple[str, ...]
) -> None:
    """Open the frame, unless the model around this module has opened it already."""
    outer = FRAME.get()
    if stack == "inner":
        if outer is not None and getattr(outer.module, "base_model", None) is module:
            return
        # Called by itself, without the language-model head: it is the whole pass.
        stack = "main"
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    FRAME.set(open_frame(module, stack, given))
    # At every forward pass, since gradient_checkpointing_enable may be called at any time.
    layers: Any = module.modules() if module.training and torch.is_grad_enabled() else ()
    for layer in layers:
        if getattr(layer, "gradient_checkpointing", False):
            function = getattr(layer, "_gradient_checkpointing_func", None)
            if function is not None and not isinstance(function, Carrying):
                layer._gradient_checkpointing_func = Carrying(function)


def leave(module: nn.Module, args: Any, output: Any) -> None:
    """Close the frame that this module opened."""
    frame = FRAME.get()
    if frame is None or frame.module is not module:
        return
    FRAME.set(frame.outer)
    # After an exception there is no output and the states are worth nothing.
    if output is not None:
        frame.close(output)


class Carrying:
    """A checkpointing function that runs what it is given inside the frame of the forward pass.

    Without it the second run, during the backward pass, has no frame: with ``use_reentrant=True``
    the gradients would be wrong without a word.
    """

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, run: Any, *args: Any, **kwargs: Any) -> Any:
        frame = FRAME.get()

        def run_inside(*args: Any, **kwargs: Any) -> Any:
            token = FRAME.set(frame)
            try:
                return run(*args, **kwargs)
            finally:
                FRAME.reset(token)

        return self.function(run_inside, *args, **kwargs)


def hooked_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules whose forward pass opens a frame, with the name of their stack."""
    whole: Any = model
    two = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    if two and hasattr(model, "get_encoder") and hasattr(model, "get_decoder"):
        # Each has masks and a length of its own; the model around them is the stack of the head.
        for name, part in (("encoder", whole.get_encoder()), ("decoder", whole.get_decoder())):
            if isinstance(part, nn.Module) and part is not model:
                yield name, part
        yield "head", model
        return
    yield "main", model
    inner = getattr(model, "base_model", None)
    if isinstance(inner, nn.Module) and inner is not model:
        yield "inner", inner


def _is_ours(hook: Any, function: Any) -> bool:
    # Pre-hooks are partials of our function; a deep copy of a partial keeps its function.
    return getattr(hook, "func", hook) is function
