"""Several processes under ``accelerate launch``: who is who, and gathering what they found."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")


def process() -> tuple[int, int]:
    """(index, number) of processes; (0, 1) unless started by ``accelerate launch`` or the like."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1
    from accelerate import PartialState

    state = PartialState()
    return state.process_index, state.num_processes


def gather(value: T) -> list[T]:
    """The values of all processes, in their order, on every process."""
    if process()[1] == 1:
        return [value]
    from accelerate.utils import gather_object

    gathered: list[T] = gather_object([value])
    return gathered


def wait_for_all() -> None:
    """Return when every process has come here."""
    if process()[1] > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()
