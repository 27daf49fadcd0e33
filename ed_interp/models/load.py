"""`load`: from a name, a folder or a live object to a :class:`HookedModel`.

Reads safetensors only. Nothing of a hub model's own code runs unless ``trust_remote_code=True``.
Cost: that of ``transformers``' own loading.
"""

from __future__ import annotations

import json
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from ed_interp.errors import InvalidInputError, ModelLoadError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.registry import BundledModel, bundled, bundled_names

# Adapter methods that PEFT does not know by itself. By name: the spine imports no room.
_OWN_METHODS = {"BIAS_INJECTION": "ed_interp.adapters.bias_injection"}

Place = tuple[torch.device, torch.dtype | str]
"""Where a model loaded by name goes, and in which precision."""


def load(
    model: Any,
    *,
    tokenizer: Any = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    checkpoint: int | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    **options: Any,
) -> HookedModel:
    """Load any causal language model under hooks.

    Args:
        model: A bundled name (``icl-gpt2``; ``icl-gpt2@400`` is its training checkpoint at step
            400), a hub id, a local folder (of a model or of a PEFT adapter), or a live object: a
            ``transformers`` model, a ``PeftModel``, a ``HookedTransformer``, a
            ``TransformerBridge``, or a :class:`HookedModel`, which is returned as it is.
        tokenizer: For a live object that does not carry one; a tokenizer or a name or folder.
        device: For loading by name: ``cpu``, ``cuda``, ``mps``, ...; default the best there is.
        dtype: For loading by name: ``float32`` (default), ``bfloat16``, ``float16``, or ``auto``
            for the one the weights were saved in. Spreads of activations are estimated in
            float32 whatever this is.
        checkpoint: For bundled models: the training step.
        revision: For hub ids: branch, tag or commit.
        trust_remote_code: Run code that a hub repository ships. Never on its own.
        **options: Further keywords of ``from_pretrained``, such as ``attn_implementation``.

    Returns:
        The hooked model. The object it holds (``.model``) is never changed.

    Raises:
        ModelLoadError: nothing there, no network, or weights that are not safetensors.
        UnknownNameError: a bundled model has no such checkpoint.
        InvalidInputError: options that do not apply to what was given.
    """
    if isinstance(model, HookedModel):
        return model
    if isinstance(model, (str, os.PathLike)):
        place = (_device(device), _dtype(dtype))
        name = os.fspath(model)
        base, _, step = name.partition("@")
        if base in bundled_names():
            if step:
                checkpoint = _step(name, step)
            return _load_bundled(bundled(base), checkpoint, options, place)
        if checkpoint is not None:
            raise InvalidInputError(
                f"checkpoint={checkpoint} applies to bundled models ({', '.join(bundled_names())}),"
                f" not to {name!r}; use revision= for a hub id"
            )
        options |= {"revision": revision} if revision else {}
        options["trust_remote_code"] = trust_remote_code
        if (Path(name) / "adapter_config.json").is_file():
            return _load_adapter(Path(name), tokenizer, options, place)
        return _load_pretrained(name, tokenizer, options, place)
    if not isinstance(model, nn.Module):
        raise InvalidInputError(
            f"cannot load a {type(model).__name__}: expected a name, a folder, or a live "
            "transformers, PEFT or TransformerLens model"
        )
    if device is not None or dtype is not None or options:
        raise InvalidInputError(
            "device, dtype and loading options do not apply to a live model, which is never "
            "changed; move it yourself, for instance load(model.to('cuda'), tokenizer=tokenizer)"
        )
    if isinstance(tokenizer, str):
        tokenizer = _tokenizer(tokenizer, {})
    return HookedModel.wrap(model, tokenizer)


def _load_bundled(
    entry: BundledModel,
    checkpoint: int | None,
    options: dict[str, Any],
    place: Place,
) -> HookedModel:
    loaded = _load_pretrained(str(entry.folder), None, options, place)
    name = entry.name
    if checkpoint is not None:
        from safetensors.torch import load_file

        weights = load_file(entry.checkpoint(checkpoint))
        missing, unexpected = loaded.model.load_state_dict(weights, strict=False)
        loaded.model.tie_weights()
        tied = set(getattr(loaded.model, "all_tied_weights_keys", {}) or {"lm_head.weight"})
        if unexpected or set(missing) - tied:
            raise ModelLoadError(f"{entry.checkpoint(checkpoint)} does not fit {entry.name}")
        name = f"{name}@{checkpoint}"
    return HookedModel.wrap(loaded.model, loaded.tokenizer, name=name)


def _load_pretrained(
    name: str,
    tokenizer: Any,
    options: dict[str, Any],
    place: Place,
) -> HookedModel:
    from transformers import AutoModelForCausalLM

    device, dtype = place
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, use_safetensors=True, **options
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise _explain(name, error) from error
    if tokenizer is None or isinstance(tokenizer, str):
        passed = ("revision", "trust_remote_code")
        keep: dict[str, Any] = {key: options[key] for key in passed if key in options}
        tokenizer = _tokenizer(tokenizer or name, keep)
    if "device_map" not in options:
        model = model.to(device)
    return HookedModel.wrap(model.eval(), tokenizer, name=name.rstrip("/").rsplit("/", 1)[-1])


def _load_adapter(
    folder: Path,
    tokenizer: Any,
    options: dict[str, Any],
    place: Place,
) -> HookedModel:
    from peft import PeftConfig, PeftModel

    if not (folder / "adapter_model.safetensors").is_file():
        raise ModelLoadError(
            f"{folder} holds an adapter without adapter_model.safetensors; only safetensors are "
            "read: save it again with save_pretrained(..., safe_serialization=True)"
        )
    _register_own_method(folder)
    base_name = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    if not base_name:
        raise ModelLoadError(
            f"{folder}/adapter_config.json names no base model; load it yourself and pass "
            "PeftModel.from_pretrained(base, folder)"
        )
    if base_name in bundled_names():
        base = _load_bundled(bundled(base_name), None, {}, place)
    else:
        base = _load_pretrained(base_name, tokenizer, options, place)
    model = PeftModel.from_pretrained(base.model, str(folder)).eval()
    return HookedModel.wrap(model, base.tokenizer, name=folder.name)


def _register_own_method(folder: Path) -> None:
    """Make PEFT know the adapter's method if it is one of ours, which it learns on import."""
    try:
        asked = json.loads((folder / "adapter_config.json").read_text("utf-8")).get("peft_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelLoadError(f"{folder}/adapter_config.json is damaged: {error}") from error
    if asked in _OWN_METHODS:
        import_module(_OWN_METHODS[asked])


def _tokenizer(name: str, options: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    folder = bundled(name).folder if name in bundled_names() else name
    try:
        found = AutoTokenizer.from_pretrained(str(folder), **options)
    except (OSError, ValueError, ImportError) as error:
        raise _explain(name, error, what="tokenizer") from error
    # Where its files are missing, transformers makes one that knows nothing but special tokens.
    if len(found) <= len(found.all_special_tokens):
        raise ModelLoadError(
            f"{name!r} comes without a tokenizer; name one with tokenizer= (--tokenizer)"
        )
    return found


def _explain(name: str, error: Exception, *, what: str = "model") -> ModelLoadError:
    """One line for a person: which of the usual reasons it was, and what to do."""
    text = " ".join(str(error).split())
    bundle = f"the bundled models ({', '.join(bundled_names())})"
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            return ModelLoadError(
                f"cannot load the {what} from folder {name}: it has no config.json; a folder that "
                "save_pretrained wrote is expected"
            )
        if isinstance(error, SafetensorError):
            return ModelLoadError(
                f"cannot load the {what} from folder {name}: its weights are damaged ({text})"
            )
        if "safetensors" in text:
            return ModelLoadError(
                f"cannot load the {what} from folder {name}: only safetensors weights are read; "
                "save it again with save_pretrained(..., safe_serialization=True)"
            )
        return ModelLoadError(f"cannot load the {what} from folder {name}: {text}")
    if name.startswith(("/", "./", "../", "~")):
        return ModelLoadError(f"cannot load the {what} from {name}: there is no such folder")
    if _offline(text):
        return ModelLoadError(
            f"cannot load {what} {name!r}: the Hugging Face hub cannot be reached and it is not "
            f"in the local cache; use {bundle} or the path of a local folder with config.json, "
            "safetensors and tokenizer"
        )
    if "safetensors" in text:
        return ModelLoadError(
            f"cannot load {what} {name!r}: it has no safetensors weights, and pickles are not read"
        )
    return ModelLoadError(f"cannot load {what} {name!r} ({text[:300]}); there are also {bundle}")


def _offline(text: str) -> bool:
    signs = ("connect to", "offline", "Offline", "couldn't find them in the cached", "resolve host")
    return os.environ.get("HF_HUB_OFFLINE") in {"1", "true", "True", "ON"} or any(
        sign in text for sign in signs
    )


def _device(device: str | torch.device | None) -> torch.device:
    if device is None or device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise InvalidInputError(
            f"unknown device {device!r}; use cpu, cuda, cuda:0 or mps"
        ) from error
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(found.type, True):
        raise InvalidInputError(f"device {device!r} asked for, but torch finds none; use cpu")
    return found


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | str:
    if dtype is None:
        return torch.float32
    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in known:
        raise InvalidInputError(f"unknown dtype {dtype!r}; use {', '.join(known)} or auto")
    return known[dtype]


def _step(name: str, step: str) -> int:
    if not step.isdigit():
        raise InvalidInputError(f"{name!r}: a training step is expected after @, found {step!r}")
    return int(step)
