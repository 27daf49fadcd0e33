"""Is the adapter's before-state the identity? Checked on logits, bit for bit, never assumed.

Two checks on prompts of the task: an adapter of the same configuration, freshly initialised on a
copy of the base, must have the base's logits; and the treated model with its adapter off must have
the control's. If either fails, a difference found later need not come from training. Cost: a copy
of the base model in memory, and a few forward passes of one prompt.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.eval.compare.rows import Identity
from ed_interp.eval.compare.subjects import Subject, active_config, adapter_off
from ed_interp.models.hooked import HookedModel
from ed_interp.models.runners import Inputs
from ed_interp.models.sites import resid_post
from ed_interp.prompts.tokens import Ids

_PROMPTS = 3


def check_identity(
    control: Subject, treated: Subject, prompts: Sequence[Ids], *, required: bool = True
) -> Identity:
    """Check the before-state of ``treated``'s adapter on the first few distinct prompts.

    If ``treated`` is not an adapter there is nothing to check, which the result records.

    Raises:
        InvalidInputError: the adapter is merged; or (``required``) it is not neutral at the start,
            or its base is not the control.
    """
    if not treated.is_adapter:
        return Identity(False, None, None, None, f"{treated.name} has no adapter")
    if any(getattr(module, "merged", False) is True for module in treated.model.modules()):
        raise InvalidInputError(
            f"{treated.name} must not be merged, got an adapter merged into its base, whose state "
            "before training cannot be checked; call unmerge_adapter() first"
        )
    prompts = list(dict.fromkeys(prompts))[:_PROMPTS]
    with adapter_off(treated):
        off = _logits(treated.hooked, prompts)
    # A steered control never runs without its steering, so there is nothing to compare with.
    base_is_control = None
    if control.kind in ("frozen", "prompt", "adapter"):
        with adapter_off(control):
            base_is_control = _equal(off, _logits(control.hooked, prompts))
    if base_is_control is False and required:
        raise InvalidInputError(
            f"with its adapter off, {treated.name} must have the logits of {control.name}, got "
            "others: it was trained on another base; compare it with that one"
        )
    fresh = _logits(_fresh(treated), prompts)
    neutral = _equal(fresh, off)
    largest = max(float((a - b).abs().max()) for a, b in zip(fresh, off, strict=True))
    if not neutral and required:
        raise InvalidInputError(
            f"the adapter of {treated.name} is not neutral at the start: freshly initialised, it "
            f"moves the logits by up to {largest:.3g}, so its effect is not that of training; use "
            "an initialisation that changes nothing, or allow it (require_identity=False, "
            "--allow-non-neutral)"
        )
    return Identity(True, neutral, largest, base_is_control)


def _fresh(treated: Subject) -> HookedModel:
    """The treated model's configuration, newly initialised on a copy of its base."""
    from peft import get_peft_model

    model: Any = treated.model
    config = copy.deepcopy(active_config(model))
    # Saved configurations are marked for inference, which would freeze the new weights, and name
    # a base to load.
    config.inference_mode = False
    config.base_model_name_or_path = None
    base, device = clean_base(model), treated.hooked.device
    # Some initialisations draw random numbers, which the caller's generators must not notice.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        adapted = get_peft_model(base, config)
    return HookedModel.wrap(adapted.eval(), treated.hooked.tokenizer, name=treated.name)


def clean_base(model: Any) -> Any:
    """A copy of the base of a PEFT model, without any trace of its adapters."""
    copied = copy.deepcopy(model)
    if getattr(copied.active_peft_config, "is_prompt_learning", False):
        base = copied.get_base_model()
    else:
        for module in copied.modules():
            # `unload` would put the trained copies of modules_to_save into the base.
            if hasattr(module, "modules_to_save") and hasattr(module, "original_module"):
                saved: Any = module.modules_to_save
                for name in list(saved):
                    saved[name] = module.original_module
        base = copied.unload()
    # PEFT warns, and names the adapter anew, if the base still carries a configuration.
    base.__dict__.pop("peft_config", None)
    return base


def _logits(hooked: HookedModel, prompts: Sequence[Ids]) -> list[Float[Tensor, "1 pos d_vocab"]]:
    """Logits at every position of every prompt."""
    logits, last = [], [resid_post(hooked.n_layers - 1)]
    # One prompt at a time: padding and batch size change the last bits of a sum.
    for ids in prompts:
        reads, inputs = torch.arange(len(ids))[None], Inputs(torch.tensor([ids]))
        run = hooked.runner.run(inputs, sites=last, reads=reads[:, :1], logit_reads=reads)
        assert run.logits is not None
        logits.append(run.logits.cpu())
    return logits


def _equal(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
