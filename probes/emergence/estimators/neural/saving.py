"""The state of a training in a folder: one checked file of tensors, found by its content.

The file is named by a hash of the data and of every setting, so a folder can serve any number of
trainings, and a changed setting never continues an old state. A state that is already in the
folder is continued; random numbers come from counters, so the result is that of an uninterrupted
run.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.records import tensors
from ed_interp.records.files import explained

_KIND = "critics"
# Between two savings of one training.
_SECONDS = 30.0


class Saved:
    """Where one training keeps its state; nowhere for ``folder=None``."""

    def __init__(
        self, folder: str | Path | None, data: Sequence[Tensor], settings: Mapping[str, Any]
    ) -> None:
        self._file: Path | None = None
        self._last = time.monotonic()
        if folder is None:
            return
        path = Path(folder).expanduser()
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explained(error, path) from error
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
        for tensor in data:
            digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        self._file = path / f"critics-{digest.hexdigest()[:24]}.safetensors"

    def due(self) -> bool:
        """Whether it is time to save again."""
        return self._file is not None and time.monotonic() - self._last > _SECONDS

    def put(self, state: Mapping[str, Tensor]) -> None:
        """Save, if there is a folder."""
        if self._file is not None:
            tensors.write(self._file, state, kind=_KIND)
            self._last = time.monotonic()

    def get(self) -> dict[str, Tensor] | None:
        """The state that an earlier run left; None if it left none.

        Raises:
            RunFolderError: the file is damaged.
        """
        if self._file is None or not self._file.exists():
            return None
        try:
            return tensors.read(self._file, kind=_KIND)[0]
        except InvalidInputError as error:
            # The advice of the reader is for files that people exchange.
            problem = str(error).partition(";")[0]
            raise RunFolderError(f"{problem}; remove it and run again") from error
