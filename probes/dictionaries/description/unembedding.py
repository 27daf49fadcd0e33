"""What a latent does to the next token directly: its decoder row through the unembedding.

    effect[latent, token] = (centred row * scale of the final norm) . unembedding[token]

less its mean over the vocabulary, which no softmax sees. The row is centred if the final norm
centres. The norm's division by the size of the state is left out, so effects compare tokens and
latents, but are not logits; later blocks are left out too, so it is most exact near the last block.
Cost: one product of ``latent x d_model`` by ``d_model x vocabulary``, in pieces.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from ed_interp.models.hooked import HookedModel
from ed_interp.models.runners import TransformersRunner
from ed_interp.probes.dictionaries.description.contexts import Columns
from ed_interp.probes.dictionaries.observation import CELLS


@torch.no_grad()
def direct_effects(
    hooked: HookedModel, decoder: Float[Tensor, "latent d_model"], *, top: int
) -> Columns:
    """Top tokens of each row of ``decoder``; nothing if the unembedding cannot be read."""
    unembedding = _unembedding(hooked)
    if unembedding is None:
        return {}
    scale, centres = _final_norm(hooked)
    rows = decoder.to(unembedding.device, torch.float32)
    if centres:
        rows = rows - rows.mean(-1, keepdim=True)
    if scale is not None:
        rows = rows * scale.to(rows.device)
    top = min(top, unembedding.shape[0])
    columns: dict[str, list[NDArray[Any]]] = defaultdict(list)
    for part in torch.split(rows, max(1, CELLS // unembedding.shape[0])):
        effect = part @ unembedding.T
        effect -= effect.mean(-1, keepdim=True)
        for name, sign in (("promoted", 1), ("suppressed", -1)):
            values, ids = (sign * effect).topk(top, dim=-1)
            columns[name].append(ids.to(torch.int32).cpu().numpy())
            columns[f"{name}_by"].append((sign * values).cpu().numpy())
    return {name: np.concatenate(pieces) for name, pieces in columns.items()}


def _unembedding(hooked: HookedModel) -> Float[Tensor, "token d_model"] | None:
    if isinstance(hooked.runner, TransformersRunner):
        head = hooked.runner.base.get_output_embeddings()
        weight = getattr(head, "weight", None)
        return None if weight is None else weight.detach().float()
    weight = getattr(hooked.model, "W_U", None)
    return weight.detach().float().T if isinstance(weight, Tensor) else None


def _final_norm(hooked: HookedModel) -> tuple[Tensor | None, bool]:
    """Its scale per channel, and whether it centres."""
    if not isinstance(hooked.runner, TransformersRunner):
        # TransformerLens keeps the scale in the unembedding, or it is processed away.
        return None, hooked.norm == "layernorm"
    # Families name it differently: it is the first norm after the list of blocks.
    blocks = hooked.runner.blocks
    for parent in hooked.runner.base.modules():
        seen = False
        for child in parent.children():
            seen = seen or child is blocks
            if seen and "norm" in type(child).__name__.lower():
                return _scale_of(child, hooked.d_model), hooked.norm == "layernorm"
    return None, False


def _scale_of(norm: nn.Module, width: int) -> Tensor | None:
    """The scale of a norm, read off its output, as families store it differently (w or 1 + w)."""
    parameter = next(iter(norm.parameters()), None)
    if parameter is None or width % 2:
        return None
    # An input of alternating signs has mean 0 and size 1, so its output is scale times sign, plus
    # the bias, which is the output for zeros.
    signs = torch.ones(width, device=parameter.device, dtype=parameter.dtype)
    signs[1::2] = -1
    flat: Tensor = norm(signs) - norm(torch.zeros_like(signs))
    return (flat * signs).float()
