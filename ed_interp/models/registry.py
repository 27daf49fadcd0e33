"""The bundled models: names, folders, training checkpoints. Imports nothing heavy."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from ed_interp.errors import UnknownNameError, unknown

_FOLDER = Path(__file__).parent / "bundled"


@dataclasses.dataclass(frozen=True)
class BundledModel:
    """A model that ships with ed-interp."""

    name: str
    folder: Path

    @property
    def checkpoints(self) -> dict[int, Path]:
        """Training step -> half-precision weights at that step, ascending."""
        files = sorted((self.folder / "checkpoints").glob("step-*.safetensors"))
        return {int(file.stem.removeprefix("step-")): file for file in files}

    @property
    def config(self) -> dict[str, object]:
        """The ``transformers`` configuration, as plain data."""
        return dict(json.loads((self.folder / "config.json").read_text("utf-8")))

    @property
    def size_bytes(self) -> int:
        """Size of weights and tokenizer, without training checkpoints."""
        return sum(file.stat().st_size for file in self.folder.iterdir() if file.is_file())

    def checkpoint(self, step: int) -> Path:
        """The weights at a training step; UnknownNameError, with the steps, if it has none."""
        files = self.checkpoints
        if step not in files:
            raise UnknownNameError(
                f"{self.name} has no checkpoint at step {step}; choose from: "
                f"{', '.join(map(str, files))}"
            )
        return files[step]


def bundled_names() -> list[str]:
    """Names of the bundled models."""
    return sorted(path.parent.name for path in _FOLDER.glob("*/config.json"))


def bundled(name: str) -> BundledModel:
    """A bundled model by name, or UnknownNameError."""
    names = bundled_names()
    if name not in names:
        raise unknown("bundled model", name, names)
    return BundledModel(name, _FOLDER / name)
