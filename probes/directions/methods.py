"""Methods that find a direction from the states of two classes: one class each, by name.

All return vectors on one scale: added with coefficient 1 to the negative class, a vector moves the
mean along itself to where the positive class is. So coefficients compare between methods (libraries
that return unit vectors differ by this factor). A method is a class with its settings as fields::

    @register("mine")
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Mine(Method):
        label, citation = "my direction", "Author 2026"
        shrinkage: float = option(0.1, help="Share of the identity.", min=0, max=1)

        def at_site(self, states, place):
            return ...                      # d_model numbers; sign and length are set afterwards

Cost per site: a singular value decomposition of ``text x d_model`` (``pca``, ``lda``), an L-BFGS
fit (``logistic``), or a covariance and a solve of ``d_model x d_model`` (``whitened``: seconds at
width 4,096). ``mean_difference`` costs nothing.
"""

from __future__ import annotations

import abc
import dataclasses
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, Final, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ed_interp.errors import InvalidInputError, unknown
from ed_interp.options import Options, option
from ed_interp.probes.directions.pairs import ContrastStates

Kind = TypeVar("Kind", bound="type[Method]")

_ORTHOGONAL = 1e-9
"""Cosine with the mean difference below which a direction has no sign."""

METHODS: Final[dict[str, type[Method]]] = {}
"""Methods by name; :func:`register` adds one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method(Options, abc.ABC):
    """A way from two classes of states to one vector per site; its fields are its settings."""

    name: ClassVar[str]
    """What ``--method`` calls it."""
    label: ClassVar[str]
    """What messages call its direction."""
    citation: ClassVar[str]

    def vectors(self, states: ContrastStates) -> Float[Tensor, "site d_model"]:
        """The direction at every site, in float64: the mean difference projected on it.

        Raises:
            InvalidInputError: states that the method cannot use, or a direction without a sign.
        """
        rows = torch.stack([self.at_site(states, place) for place in range(len(states.sites))])
        # A zero direction must reach the check below as zero, not as NaN from a division by 0.
        unit = rows / rows.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
        # The projection fixes both the sign and the length.
        length = (states.gap * unit).sum(-1, keepdim=True)
        flat = length.abs().flatten() <= _ORTHOGONAL * states.gap.norm(dim=-1)
        if bool(flat.any()):
            site = states.sites[int(flat.nonzero()[0])].name
            raise InvalidInputError(
                f"{self.label} at {site} does not separate the classes of {states.name!r} (it is "
                "zero or orthogonal to the difference of their means); try "
                "method='mean_difference' or look at preflight(...)"
            )
        scaled: Tensor = unit * length
        return scaled

    @abc.abstractmethod
    def at_site(self, states: ContrastStates, place: int) -> Float[Tensor, " d_model"]:
        """The direction at site number ``place``, of any length and sign."""


def register(name: str) -> Callable[[Kind], Kind]:
    """Make a method known as ``name``."""

    def add(kind: Kind) -> Kind:
        kind.name = name
        METHODS[name] = kind
        return kind

    return add


def get_method(name: str, **settings: Any) -> Method:
    """The method of that name with these settings."""
    if name not in METHODS:
        raise unknown("method", name, list(METHODS))
    return METHODS[name].from_dict(settings)


@register("mean_difference")
class MeanDifference(Method):
    """The mean of one class minus the mean of the other: the plainest, and the one to beat.

    With pairs it equals the mean of the differences.
    """

    label = "the mean difference"
    citation = "Rimsky et al. 2024, arXiv 2312.06681; Marks and Tegmark 2023, arXiv 2310.06824"

    def vectors(self, states: ContrastStates) -> Float[Tensor, "site d_model"]:
        # It is the scale itself; projecting it on itself would only add rounding.
        return states.gap

    def at_site(self, states: ContrastStates, place: int) -> Float[Tensor, " d_model"]:
        return states.gap[place]


@register("pca")
class PrincipalDirection(Method):
    """The first principal direction of the pair differences; needs pairs."""

    label = "the first principal direction"
    citation = "Zou et al. 2023, arXiv 2310.01405"

    def at_site(self, states: ContrastStates, place: int) -> Float[Tensor, " d_model"]:
        # Uncentred: the differences and their negatives together have mean zero, so this is the
        # line through the origin nearest to all of them, whichever way round each pair is taken.
        differences = states.differences[:, place]
        direction: Tensor = torch.linalg.svd(differences, full_matrices=False).Vh[0]
        return direction


@register("logistic")
@dataclasses.dataclass(frozen=True, kw_only=True)
class LogisticProbe(Method):
    """The normal of a logistic probe's boundary (scikit-learn's LogisticRegression)."""

    label = "the logistic probe"
    citation = "Alain and Bengio 2016, arXiv 1610.01644"
    penalty_c: float = option(1.0, "Inverse strength of the L2 penalty, scikit-learn's C.", above=0)
    max_iter: int = option(2000, "Most iterations of L-BFGS.", min=1)

    def at_site(self, states: ContrastStates, place: int) -> Float[Tensor, " d_model"]:
        from sklearn.linear_model import LogisticRegression

        table, labels = class_table(states, place)
        table = table - table.mean(0)
        # One number per site, so that the penalty means the same at every depth. A scale for each
        # channel would bend the direction towards channels that hardly vary.
        size = float(np.sqrt((table**2).mean())) or 1.0
        # Some BLAS raise the flag of an invalid operation on lanes they do not use.
        with np.errstate(invalid="ignore"):
            probe = LogisticRegression(C=self.penalty_c, max_iter=self.max_iter)
            probe.fit(table / size, labels)
        return torch.from_numpy(np.asarray(probe.coef_[0], dtype=np.float64))


@register("lda")
class LinearDiscriminant(Method):
    """Fisher's linear discriminant (scikit-learn's, no shrinkage), for more texts than channels.

    With fewer, the classes can be separated perfectly along directions in which nothing varies
    within a class, and the vector is short and of little use; ``whitened`` is the regularised form.
    """

    label = "the linear discriminant"
    citation = "Fisher 1936"

    def at_site(self, states: ContrastStates, place: int) -> Float[Tensor, " d_model"]:
        if min(len(states.positive), len(states.negative)) < 2:
            raise InvalidInputError(
                f"a linear discriminant needs 2 texts per class, {states.name!r} has "
                f"{len(states.positive)} and {len(states.negative)}; use method='mean_difference'"
            )
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        with warnings.catch_warnings():
            # Fewer texts than channels is usual here and documented above.
            warnings.filterwarnings("ignore", message="Variables are collinear")
            probe = LinearDiscriminantAnalysis(solver="svd").fit(*class_table(states, place))
        return torch.from_numpy(np.asarray(probe.coef_[0], dtype=np.float64))


@register("whitened")
class WhitenedDifference(Method):
    """``inverse(S) (mean difference)``: channels that vary for other reasons count less.

    S is the covariance within the classes, shrunk by scikit-learn's ``LedoitWolf``.
    """

    label = "the whitened difference"
    citation = "Ledoit and Wolf 2004; Marks and Tegmark 2023, arXiv 2310.06824, section 5"

    def at_site(self, states: ContrastStates, place: int) -> Float[Tensor, " d_model"]:
        from sklearn.covariance import LedoitWolf

        table, labels = class_table(states, place)
        for label in (0, 1):
            table[labels == label] -= table[labels == label].mean(0)
        if not np.abs(table).max() > 0:
            raise InvalidInputError(
                f"no variation within the classes of {states.name!r} at "
                f"{states.sites[place].name}: there is nothing to whiten with; give more texts or "
                "use method='mean_difference'"
            )
        # Centred by class above; the mean over both is 0 already.
        covariance = LedoitWolf(assume_centered=True).fit(table).covariance_
        return torch.from_numpy(np.linalg.solve(covariance, states.gap[place].numpy()))


def class_table(
    states: ContrastStates, place: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(``text d_model`` in float64, 1 for positive and 0 for negative) at one site."""
    both = torch.cat([states.positive[:, place], states.negative[:, place]])
    labels = np.repeat([1, 0], [len(states.positive), len(states.negative)])
    table: Any = both.double().numpy()
    return table, labels.astype(np.int64)
