"""What each side costs: parameters, checkpoint, training, memory, and the speed of decoding.

Decoding is timed in pairs: control and treated generate the same number of tokens in turns, and
the median of the ratios is kept with its range, so that a machine whose speed changes hits both.
Cost of measuring: two forward passes of one batch, and ``2 (rounds + 1) x tokens`` decoding steps.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ed_interp.eval.compare.memory import peak_bytes
from ed_interp.eval.compare.result import Cost
from ed_interp.eval.compare.subjects import Subject
from ed_interp.models.runners import Inputs, TransformersRunner
from ed_interp.prompts.tokens import Ids
from ed_interp.models.sites import resid_post

WEIGHTS = "adapter_model.safetensors"
TRAINING_RECORD = "training.json"
_BATCH = 8


def measure_cost(
    control: Subject,
    treated: Subject,
    prompts: Sequence[Ids],
    *,
    seconds: float | None = None,
    rounds: int = 5,
    tokens: int = 24,
) -> Cost:
    """Measure both sides on prompts of the task.

    Args:
        control: The base of the ratio.
        treated: The other.
        prompts: Token ids, of which the first eight are run at once.
        seconds: Of the treated's training, where it was timed; records of it hold no times.
        rounds: Of paired decoding; 0 leaves it out.
        tokens: Generated in a round.
    """
    adapter = adapter_tensors(treated)
    record = training_record(treated.folder)
    ratios = _decode_ratios(control, treated, prompts[0], rounds, tokens)
    peaks = [_peak(subject, prompts[:_BATCH]) for subject in (control, treated)]
    return Cost(
        parameters_control=parameters(control),
        parameters_treated=parameters(treated),
        adapter_parameters=None if adapter is None else sum(adapter.values()),
        checkpoint_bytes=_checkpoint_bytes(treated),
        training_seconds=seconds,
        training_steps=None if (steps := _number(record, "steps")) is None else int(steps),
        peak_bytes_control=peaks[0],
        peak_bytes_treated=peaks[1],
        decode_ratio=statistics.median(ratios) if ratios else None,
        decode_ratio_low=min(ratios, default=None),
        decode_ratio_high=max(ratios, default=None),
        decode_rounds=len(ratios),
        decode_tokens=tokens if ratios else 0,
    )


def parameters(subject: Subject) -> int:
    """Number of parameters, each tied one once."""
    return sum(parameter.numel() for parameter in subject.model.parameters())


def adapter_tensors(subject: Subject) -> dict[str, int] | None:
    """Name -> number of values of each tensor of the active adapter; None without one."""
    if not subject.is_adapter:
        return None
    from peft import get_peft_model_state_dict

    state: dict[str, Any] = get_peft_model_state_dict(subject.model, save_embedding_layers=False)
    return {name: int(tensor.numel()) for name, tensor in state.items()}


def training_record(folder: Path | None) -> dict[str, Any]:
    """What an adapter's folder says of its training; {} if nothing."""
    if folder is None:
        return {}
    try:
        found = json.loads((folder / TRAINING_RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _number(record: dict[str, Any], name: str) -> float | None:
    value = record.get(name)
    return float(value) if isinstance(value, (int, float)) else None


def _checkpoint_bytes(subject: Subject) -> int | None:
    if subject.folder is not None and (subject.folder / WEIGHTS).is_file():
        return (subject.folder / WEIGHTS).stat().st_size
    if not subject.is_adapter:
        return None
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    state = get_peft_model_state_dict(subject.model, save_embedding_layers=False)
    return len(save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}))


def _peak(subject: Subject, prompts: Sequence[Ids]) -> int:
    """Live tensors during one pass over a batch, all logits computed."""
    width = min(len(ids) for ids in prompts)
    head = subject.before
    ids = torch.tensor([head + ids[:width] for ids in prompts])
    reads = torch.arange(ids.shape[1]).expand(len(ids), -1)
    sites = [resid_post(subject.hooked.n_layers - 1)]
    runner = subject.hooked.runner
    own = sum(each.numel() * each.element_size() for each in subject.model.parameters())
    with subject.scope():
        live = peak_bytes(
            lambda: runner.run(Inputs(ids), sites=sites, reads=reads[:, :1], logit_reads=reads)
        )
    return int(own) + live


def _decode_ratios(
    control: Subject, treated: Subject, prompt: Ids, rounds: int, tokens: int
) -> list[float]:
    """Time of treated over control, one ratio a round; [] where either does not generate."""
    sides = (control, treated)
    if rounds < 1 or not all(isinstance(side.hooked.runner, TransformersRunner) for side in sides):
        return []
    longest = len(prompt) + tokens + max(len(side.before) for side in sides)
    windows = [side.hooked.context_window for side in sides]
    if any(window is not None and longest > window for window in windows):
        return []
    for side in sides:
        _decode(side, prompt, tokens)
    ratios = []
    for turn in range(rounds):
        order = sides if turn % 2 == 0 else sides[::-1]
        taken = {side is treated: _decode(side, prompt, tokens) for side in order}
        ratios.append(taken[True] / taken[False] if len(taken) == 2 else 1.0)
    return ratios


def _decode(subject: Subject, prompt: Ids, tokens: int) -> float:
    """Seconds (CPU time on a CPU) to generate greedily, with the cache."""
    model = subject.model
    ids = torch.tensor([subject.before + prompt], device=subject.hooked.device)
    # The processor's time, where it is what computes: others may have it in between.
    clock = time.process_time if ids.device.type == "cpu" else time.perf_counter
    with torch.no_grad(), subject.scope():
        start = clock()
        model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
        )
        if ids.is_cuda:
            torch.cuda.synchronize()
        return clock() - start
