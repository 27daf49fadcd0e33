"""Reading the residual stream against the plain forward pass of ``transformers``.

All 13 block boundaries of a GPT-2-small-sized model with random weights, 4 sequences of 256 tokens,
float32, scaled-dot-product attention in the plain pass. The plain pass computes the logits of all
positions; so does the row "with logits". The peers are asked for the residual stream and nothing
else, by their own means of asking. Before anything is timed, everybody's states are compared with
ours.
"""

from __future__ import annotations

import copy
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from harness import Options, Result, Row, Target, Work, base_row, missing, paired, row_of, say
from subjects import gpt2, hooked, tokenizer
from torch import Tensor

from ed_interp.models.runners import Inputs
from ed_interp.models.sites import stream_sites

BATCH, LENGTH = 4, 256
WITH_LOGITS, WITHOUT_LOGITS = Target("at most", 1.03), Target("at most", 0.80)
TOLERANCE = 1e-4


def run(options: Options) -> Iterator[Result]:
    """One table."""
    batch, length = (2, 128) if options.quick else (BATCH, LENGTH)
    model = gpt2()
    torch.manual_seed(1)
    ids = torch.randint(0, model.config.vocab_size, (batch, length))
    ours = hooked(model)
    sites = stream_sites(ours.n_layers)
    every = torch.arange(length).expand(batch, length)
    last = every[:, -1:]

    def plain() -> Any:
        with torch.no_grad():
            return model(input_ids=ids, use_cache=False).logits

    def reading(reads: Tensor, logits: Tensor | None) -> Work:
        return lambda: ours.runner.run(Inputs(ids), sites=sites, reads=reads, logit_reads=logits)

    own = {
        "ours, last position, all logits": (reading(last, every), WITH_LOGITS),
        "ours, every position, all logits": (reading(every, every), WITH_LOGITS),
        "ours, last position, logits of the last": (reading(last, last), None),
        "ours, last position, no logits": (reading(last, None), WITHOUT_LOGITS),
        "ours, every position, no logits": (reading(every, None), WITHOUT_LOGITS),
    }
    reference = ours.runner.run(Inputs(ids), sites=sites, reads=every).states.movedim(2, 0)
    peers, absent, notes = _peers(model, ids, reference)
    work = {name: work for name, (work, _) in own.items()} | peers
    taken = paired(plain, work, rounds=options.rounds_or(9, 3), label="capture")
    rows = [base_row("plain forward pass of transformers", taken)]
    rows += [row_of(name, taken[name], target=target) for name, (_, target) in own.items()]
    rows += [row_of(name, taken[name], note=notes[name]) for name in peers]
    yield Result(
        "capture: 13 residual sites of a GPT-2-small-sized model",
        "time / plain",
        (*rows, *absent),
        f"{batch} x {length} tokens, float32, {torch.get_num_threads()} thread(s), random "
        "weights; median of paired ratios of CPU time",
    )


def _peers(
    model: Any, ids: Tensor, reference: Tensor
) -> tuple[dict[str, Work], list[Row], dict[str, str]]:
    """Peers that are installed, lines for those that are not, and how far their states are off."""
    makers: dict[str, tuple[str, str, Callable[[Any, Tensor], Callable[[], list[Tensor]]]]] = {
        "TransformerBridge, run_with_cache": ("transformer_lens", "transformer-lens", _bridge),
        "HookedTransformer, run_with_cache": ("transformer_lens", "transformer-lens", _lens),
        "HookedTransformer, stop_at_layer": (
            "transformer_lens",
            "transformer-lens",
            lambda model, ids: _lens(model, ids, stop=True),
        ),
        "nnsight, trace": ("nnsight", "nnsight", _nnsight),
        "nnsight, trace with stop": (
            "nnsight",
            "nnsight",
            lambda model, ids: _nnsight(model, ids, stop=True),
        ),
    }
    peers: dict[str, Work] = {}
    absent, notes = [], {}
    for name, (module, package, make) in makers.items():
        say(f"capture: making {name}")
        if importlib.util.find_spec(module) is None:
            absent.append(missing(name, package))
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                work = make(model, ids)
                states = work()
        except ImportError as error:
            absent.append(Row(name, note=f"does not run here: {error}"))
            continue
        off = max(
            float((state - ours).abs().max()) for state, ours in zip(states, reference, strict=True)
        )
        peers[name] = work
        verdict = "states equal ours" if off < TOLERANCE else "STATES DIFFER from ours"
        notes[name] = f"{'no' if 'stop' in name else 'all'} logits; {verdict} (by {off:.1g})"
    return peers, absent, notes


def _bridge(model: Any, ids: Tensor) -> Callable[[], list[Tensor]]:
    from ed_interp.models.transformer_lens import to_transformer_lens

    # A bridge insists on a tokenizer; token ids are what it is given.
    return _cached(to_transformer_lens(model, tokenizer=tokenizer()), ids)


def _lens(model: Any, ids: Tensor, *, stop: bool = False) -> Callable[[], list[Tensor]]:
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    config = model.config
    settings = HookedTransformerConfig(
        n_layers=config.n_layer,
        d_model=config.n_embd,
        n_heads=config.n_head,
        d_head=config.n_embd // config.n_head,
        d_mlp=4 * config.n_embd,
        n_ctx=config.n_positions,
        d_vocab=config.vocab_size,
        act_fn="gelu_new",
        normalization_type="LN",
        eps=config.layer_norm_epsilon,
        device="cpu",
    )
    lens = HookedTransformer(settings)
    weights = convert_gpt2_weights(copy.deepcopy(model), settings)
    lens.load_state_dict(weights, strict=False)
    return _cached(lens, ids, **({"stop_at_layer": config.n_layer} if stop else {}))


def _cached(lens: Any, ids: Tensor, **options: Any) -> Callable[[], list[Tensor]]:
    blocks = lens.cfg.n_layers
    names = ["blocks.0.hook_resid_pre"]
    names += [f"blocks.{block}.hook_resid_post" for block in range(blocks)]
    wanted = set(names)

    def work() -> list[Tensor]:
        with torch.no_grad():
            _, cache = lens.run_with_cache(ids, names_filter=lambda name: name in wanted, **options)
        return [cache[name] for name in names]

    return work


def _nnsight(model: Any, ids: Tensor, *, stop: bool = False) -> Callable[[], list[Tensor]]:
    from nnsight import NNsight

    traced = NNsight(model)
    blocks = model.config.n_layer

    def work() -> list[Tensor]:
        states: list[Tensor] = []
        with torch.no_grad():  # noqa: SIM117  (nnsight reads the source of its own `with`)
            with traced.trace(input_ids=ids, use_cache=False) as tracer:
                states.append(traced.transformer.h[0].input.save())
                for block in range(blocks):
                    states.append(traced.transformer.h[block].output.save())
                if stop:
                    tracer.stop()
        return [state[0] if isinstance(state, tuple) else state for state in states]

    return work
