"""The bias-injection adapter against LoRA of equal rank, and its recurrence against a loop.

GPT-2 small's size with random weights, float32, rank 8 on the layers that LoRA takes by default
(``c_attn``), 4 nodes a layer. Adapters are given random weights, so that nothing is multiplied by
zero. A training step is forward, backward and AdamW on the adapter's weights; decoding is one token
through a filled KV cache. Memory is what autograd saves for the backward pass, every storage
counted once (exact, and independent of the allocator); the peak of a GPU beside it where there is
one. Before anything is timed, cached logits are compared with uncached ones, and the recurrence
with its loop.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Iterator
from typing import Any

import torch
from harness import Options, Result, Row, Target, Work, base_row, exponent, paired, row_of, say
from harness import timed as timed_once
from peft import LoraConfig, get_peft_model
from subjects import gpt2
from torch import Tensor

from ed_interp.adapters.bias_injection import BiasInjectionConfig
from ed_interp.adapters.bias_injection.scan import states

RANK, NODES = 8, 4
BATCH, LENGTH = 4, 256
STEP, DECODE, LOOP, MEMORY = (
    Target("at most", 1.15),
    Target("at most", 1.10),
    Target("at least", 20),
    Target("at most", 1.10),
)


def run(options: Options) -> Iterator[Result]:
    """Training step, memory, decoding, the recurrence, growth."""
    batch, length = (2, 128) if options.quick else (BATCH, LENGTH)
    base = gpt2(window=4096)
    models = {"lora": _lora(base), "bias injection": _nodes(base)}
    bare = {"bias injection, no nodes": _nodes(base, n_nodes=0)}
    yield from _training(models, bare, batch, length, options)
    yield from _decoding(models, batch, length, options)
    yield _recurrence(options)
    yield _growth(models, options)


def _lora(base: Any) -> Any:
    config = LoraConfig(r=RANK, lora_alpha=RANK, fan_in_fan_out=True, target_modules=["c_attn"])
    return _randomised(get_peft_model(copy.deepcopy(base), config))


def _nodes(base: Any, **changes: Any) -> Any:
    settings = {"r": RANK, "n_nodes": NODES, "target_modules": ["c_attn"]} | changes
    return _randomised(get_peft_model(copy.deepcopy(base), BiasInjectionConfig(**settings)))


def _randomised(model: Any) -> Any:
    torch.manual_seed(2)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad and "tau" not in name:
                weight.normal_(std=0.02)
    return model


def _ids(batch: int, length: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randint(0, 50257, (batch, length))


def _step(model: Any, ids: Tensor) -> Work:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-6)

    def work() -> None:
        model.train()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return work


def _training(
    models: dict[str, Any], bare: dict[str, Any], batch: int, length: int, options: Options
) -> Iterator[Result]:
    ids = _ids(batch, length)
    works = {name: _step(model, ids) for name, model in {**models, **bare}.items()}
    base = works.pop("lora")
    found = paired(base, works, rounds=options.rounds_or(9, 3), label="training step")
    rows = [base_row("lora", found, f"{_trained(models['lora']):,} parameters")]
    for name in works:
        model = {**models, **bare}[name]
        target = STEP if name in models else None
        note = f"{_trained(model):,} parameters"
        rows.append(row_of(name, found[name], target=target, note=note))
    setting = f"{batch} x {length} tokens, rank {RANK}, {NODES} nodes, c_attn of 12 blocks"
    yield Result("adapter: training step", "time / lora", tuple(rows), setting)
    say("adapter: memory")
    saved = {name: _saved_bytes(model, ids) for name, model in models.items()}
    ratio = saved["bias injection"] / saved["lora"]
    note = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in saved.items())
    rows = [Row("saved for backward", (ratio,), target=MEMORY, note=note)]
    own = {name: _saved_bytes(model, ids, without_base=True) for name, model in models.items()}
    parts = ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in own.items())
    rows.append(Row("of which beyond the frozen model", (), note=parts))
    if torch.cuda.is_available():
        peaks = {name: _gpu_peak(model, ids) for name, model in models.items()}
        rows.append(
            Row("peak on the GPU", (peaks["bias injection"] / peaks["lora"],), None, None, MEMORY)
        )
    yield Result("adapter: memory of a training step", "memory / lora", tuple(rows), setting)


def _trained(model: Any) -> int:
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def _saved_bytes(model: Any, ids: Tensor, *, without_base: bool = False) -> int:
    """Bytes of all distinct storages that autograd keeps, weights of the model left out."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}

    def measure() -> int:
        kept: dict[int, int] = {}
        alive = []

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                kept[storage.data_ptr()] = storage.nbytes()
                # An address may be used again once its tensor is gone.
                alive.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        model.zero_grad()
        return sum(kept.values())

    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    if not without_base:
        return measure()
    whole = measure()
    inputs = model.get_input_embeddings()
    # The frozen model alone, with a gradient running through it as it does below an adapter.
    hook = inputs.register_forward_hook(lambda module, args, output: output.requires_grad_())
    try:
        with model.disable_adapter():
            alone = measure()
    finally:
        hook.remove()
    return whole - alone


def _gpu_peak(model: Any, ids: Tensor) -> int:
    model, ids = model.to("cuda"), ids.to("cuda")
    work = _step(model, ids)
    work()
    torch.cuda.reset_peak_memory_stats()
    work()
    peak = torch.cuda.max_memory_allocated()
    model.to("cpu")
    return int(peak)


def _decoding(
    models: dict[str, Any], batch: int, length: int, options: Options
) -> Iterator[Result]:
    tokens = 8 if options.quick else 32
    rows: list[Row] = []
    for size in (1, batch):
        ids = _ids(size, length + tokens)
        works = {}
        for name, model in models.items():
            _check_cache(model.eval(), ids[:, : length // 4])
            works[name] = _decode(model, ids, length)
        base = works.pop("lora")
        found = paired(base, works, rounds=options.rounds_or(9, 3), label=f"decoding {size}")
        rows.append(base_row(f"lora, {size} sequence(s)", found))
        for name in works:
            rows.append(row_of(f"{name}, {size} sequence(s)", found[name], target=DECODE))
    setting = f"{tokens} cached steps after {length} tokens; logits equal uncached ones"
    yield Result("adapter: cached decoding", "time / lora", tuple(rows), setting)


def _decode(model: Any, ids: Tensor, filled: int) -> Work:
    """Steps after the prompt, which is read once, outside the time that counts."""
    with torch.no_grad():
        start = model(input_ids=ids[:, :filled], use_cache=True).past_key_values

    def work() -> None:
        cache = copy.deepcopy(start)
        with torch.no_grad():
            for place in range(filled, ids.shape[1]):
                step = ids[:, place : place + 1]
                model(input_ids=step, past_key_values=cache, use_cache=True)

    return work


def _check_cache(model: Any, ids: Tensor) -> None:
    with torch.no_grad():
        whole = model(input_ids=ids, use_cache=False).logits
        half = ids.shape[1] // 2
        cache = model(input_ids=ids[:, :half], use_cache=True).past_key_values
        rest = model(input_ids=ids[:, half:], past_key_values=cache, use_cache=True).logits
    off = float((whole[:, half:] - rest).abs().max())
    if off > 1e-3:
        raise SystemExit(f"cached logits differ from uncached ones by {off:.2g}")


def _recurrence(options: Options) -> Result:
    rows = []
    for rows_, time, nodes in ((4, 512, 16), (4, 2048, 16), (1, 2048, 4)):
        torch.manual_seed(3)
        u = torch.randn(rows_, time, nodes, requires_grad=True)
        log_tau = torch.linspace(0.5, 6, nodes).requires_grad_()
        start = torch.randn(rows_, nodes)
        given = torch.randn(rows_, time + 1, nodes)
        works = {
            name: _both_ways(function, u, log_tau, start, given)
            for name, function in (("loop", _loop), ("scan", states))
        }
        _check_equal(works, u, log_tau)
        found = paired(
            works["scan"], {"loop": works["loop"]}, rounds=options.rounds_or(9, 3), label="scan"
        )
        target = LOOP if time == 2048 else None
        seconds = statistics.median(base.cpu for _, base in found["loop"])
        note = f"scan {1000 * seconds:.2f} ms; values and gradients equal"
        rows.append(
            row_of(f"{rows_} x {time}, {nodes} nodes", found["loop"], target=target, note=note)
        )
    return Result(
        "adapter: recurrence, forward and backward",
        "loop / scan",
        tuple(rows),
        "the seconds are the loop's",
    )


def _loop(u: Tensor, decay: Tensor, start: Tensor) -> Tensor:
    found = [start]
    for position in range(u.shape[1]):
        found.append(decay * found[-1] + u[:, position])
    return torch.stack(found, dim=1)


def _both_ways(function: Any, u: Tensor, log_tau: Tensor, start: Tensor, given: Tensor) -> Work:
    def work() -> tuple[Tensor, ...]:
        u.grad = log_tau.grad = None
        found = function(u, torch.exp(-torch.exp(-log_tau)), start)
        found.backward(given)
        assert u.grad is not None
        assert log_tau.grad is not None
        return found.detach(), u.grad, log_tau.grad

    return work


def _check_equal(works: dict[str, Work], u: Tensor, log_tau: Tensor) -> None:
    loop, scan = ([part.clone() for part in works[name]()] for name in ("loop", "scan"))
    for a, b in zip(loop, scan, strict=True):
        off = float((a - b).abs().max() / a.abs().max())
        if off > 1e-4:
            raise SystemExit(f"the scan differs from the loop by {off:.2g} of the greatest value")


def _growth(models: dict[str, Any], options: Options) -> Result:
    """What the adapter costs beyond the frozen model, by length: the adapter's layers alone."""
    from ed_interp.adapters.bias_injection.layer import Linear

    lengths = (256, 512, 1024) if options.quick else (512, 1024, 2048, 4096)
    layer = next(m for m in models["bias injection"].modules() if isinstance(m, Linear))
    seconds = []
    for length in lengths:
        say(f"adapter: growth {length}")
        torch.manual_seed(4)
        x = torch.randn(1, length, 768, requires_grad=True)

        def work(x: Tensor = x) -> None:
            layer(x).sum().backward()
            x.grad = None

        work()
        seconds.append(statistics.median(timed_once(work)[0].cpu for _ in range(9)))
    power = exponent(lengths, seconds)
    note = ", ".join(
        f"{length}: {1000 * second:.1f} ms" for length, second in zip(lengths, seconds, strict=True)
    )
    ratio = (power,)
    rows = (Row("one adapted layer", ratio, target=Target("at most", 1.1), note=note),)
    return Result(
        "adapter: growth with the length of the sequence", "power of length", rows, "1 x length"
    )
