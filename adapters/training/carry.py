"""Node states carried from call to call while training, with gradients through them.

Use::

    with carried_states():
        first = model(**turn_1)   # rows are sessions, the same in every call
        second = model(**turn_2)  # starts from the states in which the first call ended

An experience (``ed_interp.adapters.bias_injection.experience``) does the same for a finished
adapter, by session name and without gradients; with equal ``tau`` the states are equal.
Cost: the graph of all calls is kept until the backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from ed_interp.adapters.bias_injection.state import MEMORY
from ed_interp.errors import InvalidInputError


class _Carried:
    """The final states of the last call, by layer."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._states: dict[str, Tensor] = {}

    def owns(self, module: nn.Module) -> bool:
        return True

    def start(self, key: str, rows: int, nodes: int) -> Tensor | None:
        state = self._states.get(key)
        if state is not None and state.shape != (rows, nodes):
            raise InvalidInputError(
                f"every call inside carried_states() must have the same rows, got {rows} after "
                f"{state.shape[0]} sessions"
            )
        return None if state is None else state * self._factor

    def finish(self, finals: dict[str, Tensor], rows: int) -> None:
        # Not detached, unlike an experience's: the loss of a later call reaches back through them.
        self._states = dict(finals)


@contextmanager
def carried_states(*, tau: float = 8.0) -> Iterator[None]:
    """Carry node states from each call of a bias-injection model to the next, with gradients.

    Args:
        tau: between two calls states decay by ``exp(-1 / tau)``, as between the turns of an
            experience of this time constant; ``math.inf`` forgets nothing.

    Raises:
        InvalidInputError: tau is not positive; or, from a call, that its batch differs from the
            last one's.
    """
    if not tau > 0:
        raise InvalidInputError(f"tau must be a positive number of turns, got {tau!r}")
    token = MEMORY.set(_Carried(math.exp(-1 / tau)))
    try:
        yield
    finally:
        MEMORY.reset(token)
