"""Directions to and from other tools: GGUF control vectors, steering-vectors, adapter checkpoints.

GGUF, as repeng and llama.cpp read and write it: tensor ``direction.k`` is added to the output of
block k (from 0), which is ``blocks.k.hook_resid_post`` here; llama.cpp refuses one for block 0. The
file's ``controlvector.model_hint`` is the architecture. Ours adds a record of where the direction
comes from, under ``ed_interp.provenance``, that others ignore.

The files of the library ``steering-vectors`` are pickles (``torch.save``) and are refused: load
them there (if you trust them) and pass the object. Cost: the import of ``gguf``; for an adapter, a
copy of the model for as long as the call takes.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.models.families import module_of
from ed_interp.models.load import load
from ed_interp.models.runners import TransformersRunner
from ed_interp.records.files import new_file, strict_json, write_bytes
from ed_interp.records.tensors import refuse_pickle
from ed_interp.streams.direction import Direction
from ed_interp.streams.provenance import BEFORE_FINAL_NORM

_ARCHITECTURE = "controlvector"
_PROVENANCE = "ed_interp.provenance"
_NAME = re.compile(r"direction\.(\d+)")
_KINDS = {"decoder_block": "resid_post", "self_attn": "attn_out", "mlp": "mlp_out"}
"""Layer types of steering-vectors, and the sites at which it reads and writes them."""


def to_gguf(
    direction: Direction,
    path: str | Path,
    *,
    coefficient: float | int = 1.0,
    overwrite: bool = False,
) -> Path:
    """Write a direction as a control vector for repeng and llama.cpp; returns its path.

    Args:
        direction: At ``resid_post`` sites, not of block 0: the format has no place for others.
        path: The file.
        coefficient: Multiplied into the vectors.
        overwrite: Replace an existing file.
    """
    gguf = _gguf()
    path = new_file(path, overwrite=overwrite)
    for site in direction.sites:
        if site.kind != "resid_post" or site.layer == 0:
            raise InvalidInputError(
                f"a GGUF control vector has no place for {site.name}, only for hook_resid_post of "
                "blocks from 1 on; use direction.restricted(...)"
            )
    provenance = strict_json(direction.provenance.to_dict(), "the provenance")
    # The writer needs a file of its own; ours then appears whole, or not at all.
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "vector.gguf"
        writer = gguf.GGUFWriter(draft, _ARCHITECTURE)
        writer.add_string(f"{_ARCHITECTURE}.model_hint", direction.provenance.model.family)
        writer.add_uint32(f"{_ARCHITECTURE}.layer_count", len(direction.sites))
        writer.add_string(_PROVENANCE, provenance)
        for site in direction.sites:
            vector = coefficient * direction.vectors[site.name]
            writer.add_tensor(f"direction.{site.layer}", vector.numpy())
        # The order in which they stand in the file; the writer takes no other.
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
            only the architecture, so the rest is up to you.
        site: Where vector k goes, with ``{layer}`` for k: ``blocks.{layer}.hook_resid_post`` for
            repeng and llama.cpp.
        last_block: repeng finds the last block's vector after the final norm and adds it before it:
            ``drop`` it, ``keep`` it all the same, or ``refuse`` a file that has one.

    Raises:
        InvalidInputError: no control vector, another architecture or width, or a damaged file.
    """
    hooked = load(model)
    path = Path(path).expanduser()
    if "{layer}" not in site:
        example = "'blocks.{layer}.hook_resid_post'"
        raise InvalidInputError(f"site must hold {{layer}}, such as {example}, got {site!r}")
    if last_block not in ("refuse", "drop", "keep"):
        raise InvalidInputError(f"last_block must be refuse, drop or keep, got {last_block!r}")
    hint, provenance, vectors = _read(path)
    if hint != hooked.family:
        here = f"{hooked.name} is {hooked.family!r}"
        raise InvalidInputError(f"{path} was made for the architecture {hint!r}, and {here}")
    # Our own files hold vectors that were read before the final norm, the last block's too.
    ours = provenance is not None and provenance.get("stream") == BEFORE_FINAL_NORM
    last = hooked.n_layers - 1
    if not ours and last in vectors and last_block != "keep":
        if last_block == "refuse":
            raise InvalidInputError(
                f"{path} has a vector for the last block ({last}), which repeng reads after the "
                "final norm but adds before it; say last_block='drop' or 'keep'"
            )
        del vectors[last]
        if not vectors:
            raise InvalidInputError(f"{path} holds only the last block's vector, which was dropped")
    named = {site.replace("{layer}", str(layer)): vector for layer, vector in vectors.items()}
    # "found" is the key that older files have it under.
    settings = {"file": path.name, "site": site, "last_block": last_block, "found": provenance}
    return Direction.of(hooked, named, method="GGUF control vector", settings=settings)


def _read(path: Path) -> tuple[str, dict[str, Any] | None, dict[int, Tensor]]:
    """Architecture, our own record if there is one, and vectors by block."""
    gguf = _gguf()
    # Looked at first, as the reader's own complaint about a pickle would not say what it is.
    head = b""
    with contextlib.suppress(OSError), path.open("rb") as file:
        head = file.read(4)
    if head != b"GGUF":
        refuse_pickle(path, "GGUF")
        raise InvalidInputError(f"{path} must be a GGUF file, got something else")
    try:
        reader = gguf.GGUFReader(path)
        keys = ("general.architecture", f"{_ARCHITECTURE}.model_hint", _PROVENANCE)
        fields = [reader.get_field(key) for key in keys]
        texts = [field and str(bytes(field.parts[-1]), encoding="utf-8") for field in fields]
        architecture, hint, record = texts
        tensors = {
            item.name: torch.tensor(item.data, dtype=torch.float32) for item in reader.tensors
        }
    except Exception as error:  # the reader raises whatever numpy raises on a damaged file
        reason = " ".join(str(error).split())[:100]
        raise InvalidInputError(f"{path} is damaged or cut short ({reason})") from error
    if architecture != _ARCHITECTURE or hint is None:
        wanted = f"a control vector ({_ARCHITECTURE!r}, with a model hint)"
        raise InvalidInputError(f"{path} must be {wanted}, got architecture {architecture!r}")
    vectors: dict[int, Tensor] = {}
    for name, vector in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise InvalidInputError(f"{path} must hold direction.<block>, got a tensor {name!r}")
        vectors[int(match.group(1))] = vector.reshape(-1)
    if not vectors:
        raise InvalidInputError(f"{path} holds no vector")
    return hint, json.loads(record) if record else None, vectors


def _gguf() -> Any:
    try:
        return importlib.import_module("gguf")
    except ImportError as error:
        install = "pip install 'ed-interp[steering]'"
        raise InvalidInputError(f"GGUF files need the gguf package: {install}") from error


def from_steering_vectors(vector: Any, model: Any, *, site: str) -> Direction:
    """A ``SteeringVector`` of the library steering-vectors as a direction.

    Args:
        vector: The live object. Its layers are read and written at the output of whole modules,
            before the final norm.
        model: Anything :func:`ed_interp.load` takes: the model that it was made for (the object
            does not say).
        site: Where layer k's vector goes, with ``{layer}`` for k. It must be the site that the
            object's ``layer_type`` is: ``resid_post`` for ``decoder_block``, ``attn_out`` for
            ``self_attn``, ``mlp_out`` for ``mlp``.

    Raises:
        InvalidInputError: a file, another object, another site, or another width.
    """
    if isinstance(vector, (str, os.PathLike)):
        raise InvalidInputError(
            f"{os.fspath(vector)}: steering-vectors saves pickles, which can run code and are not "
            "read; load it there and pass the SteeringVector object"
        )
    layers, kind = getattr(vector, "layer_activations", None), getattr(vector, "layer_type", None)
    if not isinstance(layers, dict) or not layers:
        raise InvalidInputError(
            f"vector must be a SteeringVector with at least one layer, got {type(vector).__name__}"
        )
    hooked = load(model)
    wanted = _KINDS.get(str(kind))
    if wanted is None or site != f"blocks.{{layer}}.hook_{wanted}":
        expected = f"'blocks.{{layer}}.hook_{wanted}'" if wanted else "no site at all"
        vector = f"a SteeringVector of layer_type {kind!r} is read and written at {expected}"
        raise InvalidInputError(f"{vector}, got site={site!r}")
    vectors = {}
    for layer, value in layers.items():
        place = hooked.site(site.replace("{layer}", str(layer)))
        # Gemma normalises the outputs of attention and MLP before it adds them, so at these sites
        # the stream does not get what the module returns.
        if place.kind != "resid_post" and isinstance(hooked.runner, TransformersRunner):
            module, _ = module_of(hooked.runner.base, hooked.runner.blocks, place)
            if "norm" in type(module).__name__.lower():
                raise InvalidInputError(
                    f"{place.name} of {hooked.family} comes after a norm, and steering-vectors "
                    "writes before it; find the direction again at the site"
                )
        vectors[place.name] = value.reshape(-1)
    settings = {"layer_type": kind, "site": site}
    return Direction.of(hooked, vectors, method="steering-vectors", settings=settings)


def save_adapter(
    model: Any, direction: Direction, folder: str | Path, *, coefficient: float | int = 1.0
) -> Path:
    """Write ``coefficient`` times a direction as a PEFT checkpoint; returns its folder.

    One node of constant value per site (:mod:`ed_interp.adapters.bias_injection.directions`).
    Unlike :func:`~ed_interp.adapters.steering.steered.steer` it acts on every token of every row,
    and can be trained on.

    Args:
        model: The plain transformers model that the direction belongs to; copied, not changed.
        direction: At sites where a constant bias of some layer is the same thing.
        folder: Must not exist, or be empty.
        coefficient: Multiplied into the vectors.
    """
    from ed_interp.adapters.bias_injection.directions import adapter_from_direction

    folder = Path(folder).expanduser()
    # Before the copy of the model, which may be large.
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RunFolderError(f"{folder} is not empty; pass a new folder")
    hooked = load(model)
    direction.check(hooked)
    adapter = adapter_from_direction(copy.deepcopy(hooked.model), direction, strength=coefficient)
    adapter.save_pretrained(str(folder))
    return folder
