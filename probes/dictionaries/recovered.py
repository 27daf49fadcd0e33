"""How much of the model's prediction survives the dictionary: cross-entropy recovered.

``recovered = (L_ablated - L_spliced) / (L_ablated - L_clean)``: 1 if replacing the stream by the
reconstruction costs nothing, 0 if it is as bad as replacing it by a constant. Both numbers are
reported: for zero (the usual constant, and the easier one, since zero is far from any state) and
for the mean state. Cost: four forward passes with all logits over the windows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ed_interp.models.runners import Inputs
from ed_interp.probes.dictionaries.reader import Reader
from ed_interp.probes.dictionaries.rows import Recovered
from ed_interp.probes.dictionaries.states import padded
from ed_interp.probes.dictionaries.text import Ids
from ed_interp.progress import Progress, track
from ed_interp.streams.injection import Replace, Selector, Where, inject

_BATCH_TOKENS = 4096
_RESAMPLES = 1000


def cross_entropy_recovered(
    reader: Reader,
    windows: Sequence[Ids],
    *,
    mean: Float[Tensor, "d_model"],
    seed: int = 0,
    progress: Progress = None,
) -> Recovered:
    """Cross-entropy of the next token over ``windows``, clean, spliced and ablated.

    Tokens that the reader skips are left unchanged; ``mean`` is the state for mean ablation.
    """
    hooked, site, skip = reader.hooked, reader.site, reader.skip
    where: Selector = Where() if skip == 0 else ~Where(positions=list(range(skip)))

    def changed(arm: str) -> contextlib.AbstractContextManager[object]:
        if arm == "clean":
            return contextlib.nullcontext()
        if arm == "spliced":
            return reader.dictionary.splice(hooked, where=where, at=site)
        vector = torch.zeros_like(mean) if arm == "zero" else mean
        return inject(hooked, Replace(vector, site, where=where))

    # A window with one token to read predicts nothing.
    usable = [ids for ids in windows if len(ids) > skip + 1]
    names = ("clean", "spliced", "zero", "mean")
    arms: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    with track(progress, "predicting with the dictionary", len(usable)) as advance:
        for group in _groups(usable):
            for name, losses in arms.items():
                with changed(name):
                    losses.append(_losses(reader, group))
            advance(len(group))
    counts = np.array([len(ids) - skip - 1 for ids in usable], dtype=np.float64)
    sums = {name: np.concatenate(parts) for name, parts in arms.items()}
    # Tokens of one window depend on each other, so windows are drawn, the same ones for all arms.
    n = len(usable)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
    once = np.ones((1, n))
    shares: dict[str, float] = {}
    for name in ("zero", "mean"):
        low, high = np.percentile(_share(drawn, sums, name), [2.5, 97.5])
        shares[f"against_{name}"] = float(_share(once, sums, name)[0])
        shares |= {f"against_{name}_low": float(low), f"against_{name}_high": float(high)}
    means = {name: float(values.sum() / counts.sum()) for name, values in sums.items()}
    return Recovered(**means, **shares, tokens=int(counts.sum()))


def _share(
    times: NDArray[Any], sums: dict[str, NDArray[np.float64]], ablated: str
) -> NDArray[np.float64]:
    """Share recovered for each row of counts of the windows; 0 if ablation costs nothing."""
    lost = times @ (sums[ablated] - sums["clean"])
    kept = times @ (sums[ablated] - sums["spliced"])
    return np.divide(kept, lost, out=np.zeros(len(times)), where=np.abs(lost) > 1e-12)


def _groups(windows: Sequence[Ids]) -> Iterator[list[Ids]]:
    group: list[Ids] = []
    for ids in windows:
        # What a group costs is its padded size.
        if group and (len(group) + 1) * max(len(ids), *map(len, group)) > _BATCH_TOKENS:
            yield group
            group = []
        group.append(ids)
    if group:
        yield group


@torch.no_grad()
def _losses(reader: Reader, windows: Sequence[Ids]) -> NDArray[np.float64]:
    """Summed cross-entropy of each window's tokens after the first ``skip + 1``, in nats."""
    ids, lengths = padded(windows)
    every = torch.arange(ids.shape[1]).expand(ids.shape)
    last = torch.zeros(len(windows), 1, dtype=torch.long)
    run = reader.hooked.runner.run
    logits = run(Inputs(ids), sites=[reader.site], reads=last, logit_reads=every).logits
    assert logits is not None
    targets = ids.to(logits.device)[:, 1:]
    predicted = logits[:, :-1].float().flatten(0, 1)
    cross_entropy = torch.nn.functional.cross_entropy
    losses = cross_entropy(predicted, targets.flatten(), reduction="none").view(targets.shape)
    # Target i is token i + 1. The first token after the special ones is predicted from them alone,
    # where nothing was replaced, and what follows a window's end is padding.
    place = torch.arange(targets.shape[1], device=losses.device)
    counted = (place >= reader.skip) & (place < (lengths - 1).to(losses.device)[:, None])
    return np.asarray((losses.double() * counted).sum(1).cpu())
