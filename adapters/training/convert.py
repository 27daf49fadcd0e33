"""An adapter in a folder as something else: a plain LoRA, or a merged model.

Both appear complete or not at all. Cost: loading the base model; merging writes it again.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

from ed_interp.adapters.bias_injection.export import export_lora
from ed_interp.adapters.training.describe import AdapterDescription, describe
from ed_interp.adapters.training.options import ExportOptions, MergeOptions
from ed_interp.errors import InvalidInputError, ModelLoadError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load
from ed_interp.options import takes_options
from ed_interp.records.folders import RunFolder
from ed_interp.results import Result


@dataclasses.dataclass(frozen=True)
class ConvertedAdapter(Result):
    """What an adapter became, and where it is."""

    KIND = "adapter-conversion"

    folder: str
    """The folder that was made."""
    kind: Literal["plain LoRA", "merged model"]
    adapter: str
    """The folder of the adapter."""
    base_model: str
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def title(self) -> str:
        return f"{self.adapter} as a {self.kind}"

    def headline(self) -> str:
        if self.kind == "merged model":
            return f"It holds {self.base_model} with the adapter in its weights; load it alone."
        return f"PEFT loads it on {self.base_model} without ed-interp."


def _open(options: MergeOptions, described: AdapterDescription) -> tuple[HookedModel, str]:
    """The base model with the adapter of a folder, not merged, and the base model's name."""
    folder, name = options.folder, options.base or described.base_model
    if not name:
        raise ModelLoadError(f"{folder} must name its base model, got none; pass base= (--base)")
    from peft import PeftModel

    given = ("tokenizer", "revision", "trust_remote_code", "device", "dtype")
    loading: dict[str, Any] = {setting: getattr(options, setting) for setting in given}
    hooked = load(name, **loading)
    try:
        model = PeftModel.from_pretrained(hooked.model, str(folder)).eval()
    except (RuntimeError, ValueError, KeyError) as error:
        if isinstance(error, InvalidInputError):
            raise
        text = " ".join(str(error).split())[:300]
        raise InvalidInputError(f"the adapter in {folder} does not fit {name}: {text}") from error
    return HookedModel.wrap(model, hooked.tokenizer, name=folder.name), name


@takes_options(ExportOptions)
def export_static(
    folder: str | Path, out: str | Path, *, options: ExportOptions, overwrite: bool = False
) -> ConvertedAdapter:
    """Write the static part of a bias-injection adapter as a plain LoRA.

    Args:
        folder: the adapter.
        out: the folder to make.
        overwrite: replace the run that is at ``out``.

    Raises:
        InvalidInputError: another kind of adapter, or live feedback that may not be left out.
        ModelLoadError: adapter or base model cannot be loaded.
    """
    described = describe(folder)
    if described.method != "bias-injection":
        raise InvalidInputError(
            f"{folder} must hold a bias-injection adapter, got {described.method}; PEFT loads "
            "other methods as they are"
        )
    hooked, base = _open(options, described)
    settings = {"export": described.fingerprint, **options.to_dict()}
    with RunFolder.open(out, settings, overwrite=overwrite, resumable=False) as run:
        export_lora(hooked.model, run.folder, drop_feedback=options.drop_feedback)
    return ConvertedAdapter(str(run.path), "plain LoRA", str(folder), base, settings)


@takes_options(MergeOptions)
def merge_adapter(
    folder: str | Path, out: str | Path, *, options: MergeOptions, overwrite: bool = False
) -> ConvertedAdapter:
    """Write base model and adapter as one model, with its tokenizer.

    Args:
        folder: the adapter, of any method that PEFT can merge.
        out: the folder to make.
        overwrite: replace the run that is at ``out``.

    Raises:
        InvalidInputError: the adapter cannot be merged, as with live feedback nodes.
        ModelLoadError: adapter or base model cannot be loaded.
    """
    described = describe(folder)
    hooked, base = _open(options, described)
    try:
        merged = hooked.model.merge_and_unload()
    except (NotImplementedError, AttributeError, RuntimeError) as error:
        raise InvalidInputError(
            f"a {described.method} adapter cannot be merged: {' '.join(str(error).split())}"
        ) from error
    settings = {"merge": described.fingerprint, **options.to_dict()}
    with RunFolder.open(out, settings, overwrite=overwrite, resumable=False) as run:
        merged.save_pretrained(run.folder)
        if hooked.tokenizer is not None:
            hooked.tokenizer.save_pretrained(run.folder)
    return ConvertedAdapter(str(run.path), "merged model", str(folder), base, settings)
