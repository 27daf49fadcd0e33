"""What the shared hooks call on an injection; the hooks and the injections import only this."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from ed_interp.models.sites import Site
from ed_interp.streams.injection.calls import Call
from ed_interp.streams.injection.places import Place


@runtime_checkable
class Writer(Protocol):
    """Something that writes to a model's stream as long as it is registered."""

    @property
    def places(self) -> Sequence[Place]:
        """Where it writes."""
        ...

    def begin(self, call: Call) -> bool:
        """A forward pass begins in this thread; True if this writer takes part in it."""
        ...

    def write(self, site: Site, states: Tensor, call: Call | None) -> Tensor:
        """The states of ``site`` as they go on; ``call`` is None outside of a forward pass."""
        ...

    def finish(self, call: Call) -> None:
        """A forward pass ended without an exception."""
