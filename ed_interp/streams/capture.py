"""`capture`: the states of a population at chosen sites and all shot counts.

Streams over batches of similar length. Time: one forward pass over the packed prompts (no
language-model head unless answers are scored, nothing after the last block asked for). Memory: one
batch, plus in memory (or on disk, with ``folder``) 4 bytes per prompt, shot, site and channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ed_interp.errors import CaptureError, InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load
from ed_interp.processes import process
from ed_interp.progress import Progress, track
from ed_interp.prompts.population import Population
from ed_interp.prompts.tokens import ShotTokens, TokenPopulation, tokenize
from ed_interp.streams.activations import Activations, FolderStore, Store
from ed_interp.streams.finite import check_finite
from ed_interp.streams.packing import packed_length
from ed_interp.streams.paths import PATHS
from ed_interp.models.sites import Site, stream_sites

# Relative to the root mean square of the separate passes' states; far above rounding in a correct
# path, far below what one wrongly visible token does.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}
_REFUSALS = (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError, IndexError)
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
        answers: Also score the right answers, where there are any.
        path: ``packed``, ``prefix``, ``separate``, or ``auto``: the first of them that gives the
            separate passes' states on the longest prompt. A path asked for by name is held to
            the same standard.
        batch_size: Prompts a batch; default by number of tokens.
        folder: Keep shards there and resume from them, instead of in memory.
        progress: True for a bar on stderr, or a callable ``(done, total, what)``.

    Raises:
        UnknownNameError: a site that does not exist; the nearest names are listed.
        InvalidInputError: prompts longer than the context window, or an unknown path.
        CaptureError: hooks that did not fire, a path that is wrong for this architecture, or NaN
            or infinite states, with the weight that causes them.
        RunFolderError: the folder holds another request or cannot be written.
    """
    hooked = load(model)
    if isinstance(population, Population):
        population = tokenize(population, hooked.tokenizer)
    chosen = tuple(
        hooked.site(site)
        for site in (sites if sites is not None else stream_sites(hooked.n_layers))
    )
    if not chosen:
        raise InvalidInputError("no sites asked for; leave sites out for all block boundaries")
    window = hooked.context_window
    if window is not None and population.longest > window:
        raise InvalidInputError(
            f"{population.shots[-1]} shots of task {population.population.task!r} take "
            f"{population.longest} tokens, but {hooked.name} has a context window of {window}; "
            "ask for fewer shots or use a shorter template"
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
    """The path to take, and how far it is from separate passes on the longest prompt."""
    if path not in ("auto", *PATHS):
        raise InvalidInputError(f"unknown path {path!r}; there are: auto, {', '.join(PATHS)}")
    nested = not population.prompts[0].queries
    if path == "separate":
        return "separate", None
    if nested:
        return "nested", None
    if not hooked.runner.takes_masks:
        if path != "auto":
            raise InvalidInputError(
                f"path={path!r}: {type(hooked.model).__name__} takes no mask of one's own here; "
                "use path='separate' or 'auto'"
            )
        return "separate", None
    shots = population.shots
    longest = max(population.prompts, key=lambda prompt: packed_length(prompt, shots))
    reference = PATHS["separate"](hooked.runner, [longest], shots, sites, False).states
    check_finite(hooked, reference, sites)
    scale = reference.pow(2).mean(-1, keepdim=True).sqrt().clamp(min=1e-12)
    tolerance = _TOLERANCE.get(hooked.dtype, 1e-3)
    reason = ""
    for name in ("packed", "prefix") if path == "auto" else (path,):
        try:
            found = PATHS[name](hooked.runner, [longest], shots, sites, False).states
        except _REFUSALS as error:
            # An architecture that takes no such mask, position ids or cache.
            reason = f"{hooked.family} does not take it ({type(error).__name__}: {error})"
            continue
        difference = float(((found - reference) / scale).abs().max())
        if difference <= tolerance:
            return name, difference
        reason = f"its states differ from separate passes by {difference:.2g} (relative)"
    if path == "auto":
        return "separate", None
    raise CaptureError(f"path={path!r} does not work here: {reason}; use path='auto'")


def _batches(
    prompts: Sequence[ShotTokens], shots: Sequence[int], batch_size: int | None
) -> list[list[int]]:
    """Prompt indices by batch, longest first: if memory runs out, it does so at once."""
    if batch_size is not None and batch_size < 1:
        raise InvalidInputError(f"batch_size={batch_size}: at least 1 prompt a batch")
    lengths = [packed_length(prompt, shots) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda row: -lengths[row])
    batches: list[list[int]] = []
    while order:
        longest = lengths[order[0]]
        fit = min(_BATCH_TOKENS // longest, _BATCH_MASK // longest**2)
        size = batch_size or max(1, fit)
        batches.append(order[:size])
        order = order[size:]
    return batches
