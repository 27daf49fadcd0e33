"""`SteeredModel`: a model with interventions, to be used like a model.

Nothing is changed in the user's model: it runs with the interventions during each call, and inside
``with steered:`` also when it is called itself. Cost: that of
:func:`ed_interp.streams.injection.inject`, entered once per call (milliseconds).
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load
from ed_interp.streams.direction import Direction
from ed_interp.streams.injection import Add, Injection, Intervention, Where, inject
from ed_interp.streams.injection.interventions import PerRow
from ed_interp.streams.injection.where import Selector

Lengths = int | Int[Tensor, " batch"] | None
"""Tokens of the prompt: one number for all rows, or one for each."""


@dataclasses.dataclass(eq=False)
class SteeredModel:
    """A model with interventions; see the module's docstring."""

    hooked: HookedModel
    interventions: tuple[Intervention, ...]
    _stack: contextlib.ExitStack | None = dataclasses.field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        # Entered once, so that whatever does not fit is refused now and not at the first call.
        with self.applied():
            pass

    @property
    def model(self) -> Any:
        """The user's model, unchanged."""
        return self.hooked.model

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self.hooked.tokenizer

    @property
    def config(self) -> Any:
        """The model's configuration."""
        return self.hooked.config

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        return self.hooked.device

    def applied(
        self, *, prompt_length: Lengths = None, strict: bool = False
    ) -> contextlib.AbstractContextManager[Injection]:
        """The user's own model steered inside the context, for instance for ``capture``.

        Args:
            prompt_length: As for :func:`~ed_interp.streams.injection.inject`.
            strict: Raise if an intervention touched no token.
        """
        return inject(self.hooked, *self.interventions, prompt_length=prompt_length, strict=strict)

    def forward(self, *args: Any, prompt_length: Lengths = None, **kwargs: Any) -> Any:
        """The model's own forward pass, steered."""
        if self._stack is None:
            with self.applied(prompt_length=prompt_length):
                return self.model(*args, **kwargs)
        # The block around this call steers already; entering again would add everything twice.
        if prompt_length is not None:
            raise InvalidInputError(
                "prompt_length= cannot be given while the model is steered by a with-block; leave "
                "the block, or use steered.applied(prompt_length=...)"
            )
        return self.model(*args, **kwargs)

    __call__ = forward

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own ``generate``, steered."""
        with self.applied() if self._stack is None else contextlib.nullcontext():
            return self.model.generate(*args, **kwargs)

    def __enter__(self) -> SteeredModel:
        """Steer the user's model itself, until the block ends or :meth:`undo`."""
        if self._stack is not None:
            raise InvalidInputError("this SteeredModel is in use already; call undo() first")
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.applied())
            # Only once all is entered: an error on the way undoes what was done.
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.undo()

    def undo(self) -> None:
        """Leave the user's model as it was; no effect if it is already."""
        # Cleared first: if closing fails, the object is not left in use for ever.
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()


def steer(
    model: Any,
    direction: Direction,
    *,
    coefficient: PerRow = 1.0,
    where: Selector | None = None,
    gate: PerRow | None = None,
    decay: float | int | None = None,
) -> SteeredModel:
    """A model with ``coefficient`` times a direction added to its stream.

    Args:
        model: Anything :func:`ed_interp.load` takes.
        direction: Added at all of its sites.
        coefficient: One number, or one per row of the batches.
        where: Which tokens; by default all.
        gate: Per row, multiplies the coefficient.
        decay: In generated tokens; see :class:`~ed_interp.streams.injection.Add`.

    Returns:
        An object with ``generate``, ``forward`` and ``undo``. For other interventions make it
        yourself: ``SteeredModel(load(model), (Ablate(direction),))``.

    Raises:
        InvalidInputError: another model, or a vector beyond what the model's precision can hold.
    """
    where = Where() if where is None else where
    added = Add(direction, coefficient=coefficient, where=where, gate=gate, decay=decay)
    return SteeredModel(load(model), (added,))
