"""`load`: a dictionary from a folder, from SAELens's releases, or from a live object.

Reads safetensors and JSON, no pickles. Cost: importing SAELens takes 8 seconds, reading little.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ed_interp.errors import (
    InvalidInputError,
    ModelLoadError,
    RunFolderError,
    UnknownNameError,
    unknown,
)
from ed_interp.models.sites import Site
from ed_interp.probes.dictionaries import formats
from ed_interp.probes.dictionaries.dictionary import CONFIG, WEIGHTS, Dictionary, inference_sae
from ed_interp.probes.dictionaries.results import DictionaryRecord
from ed_interp.streams.provenance import ModelStamp

if TYPE_CHECKING:
    from sae_lens import SAE

_PICKLED = ["connor_rob_hook_z", "deepseek_r1", "dictionary_learning_1", "goodfire", "qwen_scope"]
"""SAELens's readers of releases that are published as pickles."""


def load(
    source: Any,
    sae_id: str | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: str | None = None,
    site: str | Site | None = None,
) -> Dictionary:
    """Load a dictionary.

    Args:
        source: A folder (ours, SAELens's, EleutherAI's sparsify, or dictionary_learning's with
            safetensors), a release of SAELens (with ``sae_id``), a SAELens object, or a
            :class:`Dictionary`, which is returned as it is.
        sae_id: Which dictionary of a release; ``SAE.from_pretrained`` takes the same two.
        device: Device to load it on.
        dtype: ``float32``, ``bfloat16``, ...; default the one it was saved in.
        site: Its site, if its configuration names none or one that cannot be read (``hook_z``).

    Raises:
        ModelLoadError: it does not exist, is damaged or a pickle, or needs a network.
        UnknownNameError: a release, id or site that does not exist.
        InvalidInputError: an object of another type.
        RunFolderError: a training that was interrupted.
    """
    place = None if site is None else Site.parse(site)
    if isinstance(source, Dictionary):
        return source
    where = str(torch.device(device))
    if isinstance(source, (str, os.PathLike)):
        if sae_id is not None:
            sae = _from_release(str(source), sae_id, where, dtype)
            return _wrapped(sae, place, f"{source}/{sae_id}")
        return _from_folder(Path(source).expanduser(), where, dtype, place)
    from ed_interp.probes.dictionaries.backend import SAE

    if not isinstance(source, SAE):
        raise InvalidInputError(
            "source must be a folder, a release with an id, or a SAELens object, got a "
            f"{type(source).__name__}; for dictionary_learning use from_dictionary_learning(object)"
        )
    return _wrapped(inference_sae(source), place)


def from_dictionary_learning(
    model: Any,
    config: dict[str, Any] | None = None,
    *,
    site: str | Site | None = None,
    device: str = "cpu",
    dtype: str | None = None,
) -> Dictionary:
    """A live object of saprmarks' dictionary_learning, or its ``state_dict()``.

    Args:
        model: The object, or its tensors.
        config: Their ``config.json`` as a dictionary, or the ``trainer`` part of it; not needed
            for a live object.
        site, device, dtype: As for :func:`load`; default unchanged.

    Raises:
        InvalidInputError: another type of object, or an unknown class.
        ModelLoadError: tensors that do not fit each other.
    """
    place = None if site is None else Site.parse(site)
    parts = formats.convert(model, config)
    return _wrapped(formats.build(parts, where="the object", device=device, dtype=dtype), place)


def site_of(hook: str | None) -> Site | None:
    """The site that a SAELens hook name means; None for one that cannot be read.

    >>> site_of("blocks.3.hook_out").name, site_of("blocks.3.attn.hook_z")
    ('blocks.3.hook_resid_post', None)
    """
    # A TransformerBridge has names of its own for a block's input and output.
    bridge = re.fullmatch(r"(blocks\.\d+\.hook_)(in|out)", hook or "")
    if bridge is not None:
        hook = bridge[1] + {"in": "resid_pre", "out": "resid_post"}[bridge[2]]
    try:
        return None if hook is None else Site.parse(hook)
    except UnknownNameError:
        return None


def _wrapped(sae: SAE[Any], site: Site | None, source: str | None = None) -> Dictionary:
    if getattr(sae.cfg, "d_out", None) is not None:
        raise ModelLoadError(
            f"{source or 'this object'} is a transcoder, from one site to another; only "
            "dictionaries of one site can be read"
        )
    place = site_of(sae.cfg.metadata.hook_name) if site is None else site
    return Dictionary(sae, place, source=source)


def _from_folder(folder: Path, device: str, dtype: str | None, site: Site | None) -> Dictionary:
    if not folder.is_dir():
        raise _missing(folder)
    names = {entry.name for entry in folder.iterdir()}
    converter = next((made for file, made in formats.CONVERTERS.items() if file in names), None)
    # sparsify has a cfg.json too. Without it, that file alone is a SAELens folder that lost its
    # weights, which the error should say.
    if WEIGHTS in names or (CONFIG in names and formats.SPARSIFY not in names):
        sae = _from_sae_lens(folder, device, dtype)
    elif converter is not None:
        sae = formats.build(converter(folder), where=str(folder), device=device, dtype=dtype)
    else:
        raise ModelLoadError(
            f"{folder} holds no dictionary (it holds {', '.join(sorted(names)[:8]) or 'nothing'}); "
            f"{CONFIG} with {WEIGHTS} (SAELens) or {formats.SPARSIFY} (sparsify) is expected"
        )
    made = _wrapped(sae, site, str(folder))
    file = folder / DictionaryRecord.FILE
    data = formats.read_json(file) if file.is_file() else {}
    # Other tools write a run.json too.
    if data.get("format") != f"ed-interp/{DictionaryRecord.KIND}":
        return made
    record = DictionaryRecord.load(folder)
    # What it was trained on, so that a copy does not claim to come from this machine.
    settings = {**record.settings, "environment": data.get("environment")}
    stamp = None
    # None if the record holds none, or one of another version.
    with contextlib.suppress(Exception):  # type checks under test raise errors of their own
        fields: dict[str, Any] = record.stamp or {}
        stamp = ModelStamp(**{**fields, "sample": tuple(fields.get("sample", ()))})
    return dataclasses.replace(made, stamp=stamp, settings=settings, history=record.history)


def _missing(folder: Path) -> ModelLoadError | RunFolderError:
    if folder.with_name(f".{folder.name}.partial").exists():
        text = f"the training of {folder} was interrupted; repeat its command to finish it"
        return RunFolderError(text)
    if folder.is_file():
        return ModelLoadError(f"{folder} is a file; pass the folder that holds {CONFIG}")
    return ModelLoadError(
        f"there is no folder {folder}; for a release of SAELens pass its id too: "
        f"load({str(folder)!r}, 'ID') (--id ID)"
    )


def _from_sae_lens(folder: Path, device: str, dtype: str | None) -> SAE[Any]:
    """A folder that ``SAE.save_model`` wrote, of this or an earlier version."""
    # Checked here first: SAELens would fail with whatever the first wrong line happens to raise.
    config = formats.read_json(folder / CONFIG)
    weights = formats.read_safetensors(folder / WEIGHTS)
    formats.check_shapes(weights, str(folder))
    for field, size in zip(("d_in", "d_sae"), weights["W_enc"].shape, strict=True):
        if config.get(field) != size:
            raise ModelLoadError(
                f"{folder} is damaged: {CONFIG} says {field}={config.get(field)} and the weights "
                f"have {size}; download or make it again"
            )
    import ed_interp.probes.dictionaries.spike_slab  # noqa: F401  (registers itself)
    from ed_interp.probes.dictionaries.backend import SAE, registry

    kind, known = config.get("architecture", "standard"), sorted(registry.SAE_CLASS_REGISTRY)
    if kind not in known:
        raise unknown("architecture", str(kind), known)
    try:
        sae = SAE.load_from_disk(folder, device=device, dtype=dtype)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelLoadError(
            f"{folder} is damaged ({type(error).__name__}: {' '.join(str(error).split())[:200]}); "
            "download or make it again"
        ) from error
    return sae.eval().requires_grad_(False)


def _from_release(release: str, sae_id: str, device: str, dtype: str | None) -> SAE[Any]:
    from ed_interp.probes.dictionaries.backend import SAE, releases

    known = releases()
    entry = known.get(release)
    if entry is None and "/" not in release:
        raise unknown("release", release, sorted(known))
    if entry is not None and sae_id not in entry.saes_map:
        raise unknown(f"id of release {release}", sae_id, list(entry.saes_map))
    if entry is not None and entry.conversion_func in _PICKLED:
        raise ModelLoadError(
            f"release {release!r} is published as pickles, which are not read (they can run "
            f"code); load it yourself and pass load(SAE.from_pretrained({release!r}, {sae_id!r}))"
        )
    try:
        sae = SAE.from_pretrained(release, sae_id, device=device, dtype=dtype or "float32")
    except Exception as error:  # errors of the hub, of requests and of SAELens share no base
        reason = " ".join(str(error).split())[:200]
        raise ModelLoadError(
            f"cannot download {sae_id!r} of {release!r} ({type(error).__name__}: {reason}); "
            "offline, pass a local folder instead, one that SAE.save_model wrote: load(FOLDER)"
        ) from error
    return sae.eval().requires_grad_(False)
