"""Several processes under ``accelerate launch``: which one this is, and exchanging values."""

from __future__ import annotations

import atexit
import functools
import os
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from accelerate import PartialState

T = TypeVar("T")

# Where torchrun (so ``accelerate launch``) and the launchers of MPI say how many there are.
_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def process() -> tuple[int, int]:
    """(index, number) of processes; (0, 1) unless started by ``accelerate launch`` or the like."""
    if max(int(os.environ.get(name) or 1) for name in _SIZES) == 1:
        return 0, 1
    state = _state()
    return state.process_index, state.num_processes


@functools.cache
def _state() -> PartialState:
    from accelerate import PartialState

    # Only Python objects are exchanged, so gloo serves on every machine. Without cpu=True each
    # process on a machine without an accelerator takes itself for the only one.
    state = PartialState(cpu=True)
    # Threads of gloo that outlive the interpreter abort the process, after a run that succeeded.
    atexit.register(state.destroy_process_group)
    return state


def gather(value: T) -> list[T]:
    """The values of all processes, in their order, on every process."""
    if process()[1] == 1:
        return [value]
    from accelerate.utils import gather_object

    gathered: list[T] = gather_object([value])
    return gathered


def wait_for_all() -> None:
    """Return when every process has called this."""
    if process()[1] > 1:
        _state().wait_for_everyone()
