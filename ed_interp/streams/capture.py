"""`capture`: the states of a population at chosen sites and all shot counts.

Goes through batches of similar length. Time: one forward pass over the packed prompts (no
language-model head unless answers are scored, nothing after the last block needed). Memory: one
batch, plus in memory (or on disk, with ``folder``) 4 bytes per prompt, shot, site and channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import CaptureError, InvalidInputError, OptionError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load
from ed_interp.models.sites import Site, stream_sites
from ed_interp.processes import process
from ed_interp.progress import Progress, track
from ed_interp.prompts.population import Population
from ed_interp.prompts.tokens import ShotTokens, TokenPopulation, tokenize
from ed_interp.streams.activations import Activations, FolderStore, Store
from ed_interp.streams.paths import PATHS, packed_length

# Relative to the root mean square of the separate passes' states; far above the rounding of a
# correct path, far below the effect of one token that is visible by mistake.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}
# What architectures raise that take no such mask, position ids or cache.
_REFUSALS = (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError, IndexError)
# A batch by default: so many tokens, or cells of the packed mask (64 MB in float32).
_BATCH_TOKENS = 4096
_BATCH_MASK = 2**24


def capture(
    model: Any,
    population: Population | TokenPopulation,
    *,
    sites: Sequence[str | Site] | None = None,
    answers: bool = True,
    path: str = "auto",
    batch_size: int | None = None,
    folder: str | Path | None = None,
    progress: Progress = None,
) -> Activations:
    """Read the residual stream at the last token of every prompt and shot count.

    Args:
        model: Anything :func:`ed_interp.load` takes.
        population: From :func:`~ed_interp.prompts.population.draw`, which is tokenized with the
            model's tokenizer, or of tokens, from ``tokenize`` or ``draw_windows``.
        sites: Hook points; default the ``n_layers + 1`` places between the blocks.
        answers: Also score the right answers, if the prompts have any.
        path: ``packed``, ``prefix``, ``separate``, or ``auto``: the first of them that reproduces
            the states of separate passes on the longest prompt. A path given by name must pass
            the same test.
        batch_size: Prompts per batch; default by number of tokens.
        folder: Keep shards in this folder and resume from them, instead of in memory.
        progress: True for a bar on stderr, or a callable ``(done, total, what)``.

    Raises:
        UnknownNameError: a site that does not exist; the nearest names are listed.
        InvalidInputError: prompts longer than the context window, or an unknown path.
        CaptureError: hooks that did not fire, a path that does not fit this architecture, or NaN
            or infinite states, with the weight that causes them.
        RunFolderError: the folder holds another request or cannot be written.
    """
    hooked = load(model)
    if isinstance(population, Population):
        population = tokenize(population, hooked.tokenizer)
    sites = stream_sites(hooked.n_layers) if sites is None else sites
    chosen = tuple(hooked.site(site) for site in sites)
    if not chosen:
        raise InvalidInputError("sites must hold one or more, got none; omit it for all boundaries")
    window = hooked.context_window
    if window is not None and population.longest > window:
        raise InvalidInputError(
            f"prompts must fit the context window of {hooked.name}, {window} tokens, got "
            f"{population.longest} tokens for {population.shots[-1]} shots of task "
            f"{population.population.task!r}; use fewer shots or a shorter template"
        )
    shots = population.shots
    answers = answers and any(prompt.answer for prompt in population.prompts)
    taken, discrepancy = _choose(hooked, population, chosen, path)
    batches = _batches(population.prompts, shots, batch_size)
    store = Store()
    if folder is not None:
        request = {
            "model": hooked.fingerprint,
            "dtype": str(hooked.dtype),
            "prompts": population.fingerprint,
            "sites": [site.name for site in chosen],
            "answers": answers,
            "batches": len(batches),
            "path": taken,
        }
        store = FolderStore(Path(folder), request)
    # Nested prompts need no mask: the packed reader then makes one plain causal pass.
    read = PATHS["packed" if taken == "nested" else taken]
    rank, processes = process()
    mine = [number for number in range(len(batches)) if number % processes == rank]
    with track(progress if rank == 0 else None, "reading activations", len(mine)) as advance:
        for number in mine:
            if not store.has(number):
                rows = batches[number]
                prompts = [population.prompts[row] for row in rows]
                reading = read(hooked.runner, prompts, shots, chosen, answers)
                check_finite(hooked, reading.states, chosen, reading.logprob)
                store.put(number, rows, reading)
            advance(1)
    store.exchange()
    return Activations(chosen, shots, len(population.prompts), store, taken, discrepancy)


def _choose(
    hooked: HookedModel, population: TokenPopulation, sites: Sequence[Site], path: str
) -> tuple[str, float | None]:
    """The path to take, and its largest difference from separate passes on the longest prompt."""
    if path not in ("auto", *PATHS):
        raise InvalidInputError(f"path must be one of auto, {', '.join(PATHS)}, got {path!r}")
    if path == "separate":
        return "separate", None
    if not population.prompts[0].queries:
        return "nested", None
    if not hooked.runner.takes_masks:
        if path != "auto":
            limit = f"'separate' or 'auto' for {type(hooked.model).__name__}"
            raise OptionError("path", f"must be {limit}, which takes no custom mask, got {path!r}")
        return "separate", None
    shots = population.shots
    # Packed must equal separate on the longest prompt, where the window and the masks bite most.
    longest = max(population.prompts, key=lambda prompt: packed_length(prompt, shots))
    reference = PATHS["separate"](hooked.runner, [longest], shots, sites, False).states
    check_finite(hooked, reference, sites)
    scale = reference.pow(2).mean(-1, keepdim=True).sqrt().clamp(min=1e-12)
    tolerance = _TOLERANCE.get(hooked.dtype, 1e-3)
    reason = ""
    for name in ("packed", "prefix") if path == "auto" else (path,):
        try:
            states = PATHS[name](hooked.runner, [longest], shots, sites, False).states
        except _REFUSALS as error:
            reason = f"{hooked.family} does not support it ({type(error).__name__}: {error})"
            continue
        difference = float(((states - reference) / scale).abs().max())
        if difference <= tolerance:
            return name, difference
        reason = f"its states differ from separate passes by {difference:.2g} (relative)"
    if path == "auto":
        return "separate", None
    raise CaptureError(f"path={path!r} does not work on this model: {reason}; use path='auto'")


def _batches(
    prompts: Sequence[ShotTokens], shots: Sequence[int], batch_size: int | None
) -> list[list[int]]:
    """Prompt indices by batch, longest first: if memory runs out, it does so at once."""
    if batch_size is not None and batch_size < 1:
        raise InvalidInputError(f"batch_size must be 1 or greater, got {batch_size}")
    lengths = [packed_length(prompt, shots) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda row: -lengths[row])
    batches: list[list[int]] = []
    while order:
        longest = lengths[order[0]]
        size = batch_size or max(1, min(_BATCH_TOKENS // longest, _BATCH_MASK // longest**2))
        batches.append(order[:size])
        order = order[size:]
    return batches


def check_finite(
    hooked: HookedModel,
    states: Float[Tensor, "*batch site d_model"],
    sites: Sequence[Site],
    logprob: Float[Tensor, "*batch"] | None = None,
) -> None:
    """Raise CaptureError unless all states are finite and the scores of answers are not NaN.

    It names the model, the first site, and the weight or the precision that is the cause.
    """
    # Unreported, they would show up as a damaged shard, a NaN curve, or an error about table rows.
    finite = torch.isfinite(states).all(-1).reshape(-1, len(sites)).all(0)
    if not bool(finite.all()):
        where = f"at {sites[int((~finite).nonzero()[0])].name}"
    elif logprob is not None and bool(logprob.isnan().any()):
        where = "in the logits"
    else:
        return
    weights = hooked.model.named_parameters()
    bad = next((name for name, tensor in weights if not bool(torch.isfinite(tensor).all())), None)
    start = f"the states of {hooked.name} must be finite, got NaN or infinity {where}"
    if bad is not None:
        raise CaptureError(f"{start}, as in its weight {bad}; load undamaged weights")
    dtype = str(hooked.dtype).removeprefix("torch.")
    advice = "use another model" if dtype == "float32" else "use dtype='float32' (--dtype float32)"
    raise CaptureError(f"{start}: its weights are finite, but overflow in {dtype}; {advice}")
