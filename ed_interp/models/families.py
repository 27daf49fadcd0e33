"""Which module of a ``transformers`` model is which site."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ed_interp.errors import CaptureError
from ed_interp.models.sites import Site

Side = Literal["input", "output"]

_ATTENTION = ("self_attn", "attn", "attention", "self_attention")
# Inside a block: the first child module that exists is the one, its input for resid_mid, else its
# output. Names joined by "+" must all exist. Gemma 2 and 3 normalise the outputs of attention and
# MLP before adding them, so the terms of the sum are the outputs of the post-norms, as in
# TransformerLens.
_INSIDE: dict[str, tuple[str, ...]] = {
    "attn_out": ("post_attention_layernorm+pre_feedforward_layernorm", *_ATTENTION),
    "mlp_out": ("post_feedforward_layernorm", "mlp", "block_sparse_moe", "feed_forward"),
    "resid_mid": (
        "pre_feedforward_layernorm",
        "ln_2",
        "post_attention_layernorm",
        "post_attention_norm",
    ),
}
# Blocks whose configurations do not say that they are parallel.
_ALWAYS_PARALLEL = {"GPTJBlock", "CodeGenBlock", "PhiDecoderLayer", "CohereDecoderLayer"}


def blocks_of(model: nn.Module, n_layers: int) -> nn.ModuleList:
    """The list of decoder blocks of a ``transformers`` model, or CaptureError."""
    # Nearly all decoder-only models are a list of blocks that take and return the stream, so the
    # blocks are identified by structure, and only modules inside a block need names.
    lists = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == n_layers
        and len({type(child) for child in module}) == 1
        and any(True for _ in module[0].children())
    }
    # Lists nested in blocks (experts) have this length only by accident: keep the outermost.
    outer = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    if len(outer) != 1:
        raise CaptureError(
            f"{type(model).__name__} must have one list of {n_layers} equal modules, its blocks, "
            f"got {', '.join(outer) or 'none'}; only decoder-only models are supported"
        )
    return lists[outer[0]]


def module_of(model: nn.Module, blocks: nn.ModuleList, site: Site) -> tuple[nn.Module, Side]:
    """The module whose input or output is the site.

    CaptureError if the family has no such place (for instance ``resid_mid`` of parallel blocks).
    """
    if site.kind == "embed":
        embeddings: Any = model
        return embeddings.get_input_embeddings(), "output"
    block = blocks[site.layer]
    if site.kind == "resid_pre":
        return block, "input"
    if site.kind == "resid_post":
        return block, "output"
    flags = ("use_parallel_residual", "parallel_attn")
    parallel = any(getattr(getattr(model, "config", None), flag, False) for flag in flags)
    if site.kind == "resid_mid" and (parallel or type(block).__name__ in _ALWAYS_PARALLEL):
        raise CaptureError(
            f"{site.name} does not exist: attention and MLP of {type(block).__name__} run in "
            f"parallel; use blocks.{site.layer}.hook_resid_pre or hook_resid_post"
        )
    side: Side = "input" if site.kind == "resid_mid" else "output"
    for names in _INSIDE[site.kind]:
        children = [getattr(block, name, None) for name in names.split("+")]
        if isinstance(children[0], nn.Module) and all(child is not None for child in children):
            return children[0], side
    children_names = ", ".join(name for name, _ in block.named_children())
    raise CaptureError(
        f"{site.name} has no known place in {type(block).__name__} (children: {children_names}); "
        f"use blocks.{site.layer}.hook_resid_pre or hook_resid_post"
    )


def hook_states(
    place: tuple[nn.Module, Side], change: Callable[[Tensor], Tensor]
) -> RemovableHandle:
    """Pass the states that go through one side of a module through ``change``."""

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    def after(_: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    module, side = place
    if side == "input":
        return module.register_forward_pre_hook(before, with_kwargs=True)
    return module.register_forward_hook(after)
