"""Behaviour beside emergence: how well the model answers, per shot count.

Both a discontinuous metric (accuracy) and a continuous one (log-probability), since a jump in the
first alone may be an artefact of its threshold (Schaeffer et al., arXiv 2304.15004).
"""

from __future__ import annotations

import numpy as np

from ed_interp.probes.emergence.curve import BehaviourRow
from ed_interp.statistics import bootstrap_interval
from ed_interp.streams.activations import Activations


def behaviour_rows(
    activations: Activations, *, chance: float, level: float, resamples: int, seed: int
) -> tuple[BehaviourRow, ...]:
    """One row per shot count; empty if no answers were scored.

    Intervals are bootstrapped over prompts. ``gain`` compares each shot count with the fewest
    on the same prompts.
    """
    scores = activations.scores()
    if scores is None:
        return ()
    tables = {name: table.double().numpy() for name, table in scores.items()}
    correct, logprob = tables["correct"], tables["logprob"]

    def interval(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[float, float]:
        found = bootstrap_interval(values, level=level, resamples=resamples, seed=seed)
        return float(found.low), float(found.high)

    rows = []
    for column, shots in enumerate(activations.shots):
        accuracy = interval(correct[:, column])
        likelihood = interval(logprob[:, column])
        difference = correct[:, column] - correct[:, 0]
        gain = interval(difference)
        rows.append(
            BehaviourRow(
                shots=shots,
                accuracy=float(correct[:, column].mean()),
                ci_low=accuracy[0],
                ci_high=accuracy[1],
                logprob=float(logprob[:, column].mean()),
                logprob_ci_low=likelihood[0],
                logprob_ci_high=likelihood[1],
                rank=float(np.median(tables["rank"][:, column])),
                chance=chance,
                gain=float(difference.mean()),
                gain_ci_low=gain[0],
                gain_ci_high=gain[1],
                n=len(correct),
            )
        )
    return tuple(rows)
