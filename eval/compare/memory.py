"""Peak memory in live tensors, on any device, without asking the operating system.

The peak of a process counts everything that was ever loaded and never falls; here the storages that
exist during one call are counted as they come and go. What operators allocate and free inside
themselves is not seen. Cost: Python work at every operator, so never time what is measured this
way.
"""

from __future__ import annotations

import collections
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the storages of tensors that operators gave and that still exist."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak: int = 0
        self._owners: collections.Counter[int] = collections.Counter()
        self._bytes: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {
            leaf.untyped_storage().data_ptr()
            for leaf in tree_leaves((args, kwargs))
            if isinstance(leaf, torch.Tensor)
        }
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf, given)
        return result

    def _count(self, tensor: torch.Tensor, given: set[int]) -> None:
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        if not key:  # An empty tensor has no memory.
            return
        if key not in self._bytes:
            if key in given:  # A view of a parameter or an input, which is not new memory.
                return
            self._bytes[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
        self._owners[key] += 1
        weakref.finalize(tensor, self._drop, key)

    def _drop(self, key: int) -> None:
        self._owners[key] -= 1
        if self._owners[key] == 0:
            del self._owners[key]
            self.now -= self._bytes.pop(key)


def peak_bytes(call: Callable[[], Any]) -> int:
    """Largest memory in tensors made during ``call``, in bytes; parameters are not in it."""
    with _Live() as live:
        kept = call()
    del kept
    return int(live.peak)
