"""Writing to the residual stream: one mechanism for steering, features and adapters.

::

    with inject(model, Add(direction, coefficient=4.0)):
        model.generate(...)

    with inject(
        model,
        Ablate(refusal, where=Where(phase="generation")),
        Add(v, "blocks.3.hook_resid_post", coefficient=torch.tensor([0.0, 2.0])),  # per row
    ) as injection: ...

Several interventions act in the order of the arguments at each site, contexts one in the other
from the outside in. :func:`~ed_interp.streams.capture` inside the context reads the stream with
what was written. On leaving the context, also by an exception, the model is as it was.

What differs from steering libraries: positions are absolute in the sequence of a row, so the
key-value cache, padding, prefill in chunks and beams change nothing; coefficients, vectors and
gates are per row; a site at which nothing fired, or a selection that matched no token, is an error.

Cost: one hook per site; per forward pass about one addition of ``batch pos d_model`` per
intervention and site (``tests/benchmarks/bench_injection.py``).
"""

from ed_interp.streams.injection.inject import inject
from ed_interp.streams.injection.injection import Injection
from ed_interp.streams.injection.interventions import (
    Ablate,
    Add,
    Clamp,
    Intervention,
    Replace,
    Transform,
)
from ed_interp.streams.injection.where import Selector, Where

__all__ = ["Ablate", "Add", "Clamp", "Injection", "Intervention", "Replace", "Selector"]
__all__ += ["Transform", "Where", "inject"]
