"""`find_direction`: from pairs of texts to a direction at every block, in one streamed pass.

    direction = find_direction("icl-gpt2", Contrast.from_file("pairs.jsonl"))
    direction.save("mood.safetensors")

Every method gives vectors on one scale (:mod:`ed_interp.probes.directions.scale`): coefficient 1
moves the mean of the negative class to where the positive one is, along the direction. Cost: the
forward passes over the texts; the methods themselves are milliseconds to seconds a site.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import InvalidInputError, unknown
from ed_interp.probes.directions.discriminant import linear_discriminant
from ed_interp.probes.directions.logistic import logistic_probe
from ed_interp.probes.directions.mean_difference import mean_difference
from ed_interp.probes.directions.pairs import Contrast
from ed_interp.probes.directions.principal import principal_direction
from ed_interp.probes.directions.states import ContrastStates, read_states
from ed_interp.probes.directions.whitened import whitened_difference
from ed_interp.progress import Progress
from ed_interp.streams.direction import Direction
from ed_interp.models.sites import Site

Method = Callable[..., Float[Tensor, "site d_model"]]

METHODS: Final[dict[str, Method]] = {
    "mean_difference": mean_difference,
    "pca": principal_direction,
    "logistic": logistic_probe,
    "lda": linear_discriminant,
    "whitened": whitened_difference,
}
"""Methods that find a direction from the states of two classes, by name."""

_ZERO = 1e-6
"""Of the states' root mean square: a gap below it is rounding."""


def find_direction(
    model: Any,
    contrast: Contrast | ContrastStates,
    *,
    method: str = "mean_difference",
    sites: Sequence[str | Site] | None = None,
    batch_size: int | None = None,
    progress: Progress = None,
    **options: Any,
) -> Direction:
    """Find a direction from two classes of texts.

    Args:
        model: Anything :func:`ed_interp.load` takes.
        contrast: The texts, or their states where several methods are to share one pass.
        method: One of :data:`METHODS`.
        sites: Hook points; default the output of every block.
        batch_size: Texts a batch; default by number of tokens.
        progress: See :mod:`ed_interp.progress`.
        **options: Of the method, such as ``penalty_c`` of ``logistic``.

    Raises:
        UnknownNameError: no such method or site.
        InvalidInputError: see :func:`~ed_interp.probes.directions.states.read_states`; both
            classes have the same mean, so that there is no direction; options the method has not.
    """
    if method not in METHODS:
        raise unknown("method", method, list(METHODS))
    if isinstance(contrast, ContrastStates):
        states = contrast
        if sites is not None or batch_size is not None:
            raise InvalidInputError("sites= and batch_size= do not apply to states already read")
    else:
        states = read_states(model, contrast, sites=sites, batch_size=batch_size, progress=progress)
    check_gap(states)
    try:
        found = METHODS[method](states, **options)
    except TypeError as error:
        if options and "argument" in str(error):
            raise InvalidInputError(f"method {method!r} does not take {options}") from error
        raise
    settings = {
        "positive": len(states.positive),
        "negative": len(states.negative),
        "paired": states.paired,
        "texts": states.name,
        **options,
    }
    vectors = dict(zip(states.sites, found.to(torch.float32), strict=True))
    return Direction.of(states.model, vectors, method=method, data=states.data, settings=settings)


def check_gap(states: ContrastStates) -> None:
    """Raise unless the classes differ in their means at every site.

    Raises:
        InvalidInputError: naming the first site where they do not.
    """
    size = torch.cat([states.positive, states.negative]).double().pow(2).mean((0, 2)).sqrt()
    gap = states.gap.pow(2).mean(-1).sqrt()
    for site, low in zip(states.sites, (gap <= _ZERO * size).tolist(), strict=True):
        if low:
            raise InvalidInputError(
                f"the classes of {states.name!r} have the same mean at {site.name}: there is no "
                "direction from one to the other; do their texts differ before the token that is "
                "read (read=)?"
            )
