"""The state of a training in a folder: safetensors written whole or not at all, found by content.

The file is named by a hash of the data and of every setting, so a folder can serve any number of
trainings, and a changed setting never continues an old state. What is there when a training starts
is continued; random numbers come from counters, so the result is that of an uninterrupted run.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ed_interp.errors import RunFolderError
from ed_interp.records import write_bytes
from ed_interp.records.files import explained

_SECONDS = 30.0
"""Between two savings of one training."""


class Saved:
    """Where one training keeps its state; nowhere for ``folder=None``."""

    def __init__(
        self, folder: str | Path | None, data: Sequence[Tensor], settings: Mapping[str, Any]
    ) -> None:
        self._file: Path | None = None
        self._last = time.monotonic()
        if folder is None:
            return
        where = Path(folder).expanduser()
        try:
            where.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explained(error, where) from error
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
        for tensor in data:
            digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        self._file = where / f"critics-{digest.hexdigest()[:24]}.safetensors"

    def due(self) -> bool:
        """Whether it is time to save again."""
        return self._file is not None and time.monotonic() - self._last > _SECONDS

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Save, if there is a folder."""
        if self._file is None:
            return
        from safetensors.torch import save

        whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write_bytes(self._file, save(whole))
        self._last = time.monotonic()

    def get(self) -> dict[str, Tensor] | None:
        """The state that an earlier run left; None if there is none.

        Raises:
            RunFolderError: the file is damaged.
        """
        if self._file is None or not self._file.exists():
            return None
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(self._file.read_bytes())
        except (SafetensorError, OSError) as error:
            raise RunFolderError(
                f"{self._file} cannot be read ({error}); remove it and run again"
            ) from error
