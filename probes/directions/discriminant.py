"""Fisher's linear discriminant (scikit-learn's LinearDiscriminantAnalysis, no shrinkage).

For many more texts than channels. With fewer, the classes can be told apart perfectly along
directions in which nothing varies within a class, and the vector found is short and of little use;
the Ledoit-Wolf direction (:mod:`ed_interp.probes.directions.whitened`) is the regularised form.
Cost: a singular value decomposition of ``text x d_model`` per site.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.probes.directions.scale import along_gap
from ed_interp.probes.directions.states import ContrastStates
from ed_interp.probes.directions.tables import class_table


def linear_discriminant(states: ContrastStates) -> Float[Tensor, "site d_model"]:
    """Weights of a linear discriminant analysis at every site.

    Raises:
        InvalidInputError: fewer than two texts a class, or see
            :func:`~ed_interp.probes.directions.scale.along_gap`.
    """
    if min(len(states.positive), len(states.negative)) < 2:
        raise InvalidInputError(
            f"a linear discriminant needs 2 texts a class, {states.name!r} has "
            f"{len(states.positive)} and {len(states.negative)}; use method='mean_difference'"
        )
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    found = []
    for place in range(len(states.sites)):
        table, labels = class_table(states, place)
        with warnings.catch_warnings():
            # Fewer texts than channels is usual here and documented above.
            warnings.filterwarnings("ignore", message="Variables are collinear")
            probe = LinearDiscriminantAnalysis(solver="svd").fit(table, labels)
        found.append(torch.from_numpy(np.asarray(probe.coef_[0], dtype=np.float64)))
    return along_gap(torch.stack(found), states, "the linear discriminant")
