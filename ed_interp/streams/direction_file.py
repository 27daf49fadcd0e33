"""A direction as one safetensors file: vectors by site, provenance and a hash in the metadata.

Only safetensors are read; a file that is a pickle, cut short or altered is refused in one line.
Cost: reading and writing a few kilobytes per site.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ed_interp.errors import EdInterpError, InvalidInputError, RunFolderError
from ed_interp.records import write_bytes
from ed_interp.records.files import strict_json
from ed_interp.streams.direction import Direction
from ed_interp.streams.provenance import Provenance

FORMAT = "ed-interp/direction"
VERSION = "1"
_PICKLES = (b"\x80", b"PK\x03\x04")


def save_direction(direction: Direction, path: Path, *, overwrite: bool = False) -> Path:
    """Write ``direction`` to ``path``; see :meth:`Direction.save`."""
    from safetensors.torch import save

    path = new_file(path, overwrite=overwrite)
    provenance = strict_json(direction.provenance.to_dict(), "the provenance", sort_keys=True)
    tensors = {name: vector.contiguous() for name, vector in direction.vectors.items()}
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "provenance": provenance,
        "sha256": _digest(tensors, provenance),
    }
    return write_bytes(path, save(tensors, metadata))


def load_direction(path: Path) -> Direction:
    """Read what :func:`save_direction` wrote; see :meth:`Direction.load`."""
    path = path.expanduser()
    metadata, tensors = _read(path)
    if metadata.get("format") != FORMAT:
        raise InvalidInputError(
            f"{path} is a safetensors file, but no direction: its format is "
            f"{metadata.get('format')!r}, expected {FORMAT!r}"
        )
    if metadata.get("version") != VERSION:
        raise InvalidInputError(
            f"{path} has version {metadata.get('version')!r} and this ed-interp reads {VERSION}; "
            "install the version of ed-interp that wrote it"
        )
    provenance = metadata.get("provenance", "")
    if _digest(tensors, provenance) != metadata.get("sha256"):
        raise InvalidInputError(
            f"{path} was altered after it was written: its hash does not fit its content; get an "
            "undamaged copy"
        )
    try:
        return Direction(tensors, Provenance.from_dict(json.loads(provenance)))
    except (EdInterpError, json.JSONDecodeError) as error:
        raise InvalidInputError(f"{path} holds no usable direction ({error})") from error


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    refuse_pickle(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            return metadata, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        text = " ".join(str(error).split())
        raise InvalidInputError(
            f"{path} is cut short, damaged or no safetensors file ({text[:120]})"
        ) from error


def new_file(path: Path, *, overwrite: bool) -> Path:
    """``path`` with its ``~`` resolved, where a file can be written.

    Raises:
        RunFolderError: it exists (and not ``overwrite``), or its folder does not.
    """
    path = path.expanduser()
    if path.exists() and not overwrite:
        raise RunFolderError(f"{path} exists; pass overwrite=True, or another path")
    if not path.parent.is_dir():
        raise RunFolderError(f"cannot write {path}: there is no folder {path.parent}")
    return path


def refuse_pickle(path: Path) -> None:
    """Raise InvalidInputError unless ``path`` is a readable file that does not look pickled."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except FileNotFoundError as error:
        raise InvalidInputError(f"there is no file {path}") from error
    except OSError as error:
        raise InvalidInputError(f"cannot read {path} ({error.strerror})") from error
    if head.startswith(_PICKLES):
        raise InvalidInputError(
            f"{path} is a pickle (torch.save writes those), which can run code and is not read; "
            "only safetensors are"
        )
    if head == b"GGUF":
        raise InvalidInputError(
            f"{path} is a GGUF control vector; read it with "
            "ed_interp.adapters.steering.from_gguf, which asks for its convention"
        )


def _digest(tensors: dict[str, Any], provenance: str) -> str:
    digest = hashlib.sha256(provenance.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
