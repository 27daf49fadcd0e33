"""The normal of a logistic probe's boundary (scikit-learn's LogisticRegression).

States are centred and divided by one number per site, their root mean square, so that the penalty
``1/C`` means the same at every depth and the direction is not bent by per-channel scaling. The
vector is the weight vector at the length described in :mod:`ed_interp.probes.directions.scale`.
Cost: one L-BFGS fit per site.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.probes.directions.scale import along_gap
from ed_interp.probes.directions.states import ContrastStates
from ed_interp.probes.directions.tables import class_table


def logistic_probe(
    states: ContrastStates, *, penalty_c: float = 1.0, max_iter: int = 2000
) -> Float[Tensor, "site d_model"]:
    """Weights of a logistic regression of the class at every site.

    Args:
        states: Of both classes.
        penalty_c: Inverse strength of the L2 penalty, scikit-learn's ``C``.
        max_iter: Of L-BFGS.

    Raises:
        InvalidInputError: a penalty that is not above 0, or see
            :func:`~ed_interp.probes.directions.scale.along_gap`.
    """
    if not penalty_c > 0:
        raise InvalidInputError(f"penalty_c={penalty_c}: a number above 0 is expected")
    from sklearn.linear_model import LogisticRegression

    found = []
    for place in range(len(states.sites)):
        table, labels = class_table(states, place)
        table = table - table.mean(0)
        size = float(np.sqrt((table**2).mean())) or 1.0
        # Some BLAS raise the flag of an invalid operation on lanes they do not use.
        with np.errstate(invalid="ignore"):
            probe = LogisticRegression(C=penalty_c, max_iter=max_iter).fit(table / size, labels)
        found.append(torch.from_numpy(np.asarray(probe.coef_[0], dtype=np.float64)))
    return along_gap(torch.stack(found), states, "the logistic probe")
