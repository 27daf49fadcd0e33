"""Tensors in one file that is whole, checked and never runs code.

A safetensors file with four entries in its header: ``format`` (``ed-interp/KIND``), ``version``,
``meta`` (plain data, as JSON) and ``sha256`` over that text and every tensor::

    write(path, {"vector": vector}, kind="direction", meta={"method": "by hand"})
    tensors, meta = read(path, kind="direction")

Cost: one copy of the tensors in memory, and about a second per gigabyte for the hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ed_interp.errors import InvalidInputError
from ed_interp.records.files import strict_json, write_bytes
from ed_interp.records.folders import installed

if TYPE_CHECKING:
    from torch import Tensor

# What torch.save writes today (a zip archive) and wrote before PyTorch 1.6 (a bare pickle).
_PICKLES = (b"PK\x03\x04", b"\x80")


def write(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    *,
    kind: str,
    version: int = 1,
    meta: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``tensors`` to ``path``, whole or not at all; a file that is there is replaced.

    The tensors may have any dtype and device, and share memory. ``kind`` is what the file holds,
    such as ``direction``, in a format of ``version``; ``meta`` is plain data. InvalidInputError for
    NaN or a value that JSON has no form for; RunFolderError if the file cannot be written.
    """
    from safetensors.torch import save

    path = Path(path).expanduser()
    text = strict_json(dict(meta or {}), f"the metadata of {path.name}", sort_keys=True)
    plain = _plain(tensors)
    header = {"format": f"ed-interp/{kind}", "version": str(version), "meta": text}
    header |= {"ed-interp": installed("ed-interp") or "", "sha256": _digest(plain, text)}
    return write_bytes(path, save(plain, header))


def read(
    path: str | Path, *, kind: str, version: int = 1, finite: bool = False
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write` wrote: the tensors, on the CPU, and the plain data.

    No such file, a pickle, another kind or version, a damaged or altered file and, if ``finite``,
    NaN or infinite numbers are an InvalidInputError; the line says which.
    """
    path = Path(path).expanduser()
    tensors, header = read_unchecked(path)
    format = f"ed-interp/{kind}"
    if header.get("format") != format:
        raise InvalidInputError(
            f"{path} must have the format {format!r}, got {header.get('format')!r}; give a file "
            f"that ed-interp wrote as a {kind}"
        )
    if header.get("version") != str(version):
        writer = header.get("ed-interp")
        needed = f"ed-interp {writer}, which" if writer else "the version of ed-interp that"
        raise InvalidInputError(
            f"{path} must have version '{version}' of {format}, got {header.get('version')!r}; "
            f"install {needed} wrote it"
        )
    # Directions were the first kind; their files called the same text "provenance".
    text = header.get("meta", header.get("provenance", ""))
    if _digest(tensors, text) != header.get("sha256"):
        raise InvalidInputError(
            f"{path} was altered after it was written: its sha256 does not match its content; "
            "get an undamaged copy"
        )
    for name, tensor in tensors.items():
        if finite and not bool(tensor.isfinite().all()):
            raise InvalidInputError(
                f"{path} must hold finite numbers, got NaN or infinity in {name!r}; run the "
                "command that wrote it again"
            )
    try:
        return tensors, dict(json.loads(text))
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{path} is damaged (meta: {error}); write it again") from error


def read_unchecked(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the header of any safetensors file, also one of another tool.

    A missing, pickled, GGUF or damaged file raises InvalidInputError.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path).expanduser()
    refuse_pickle(path)
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        text = " ".join(str(error).split())
        raise InvalidInputError(
            f"{path} is cut short, damaged or not a safetensors file ({text[:120]}); get an "
            "undamaged copy"
        ) from error


def refuse_pickle(path: Path, expected: str = "safetensors") -> None:
    """Raise InvalidInputError unless ``path`` is a readable file, neither pickled nor GGUF."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except FileNotFoundError as error:
        raise InvalidInputError(f"{path} does not exist; check the path") from error
    except OSError as error:
        raise InvalidInputError(f"cannot read {path} ({error.strerror})") from error
    # safetensors begin with the length of the header, eight bytes of which the upper four are 0,
    # and its brace. The lower ones can be any, those of a pickle too.
    if head.startswith(_PICKLES) and head[4:] != b"\0\0\0\0{":
        raise InvalidInputError(
            f"{path} must be a {expected} file, got a pickle (torch.save writes those, and "
            f"reading one can run code); save its tensors as {expected}"
        )
    if head.startswith(b"GGUF"):
        raise InvalidInputError(
            f"{path} must be a {expected} file, got a GGUF file; read a control vector with "
            "ed_interp.adapters.steering.from_gguf, which takes its convention"
        )


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, contiguous, each with memory of its own."""
    plain: dict[str, Tensor] = {}
    held: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        # safetensors refuses two names for one memory (tied weights, two views of one tensor).
        if tensor.untyped_storage().data_ptr() in held:
            tensor = tensor.clone()
        held.add(tensor.untyped_storage().data_ptr())
        plain[name] = tensor
    return plain


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    import torch

    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        # NumPy has no bfloat16; as bytes every dtype is the same, and nothing is copied.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
