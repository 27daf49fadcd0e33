"""NaN weights and overflow are reported where states are read.

Cost: one test of the states that are kept; the weights are tested only after a failure.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import CaptureError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.sites import Site


def check_finite(
    hooked: HookedModel,
    states: Float[Tensor, "*batch site d_model"],
    sites: Sequence[Site],
    logprob: Float[Tensor, "*batch"] | None = None,
) -> None:
    """Raise CaptureError unless all states are finite and the scores of answers are not NaN.

    It names the model, the first site, and the weight or the precision that is the cause.
    """
    # Unreported, they would show up as a damaged shard, a NaN curve, or an error about table rows.
    finite = torch.isfinite(states).all(-1).reshape(-1, len(sites)).all(0)
    if not bool(finite.all()):
        where = f"at {sites[int((~finite).nonzero()[0])].name}"
    elif logprob is not None and bool(logprob.isnan().any()):
        where = "in the logits"
    else:
        return
    weights = hooked.model.named_parameters()
    bad = next((name for name, tensor in weights if not bool(torch.isfinite(tensor).all())), None)
    start = f"the states of {hooked.name} must be finite, got NaN or infinity {where}"
    if bad is not None:
        raise CaptureError(f"{start}, as in its weight {bad}; load undamaged weights")
    dtype = str(hooked.dtype).removeprefix("torch.")
    advice = "use another model" if dtype == "float32" else "use dtype='float32' (--dtype float32)"
    raise CaptureError(f"{start}: its weights are finite, but overflow in {dtype}; {advice}")
