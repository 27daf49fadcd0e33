"""Which module of a ``transformers`` model is which site.

Nearly all decoder-only models are a list of blocks that take and return the stream, so blocks are
found by structure (the module list as long as the configuration says) and only what stands inside
a block needs names. ``GPT2Block`` returns a bare tensor in transformers 5 and a tuple in other
families and versions: both are handled where the hooks are (:mod:`ed_interp.models.runners`).
"""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from ed_interp.errors import CaptureError
from ed_interp.models.sites import Site

Side = Literal["input", "output"]

# Inside a block, in order of preference: (kind, child module, side). The first child that exists
# wins. Gemma 2 and 3 normalise what attention and MLP give before adding it, so there the sum's
# terms are the outputs of the post-norms, as TransformerLens has it.
_INSIDE: dict[str, tuple[tuple[str, Side], ...]] = {
    "attn_out": (
        ("post_attention_layernorm+pre_feedforward_layernorm", "output"),
        ("self_attn", "output"),
        ("attn", "output"),
        ("attention", "output"),
        ("self_attention", "output"),
    ),
    "mlp_out": (
        ("post_feedforward_layernorm", "output"),
        ("mlp", "output"),
        ("block_sparse_moe", "output"),
        ("feed_forward", "output"),
    ),
    "resid_mid": (
        ("pre_feedforward_layernorm", "input"),
        ("ln_2", "input"),
        ("post_attention_layernorm", "input"),
        ("post_attention_norm", "input"),
    ),
}


def blocks_of(model: nn.Module, n_layers: int) -> nn.ModuleList:
    """The list of decoder blocks of a ``transformers`` model.

    Raises:
        CaptureError: no module list, or more than one, has ``n_layers`` equal blocks.
    """
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == n_layers
        and len({type(child) for child in module}) == 1
        and any(True for _ in module[0].children())
    ]
    # Lists nested in blocks (experts) share the length only by accident: keep the outermost.
    outer = [
        (name, module)
        for name, module in found
        if not any(name != other and name.startswith(f"{other}.") for other, _ in found)
    ]
    if len(outer) != 1:
        names = ", ".join(name for name, _ in outer) or "none"
        raise CaptureError(
            f"cannot find the blocks of {type(model).__name__}: asked for one list of {n_layers} "
            f"equal modules, found {names}; only decoder-only models are supported"
        )
    return outer[0][1]


def module_of(model: nn.Module, blocks: nn.ModuleList, site: Site) -> tuple[nn.Module, Side]:
    """The module whose input or output is the site.

    Raises:
        CaptureError: the family has no such place (for instance ``resid_mid`` of parallel blocks).
    """
    if site.kind == "embed":
        embeddings: Any = model
        return embeddings.get_input_embeddings(), "output"
    block = blocks[site.layer]
    if site.kind == "resid_pre":
        return block, "input"
    if site.kind == "resid_post":
        return block, "output"
    if site.kind == "resid_mid" and _is_parallel(model, block):
        raise CaptureError(
            f"{site.name}: attention and MLP of {type(block).__name__} run in parallel, so the "
            f"stream has no middle; use blocks.{site.layer}.hook_resid_pre or hook_resid_post"
        )
    for names, side in _INSIDE[site.kind]:
        children = [getattr(block, name, None) for name in names.split("+")]
        if isinstance(children[0], nn.Module) and all(child is not None for child in children):
            return children[0], side
    there = ", ".join(name for name, _ in block.named_children())
    raise CaptureError(
        f"{site.name}: {type(block).__name__} has no known place for it (its children: {there}); "
        f"use blocks.{site.layer}.hook_resid_pre or hook_resid_post"
    )


def _is_parallel(model: nn.Module, block: nn.Module) -> bool:
    config = getattr(model, "config", None)
    return bool(
        getattr(config, "use_parallel_residual", False)
        or getattr(config, "parallel_attn", False)
        or type(block).__name__
        in {"GPTJBlock", "CodeGenBlock", "PhiDecoderLayer", "CohereDecoderLayer"}
    )
