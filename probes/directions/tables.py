"""States of both classes as one table for scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ed_interp.probes.directions.states import ContrastStates


def class_table(
    states: ContrastStates, place: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(``text d_model`` in float64, 1 for positive and 0 for negative) at one site."""
    both = torch.cat([states.positive[:, place], states.negative[:, place]])
    labels = np.repeat([1, 0], [len(states.positive), len(states.negative)])
    table: Any = both.double().numpy()
    return table, labels.astype(np.int64)
