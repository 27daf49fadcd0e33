"""What each side costs: parameters, checkpoint, training, memory, and the speed of decoding.

Decoding is timed in pairs: control and treated generate the same number of tokens in turns, and
the median of the ratios is kept with its range, so that a machine whose speed changes hits both.
Memory is counted in live tensors, on any device, not by the operating system: the peak of
a process includes everything that was ever loaded, and never falls. Cost of measuring: two forward
passes of one batch, and ``2 (rounds + 1) x tokens`` decoding steps.
"""

from __future__ import annotations

import collections
import json
import statistics
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ed_interp.eval.compare.rows import Cost
from ed_interp.eval.compare.subjects import Subject
from ed_interp.models.runners import Inputs, TransformersRunner
from ed_interp.models.sites import resid_post
from ed_interp.prompts.tokens import Ids

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
    """Measure both sides on prompts of the task, of which the first eight make one batch.

    ``seconds`` is the time of the treated model's training, if it was timed: its record holds no
    times. Paired decoding has ``rounds`` (0 leaves it out) of ``tokens`` generated tokens each.
    """
    state, sides = adapter_state(treated), (control, treated)
    ratios = _decode_ratios(control, treated, prompts[0], rounds, tokens)
    peaks = [_peak(side, prompts[:_BATCH]) for side in sides]
    # `parameters()` yields a tied tensor once.
    counts = [sum(each.numel() for each in side.model.parameters()) for side in sides]
    return Cost(
        parameters_control=counts[0],
        parameters_treated=counts[1],
        adapter_parameters=None if state is None else sum(t.numel() for t in state.values()),
        checkpoint_bytes=_checkpoint_bytes(treated, state),
        training_seconds=seconds,
        training_steps=_training_steps(treated.folder),
        peak_bytes_control=peaks[0],
        peak_bytes_treated=peaks[1],
        decode_ratio=statistics.median(ratios) if ratios else None,
        decode_ratio_low=min(ratios, default=None),
        decode_ratio_high=max(ratios, default=None),
        decode_rounds=len(ratios),
        decode_tokens=tokens if ratios else 0,
    )


def adapter_state(subject: Subject) -> dict[str, torch.Tensor] | None:
    """The tensors of the active adapter, by name; None without one."""
    if not subject.is_adapter:
        return None
    from peft import get_peft_model_state_dict

    # The embeddings are the base's, which PEFT would add if they have been resized.
    state: dict[str, Any] = get_peft_model_state_dict(subject.model, save_embedding_layers=False)
    return state


def _training_steps(folder: Path | None) -> int | None:
    """Steps by the record of the training in an adapter's folder; None without one."""
    if folder is None:
        return None
    try:
        return int(json.loads((folder / TRAINING_RECORD).read_text("utf-8"))["steps"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _checkpoint_bytes(subject: Subject, state: Mapping[str, torch.Tensor] | None) -> int | None:
    if subject.folder is not None and (subject.folder / WEIGHTS).is_file():
        return (subject.folder / WEIGHTS).stat().st_size
    if state is None:
        return None
    return len(save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}))


# Memory -------------------------------------------------------------------------------------


def peak_bytes(call: Callable[[], Any]) -> int:
    """Largest memory in tensors made during ``call``, in bytes, without parameters and inputs.

    What operators allocate and free inside themselves is not seen. Counting costs Python work at
    every operator, so never time a call that is measured this way.
    """
    with _Live() as live:
        call()
    return int(live.peak)


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the storages of tensors that operators returned and that still exist."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._owners: collections.Counter[int] = collections.Counter()
        self._bytes: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given, made = (
            [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
            for tree in ((args, kwargs), result)
        )
        inputs = {tensor.untyped_storage().data_ptr() for tensor in given}
        for tensor in made:
            self._count(tensor, inputs)
        return result

    def _count(self, tensor: torch.Tensor, inputs: set[int]) -> None:
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        # An empty tensor has no memory, and a view of a parameter or an input is not new memory.
        if not key or (key in inputs and key not in self._bytes):
            return
        if key not in self._bytes:
            self._bytes[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
        # Several tensors may share a storage: it is free when the last of them is gone.
        self._owners[key] += 1
        weakref.finalize(tensor, self._drop, key)

    def _drop(self, key: int) -> None:
        self._owners[key] -= 1
        if self._owners[key] == 0:
            del self._owners[key]
            self.now -= self._bytes.pop(key)


def _peak(subject: Subject, prompts: Sequence[Ids]) -> int:
    """Parameters, and live tensors during one pass over a batch, all logits computed."""
    # Cut to the shortest, so that nothing is padded and no mask is needed.
    width = min(len(ids) for ids in prompts)
    ids = torch.tensor([subject.before + ids[:width] for ids in prompts])
    reads = torch.arange(ids.shape[1]).expand(len(ids), -1)
    sites = [resid_post(subject.hooked.n_layers - 1)]
    runner = subject.hooked.runner
    own = sum(each.numel() * each.element_size() for each in subject.model.parameters())
    with subject.scope():
        live = peak_bytes(
            lambda: runner.run(Inputs(ids), sites=sites, reads=reads[:, :1], logit_reads=reads)
        )
    return int(own) + live


# Speed --------------------------------------------------------------------------------------


def _decode_ratios(
    control: Subject, treated: Subject, prompt: Ids, rounds: int, tokens: int
) -> list[float]:
    """Time of treated over control, one ratio per round; [] if either does not generate."""
    sides = (control, treated)
    if rounds < 1 or not all(isinstance(side.hooked.runner, TransformersRunner) for side in sides):
        return []
    longest = len(prompt) + tokens + max(len(side.before) for side in sides)
    if any(longest > (side.hooked.context_window or longest) for side in sides):
        return []
    for side in sides:  # The first generation of a model fills caches, and is not timed.
        _decode(side, prompt, tokens)
    ratios = []
    for turn in range(rounds):
        # Who goes first changes with the round, so that neither side gains by its place.
        order = (0, 1) if turn % 2 == 0 else (1, 0)
        taken = {place: _decode(sides[place], prompt, tokens) for place in order}
        ratios.append(taken[1] / taken[0])
    return ratios


def _decode(subject: Subject, prompt: Ids, tokens: int) -> float:
    """Seconds (CPU time on a CPU) to generate greedily, with the cache."""
    model = subject.model
    ids = torch.tensor([subject.before + prompt], device=subject.hooked.device)
    # On a CPU, wall time would include what other processes took in between.
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
            # Kernels run on after `generate` has returned.
            torch.cuda.synchronize()
        return clock() - start
