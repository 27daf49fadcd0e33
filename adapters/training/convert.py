"""An adapter in a folder as something else: a plain LoRA, or a merged model.

Both appear complete or not at all. Cost: loading the base model; merging writes it again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ed_interp.adapters.bias_injection.export import export_lora
from ed_interp.adapters.training.describe import describe
from ed_interp.errors import InvalidInputError, ModelLoadError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load
from ed_interp.records import RunFolder


def load_adapted(folder: str | Path, *, base: str | None = None) -> HookedModel:
    """The base model with the adapter of ``folder``, not merged.

    Args:
        folder: as PEFT saves an adapter.
        base: the base model, by default the one that the adapter names.

    Raises:
        ModelLoadError: either cannot be loaded, or the adapter is damaged.
        InvalidInputError: the adapter does not fit the model.
    """
    found = describe(folder)
    name = base or found["base_model"]
    if not name:
        raise ModelLoadError(f"{folder} names no base model; name it with model= (--model)")
    from peft import PeftModel

    hooked = load(name)
    try:
        model = PeftModel.from_pretrained(hooked.model, str(folder)).eval()
    except (RuntimeError, ValueError, KeyError) as error:
        if isinstance(error, InvalidInputError):
            raise
        text = " ".join(str(error).split())[:300]
        raise InvalidInputError(f"the adapter in {folder} does not fit {name}: {text}") from error
    return HookedModel.wrap(model, hooked.tokenizer, name=Path(folder).name)


def export_static(
    folder: str | Path,
    out: str | Path,
    *,
    base: str | None = None,
    drop_feedback: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the static part of a bias-injection adapter as a plain LoRA.

    Args:
        folder: the adapter.
        out: the folder to make.
        base: the base model, by default the one that the adapter names.
        drop_feedback: leave out feedback nodes that are not zero, rather than refuse.
        overwrite: replace the run that is at ``out``.

    Returns:
        Plain data: the folder made, and the adapter's and the base model's names.

    Raises:
        InvalidInputError: another kind of adapter, or live feedback that may not be left out.
    """
    found = describe(folder)
    if found["method"] != "bias-injection":
        raise InvalidInputError(
            f"{folder} holds a {found['method']} adapter; only bias injection is exported (PEFT "
            "loads the others as they are)"
        )
    hooked = load_adapted(folder, base=base)
    settings = {"export": found["fingerprint"], "drop_feedback": drop_feedback}
    with RunFolder.open(out, settings, overwrite=overwrite, resumable=False) as run:
        export_lora(hooked.model, run.folder, drop_feedback=drop_feedback)
    return {"folder": str(run.path), "adapter": str(folder), "base_model": found["base_model"]}


def merge_adapter(
    folder: str | Path, out: str | Path, *, base: str | None = None, overwrite: bool = False
) -> dict[str, Any]:
    """Write base model and adapter as one model, with its tokenizer.

    Args:
        folder: the adapter, of any method that PEFT can merge.
        out: the folder to make.
        base: the base model, by default the one that the adapter names.
        overwrite: replace the run that is at ``out``.

    Returns:
        Plain data: the folder made, and the adapter's and the base model's names.

    Raises:
        InvalidInputError: the adapter cannot be merged, as with live feedback nodes.
    """
    found = describe(folder)
    hooked = load_adapted(folder, base=base)
    try:
        merged = hooked.model.merge_and_unload()
    except (NotImplementedError, AttributeError, RuntimeError) as error:
        raise InvalidInputError(
            f"a {found['method']} adapter cannot be merged: {' '.join(str(error).split())}"
        ) from error
    settings = {"merge": found["fingerprint"], "base": base or found["base_model"]}
    with RunFolder.open(out, settings, overwrite=overwrite, resumable=False) as run:
        merged.save_pretrained(run.folder)
        if hooked.tokenizer is not None:
            hooked.tokenizer.save_pretrained(run.folder)
    return {"folder": str(run.path), "adapter": str(folder), "base_model": settings["base"]}
