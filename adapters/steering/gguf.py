"""Control vectors in GGUF, as repeng and llama.cpp read and write them.

Tensor ``direction.k`` is added to the output of block k (from 0), which is
``blocks.k.hook_resid_post`` here; llama.cpp refuses one for block 0. The file's
``controlvector.model_hint`` is the architecture. Ours adds a record of where the direction comes
from, under ``ed_interp.provenance``, that others ignore. Cost: the import of ``gguf``.
"""

from __future__ import annotations

import importlib
import json
import re
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load
from ed_interp.records import write_bytes
from ed_interp.records.files import new_file, strict_json
from ed_interp.records.tensors import refuse_pickle
from ed_interp.streams.direction import Direction
from ed_interp.streams.provenance import BEFORE_FINAL_NORM

_ARCHITECTURE = "controlvector"
_PROVENANCE = "ed_interp.provenance"
_NAME = re.compile(r"direction\.(\d+)")


def to_gguf(
    direction: Direction,
    path: str | Path,
    *,
    coefficient: float | int = 1.0,
    overwrite: bool = False,
) -> Path:
    """Write a direction as a control vector for repeng and llama.cpp; gives its path.

    Args:
        direction: At ``resid_post`` sites, not of block 0.
        path: The file.
        coefficient: Multiplied into the vectors.
        overwrite: Replace a file that is there.

    Raises:
        InvalidInputError: a site that the format has no place for, or ``gguf`` is not installed.
        RunFolderError: the file exists or cannot be written.
    """
    gguf = _gguf()
    path = new_file(Path(path), overwrite=overwrite)
    for site in direction.sites:
        if site.kind != "resid_post" or site.layer == 0:
            raise InvalidInputError(
                f"a GGUF control vector has no place for {site.name}, only for hook_resid_post of "
                "blocks from 1 on; use direction.restricted(...)"
            )
    provenance = strict_json(direction.provenance.to_dict(), "the provenance")
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "vector.gguf"
        writer = gguf.GGUFWriter(draft, _ARCHITECTURE)
        writer.add_string(f"{_ARCHITECTURE}.model_hint", direction.provenance.model.family)
        writer.add_uint32(f"{_ARCHITECTURE}.layer_count", len(direction.sites))
        writer.add_string(_PROVENANCE, provenance)
        for site in direction.sites:
            vector = coefficient * direction.vectors[site.name]
            writer.add_tensor(f"direction.{site.layer}", vector.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return write_bytes(path, draft.read_bytes())


def from_gguf(
    path: str | Path,
    model: Any,
    *,
    site: str,
    last_block: Literal["refuse", "drop", "keep"] = "refuse",
) -> Direction:
    """Read a control vector, and say what it means in ``model``.

    Args:
        path: A GGUF file of repeng, of llama.cpp, or of :func:`to_gguf`.
        model: Anything :func:`ed_interp.load` takes: the model that it was made for. The file names
            the architecture only, so that the rest is your word.
        site: Where vector k goes, with ``{layer}`` for k: ``blocks.{layer}.hook_resid_post`` for
            repeng and llama.cpp.
        last_block: repeng finds the last block's vector after the final norm and adds it before it:
            ``drop`` it, ``keep`` it all the same, or ``refuse`` the file if it has one.

    Raises:
        InvalidInputError: no control vector, another architecture or width, a damaged file, or
            ``gguf`` is not installed.
        UnknownNameError: the model has no such site.
    """
    hooked = load(model)
    path = Path(path).expanduser()
    if "{layer}" not in site:
        raise InvalidInputError(
            f"site={site!r} names one block; say where vector k goes, for instance "
            "site='blocks.{layer}.hook_resid_post'"
        )
    hint, provenance, found = _read(path)
    if hint != hooked.family:
        raise InvalidInputError(
            f"{path} was made for the architecture {hint!r}, and {hooked.name} is {hooked.family!r}"
        )
    ours = provenance is not None and provenance.get("stream") == BEFORE_FINAL_NORM
    if not ours:
        found = _without_last(path, hooked, found, last_block)
    vectors = {site.replace("{layer}", str(layer)): vector for layer, vector in found.items()}
    settings = {"file": path.name, "site": site, "last_block": last_block, "found": provenance}
    return Direction.of(hooked, vectors, method="GGUF control vector", settings=settings)


def _without_last(
    path: Path, hooked: HookedModel, found: dict[int, Tensor], last_block: str
) -> dict[int, Tensor]:
    last = hooked.n_layers - 1
    if last_block not in ("refuse", "drop", "keep"):
        raise InvalidInputError(
            f"last_block={last_block!r}: 'refuse', 'drop' or 'keep' is expected"
        )
    if last not in found or last_block == "keep":
        return found
    if last_block == "refuse":
        raise InvalidInputError(
            f"{path} has a vector for the last block ({last}), which repeng reads after the final "
            "norm but adds before it; say last_block='drop' or 'keep'"
        )
    left = {layer: vector for layer, vector in found.items() if layer != last}
    if not left:
        raise InvalidInputError(f"{path} has no vector but the last block's, which was dropped")
    return left


def _read(path: Path) -> tuple[str, dict[str, Any] | None, dict[int, Tensor]]:
    """Architecture, our own record if there is one, and vectors by block."""
    gguf = _gguf()
    _check_magic(path)
    try:
        reader = gguf.GGUFReader(path)
        architecture = _text(reader, "general.architecture")
        hint = _text(reader, f"{_ARCHITECTURE}.model_hint")
        written = _text(reader, _PROVENANCE)
        tensors = [
            (tensor.name, torch.tensor(tensor.data, dtype=torch.float32).reshape(-1))
            for tensor in reader.tensors
        ]
    except Exception as error:  # the reader raises whatever numpy raises on a damaged file
        raise InvalidInputError(
            f"{path} is damaged or cut short ({' '.join(str(error).split())[:100]})"
        ) from error
    if architecture != _ARCHITECTURE or hint is None:
        raise InvalidInputError(
            f"{path} is no control vector: its architecture is {architecture!r}, expected "
            f"{_ARCHITECTURE!r} with a model hint"
        )
    found: dict[int, Tensor] = {}
    for name, vector in tensors:
        match = _NAME.fullmatch(name)
        if match is None:
            raise InvalidInputError(f"{path} holds a tensor {name!r}; expected direction.<block>")
        found[int(match.group(1))] = vector
    if not found:
        raise InvalidInputError(f"{path} holds no vector")
    return hint, json.loads(written) if written else None, found


def _check_magic(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError:
        head = b""
    if head != b"GGUF":
        refuse_pickle(path, "GGUF")
        raise InvalidInputError(f"{path} is no GGUF file")


def _text(reader: Any, key: str) -> str | None:
    field = reader.get_field(key)
    return None if field is None else str(bytes(field.parts[-1]), encoding="utf-8")


def _gguf() -> Any:
    try:
        return importlib.import_module("gguf")
    except ImportError as error:
        raise InvalidInputError(
            "GGUF files need the gguf package: pip install 'ed-interp[steering]'"
        ) from error
