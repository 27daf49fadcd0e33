"""`load`: from a name, a folder or a live object to a :class:`HookedModel`.

Reads safetensors only. Code from a hub model runs only with ``trust_remote_code=True``. Cost: that
of loading with ``transformers``.
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

from ed_interp.errors import InvalidInputError, ModelLoadError, OptionError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.registry import BundledModel, bundled, bundled_names

# Adapter methods that are not PEFT's own: importing one registers it with PEFT. As strings, as the
# adapters import this module.
_OWN_METHODS = {"BIAS_INJECTION": "ed_interp.adapters.bias_injection"}


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
        tokenizer: A tokenizer, its name or folder, instead of the model's; needed for most live
            objects.
        device: For loading by name: ``cpu``, ``cuda``, ``mps``, ...; default the best available.
        dtype: For loading by name: ``float32`` (default), ``bfloat16``, ``float16``, or ``auto``
            for the precision of the saved weights. Spreads of activations are estimated in
            float32 in any case.
        checkpoint: For bundled models: the training step.
        revision: For hub ids: branch, tag or commit.
        trust_remote_code: Run the code that a hub repository ships.
        **options: Further keywords of ``from_pretrained``, such as ``attn_implementation``.

    Returns:
        The hooked model. The object it holds (``.model``) is never changed.

    Raises:
        ModelLoadError: no such model, no network, or weights that are not safetensors.
        UnknownNameError: a bundled model has no such checkpoint.
        InvalidInputError: options that do not apply to this kind of model.
    """
    if isinstance(model, HookedModel):
        return model
    if isinstance(model, (str, os.PathLike)):
        where, options["dtype"] = _device(device), _dtype(dtype)
        name = os.fspath(model)
        base, _, step = name.partition("@")
        if base in bundled_names():
            if step and not step.isdigit():
                raise InvalidInputError(f"{name!r} must have a training step after @, got {step!r}")
            checkpoint = int(step) if step else checkpoint
            return _load_bundled(bundled(base), checkpoint, options, where)
        if checkpoint is not None:
            raise InvalidInputError(
                f"checkpoint must come with a bundled model ({', '.join(bundled_names())}), got "
                f"{name!r}; use revision= for a hub id"
            )
        options |= {"revision": revision} if revision else {}
        options["trust_remote_code"] = trust_remote_code
        if (Path(name) / "adapter_config.json").is_file():
            return _load_adapter(Path(name), tokenizer, options, where)
        return _load_pretrained(name, tokenizer, options, where)
    if not isinstance(model, nn.Module):
        raise InvalidInputError(
            "the model must be a name, a folder, or a live transformers, PEFT or TransformerLens "
            f"model, got a {type(model).__name__}"
        )
    if device is not None or dtype is not None or options:
        raise InvalidInputError(
            "device, dtype and loading options must be left out for a live model, which is never "
            "changed; move it yourself, for instance load(model.to('cuda'), tokenizer=tokenizer)"
        )
    if isinstance(tokenizer, str):
        tokenizer = _tokenizer(tokenizer, {})
    return HookedModel.wrap(model, tokenizer)


def _load_bundled(
    entry: BundledModel, checkpoint: int | None, options: dict[str, Any], device: torch.device
) -> HookedModel:
    loaded, name = _load_pretrained(str(entry.folder), None, options, device), entry.name
    if checkpoint is not None:
        from safetensors.torch import load_file

        weights = load_file(entry.checkpoint(checkpoint))
        # Checkpoints hold tied weights once, so these are missing under their second name.
        missing, unexpected = loaded.model.load_state_dict(weights, strict=False)
        loaded.model.tie_weights()
        tied = set(getattr(loaded.model, "all_tied_weights_keys", {}) or {"lm_head.weight"})
        if unexpected or set(missing) - tied:
            raise ModelLoadError(
                f"{entry.checkpoint(checkpoint)} does not fit {entry.name}; reinstall ed-interp"
            )
        name = f"{name}@{checkpoint}"
    return HookedModel.wrap(loaded.model, loaded.tokenizer, name=name)


def _load_pretrained(
    name: str, tokenizer: Any, options: dict[str, Any], device: torch.device
) -> HookedModel:
    from transformers import AutoModelForCausalLM

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(name, use_safetensors=True, **options)
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise _explain(name, error) from error
    if tokenizer is None or isinstance(tokenizer, str):
        passed = {"revision", "trust_remote_code"} & set(options)
        tokenizer = _tokenizer(tokenizer or name, {key: options[key] for key in passed})
    # A device map has placed the model already.
    if "device_map" not in options:
        model = model.to(device)
    return HookedModel.wrap(model.eval(), tokenizer, name=name.rstrip("/").rsplit("/", 1)[-1])


def _load_adapter(
    folder: Path, tokenizer: Any, options: dict[str, Any], device: torch.device
) -> HookedModel:
    from peft import PeftConfig, PeftModel

    if not (folder / "adapter_model.safetensors").is_file():
        raise ModelLoadError(
            f"{folder} must hold adapter_model.safetensors, got an adapter without it; only "
            "safetensors are read: save it again with save_pretrained(..., "
            "safe_serialization=True)"
        )
    try:
        method = json.loads((folder / "adapter_config.json").read_text("utf-8")).get("peft_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelLoadError(
            f"{folder}/adapter_config.json is damaged ({error}); save the adapter again"
        ) from error
    if method in _OWN_METHODS:
        import_module(_OWN_METHODS[method])
    base_name = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    if not base_name:
        raise ModelLoadError(
            f"{folder}/adapter_config.json must name the base model, got none; load it yourself "
            "and pass PeftModel.from_pretrained(base, folder)"
        )
    if base_name in bundled_names():
        base = _load_bundled(bundled(base_name), None, {"dtype": options["dtype"]}, device)
    else:
        base = _load_pretrained(base_name, tokenizer, options, device)
    model = PeftModel.from_pretrained(base.model, str(folder)).eval()
    return HookedModel.wrap(model, base.tokenizer, name=folder.name)


def _tokenizer(name: str, options: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    folder = bundled(name).folder if name in bundled_names() else name
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **options)
    except (OSError, ValueError, ImportError) as error:
        raise _explain(name, error, what="tokenizer") from error
    # If its files are missing, transformers makes one that has special tokens only.
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise ModelLoadError(
            f"{name!r} comes without a tokenizer; name one with tokenizer= (--tokenizer)"
        )
    return tokenizer


def _explain(name: str, error: Exception, *, what: str = "model") -> ModelLoadError:
    """One line for a person: which of the usual reasons it was, and what to do."""
    text = " ".join(str(error).split())
    bundle = f"the bundled models ({', '.join(bundled_names())})"
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            reason = "it has no config.json; give a folder that save_pretrained wrote"
        elif isinstance(error, SafetensorError):
            reason = f"its weights are damaged ({text}); get an undamaged copy"
        elif "safetensors" in text:
            reason = (
                "only safetensors weights are read; save it again with save_pretrained(..., "
                "safe_serialization=True)"
            )
        else:
            reason = text
        return ModelLoadError(f"cannot load the {what} from folder {name}: {reason}")
    signs = ("connect to", "offline", "Offline", "couldn't find them in the cached", "resolve host")
    offline = os.environ.get("HF_HUB_OFFLINE") in {"1", "true", "True", "ON"}
    if name.startswith(("/", "./", "../", "~")):
        reason = "the folder does not exist; check the path"
    elif offline or any(sign in text for sign in signs):
        reason = (
            "the Hugging Face hub cannot be reached and it is not in the local cache; use "
            f"{bundle} or a local folder with config.json, safetensors and tokenizer"
        )
    elif "safetensors" in text:
        reason = f"it has no safetensors weights, and pickles are not read; use {bundle}"
    else:
        reason = f"{text[:300]}; check the name, or use {bundle}"
    return ModelLoadError(f"cannot load {what} {name!r}: {reason}")


def _device(device: str | torch.device | None) -> torch.device:
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device is None or device == "auto":
        if available["cuda"]:
            # Under accelerate launch every process has a device of its own.
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        return torch.device("mps" if available["mps"] else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        problem = f"must be cpu, cuda, cuda:0 or mps, got {device!r}"
        raise OptionError("device", problem) from error
    if not available.get(chosen.type, True):
        raise OptionError("device", f"{str(device)!r} is not available to torch; use cpu")
    return chosen


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | str:
    if isinstance(dtype, torch.dtype) or dtype == "auto":
        return dtype
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in (None, *known):
        raise OptionError("dtype", f"must be {', '.join(known)} or auto, got {dtype!r}")
    return known[dtype or "float32"]
