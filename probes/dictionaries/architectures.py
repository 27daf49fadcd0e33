"""The architectures that can be trained: SAELens's own, and our ``spike-slab``.

Nothing heavy is imported here.
"""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One kind of dictionary."""

    registered: str
    """SAELens's name of it."""
    takes_k: bool = True
    """Whether its sparsity is set by a number of active latents."""
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Settings other than SAELens's defaults, for states scaled to norm ``sqrt(d_model)``."""


_JUMPRELU = {
    "jumprelu_sparsity_loss_mode": "quadratic",
    "jumprelu_ste_to_input": True,
    "jumprelu_bandwidth": 0.5,
    "jumprelu_init_threshold": 0.5,
    "l0_coefficient": 0.3,
}
ARCHITECTURES = {
    # The k largest latents of every token.
    "topk": Architecture("topk"),
    # k per token on average over a batch.
    "batchtopk": Architecture("batchtopk"),
    # batchtopk whose first latents also reconstruct by themselves.
    "matryoshka": Architecture("matryoshka_batchtopk"),
    # A learned threshold per latent, L0 held near k.
    "jumprelu": Architecture("jumprelu", options=_JUMPRELU),
    # ReLU with an L1 penalty.
    "standard": Architecture("standard", takes_k=False, options={"l1_coefficient": 1.0}),
    # A gate and a magnitude per latent, L1 on the gate.
    "gated": Architecture("gated", takes_k=False, options={"l1_coefficient": 1.0}),
    # A variational autoencoder with a probability of presence per latent.
    "spike-slab": Architecture("spike_slab"),
}
"""By the name that ``train`` takes."""

DEFAULT = "topk"
DEFAULT_K = 16
