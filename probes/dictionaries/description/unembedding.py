"""What a latent does to the next token directly: its decoder row through the unembedding.

    effect[latent, token] = (centred row * scale of the final norm) . unembedding[token]

less its mean over the vocabulary, which no softmax sees. The row is centred if the final norm
centres. The norm's division by the size of the state is left out, so effects compare tokens and
latents, but are not logits; later blocks are left out too, so it is most exact near the last block.
Cost: one product of ``latent x d_model`` by ``d_model x vocabulary``, in pieces.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from ed_interp.models.hooked import HookedModel
from ed_interp.models.runners import TransformersRunner
from ed_interp.probes.dictionaries.observation import CELLS


@dataclasses.dataclass(frozen=True, eq=False)
class DirectEffects:
    """Tokens that each latent promotes and suppresses most."""

    promoted: NDArray[np.int32]
    """``latent token``: ids, strongest first."""
    promoted_by: NDArray[np.float32]
    suppressed: NDArray[np.int32]
    suppressed_by: NDArray[np.float32]


@torch.no_grad()
def direct_effects(
    hooked: HookedModel, decoder: Float[Tensor, "latent d_model"], *, top: int
) -> DirectEffects | None:
    """Top tokens of each row of ``decoder``; None if the model's unembedding cannot be read."""
    unembedding = _unembedding(hooked)
    if unembedding is None:
        return None
    scale, centres = _final_norm(hooked)
    rows = decoder.to(unembedding.device, torch.float32)
    if centres:
        rows = rows - rows.mean(-1, keepdim=True)
    if scale is not None:
        rows = rows * scale.to(rows.device)
    top = min(top, unembedding.shape[0])
    parts: list[list[NDArray[Any]]] = [[], [], [], []]
    for part in torch.split(rows, max(1, CELLS // unembedding.shape[0])):
        effect = part @ unembedding.T
        effect -= effect.mean(-1, keepdim=True)
        for sign, columns in ((1, parts[:2]), (-1, parts[2:])):
            values, ids = (sign * effect).topk(top, dim=-1)
            columns[0].append(ids.to(torch.int32).cpu().numpy())
            columns[1].append((sign * values).cpu().numpy())
    return DirectEffects(*(np.concatenate(column) for column in parts))


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
        children = list(parent.children())
        if not any(child is blocks for child in children):
            continue
        behind = children[next(i for i, child in enumerate(children) if child is blocks) + 1 :]
        for child in behind:
            if "norm" in type(child).__name__.lower():
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
