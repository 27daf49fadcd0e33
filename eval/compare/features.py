"""Which features of a dictionary changed most on neutral text.

The states at the dictionary's site are read in the same passes that score the text, encoded under
both models, and summed per text, so that a feature's change is paired by text. Cost: encoding, and
two numbers per text and feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.eval.compare.options import Inference
from ed_interp.eval.compare.rows import FeatureChange
from ed_interp.models.sites import Site
from ed_interp.statistics import bootstrap_interval

Array = NDArray[np.float64]


@runtime_checkable
class Encoder(Protocol):
    """What a dictionary must have: its site, and features of states."""

    @property
    def site(self) -> Any: ...

    def encode(self, states: Any) -> Any: ...


class FeatureSums:
    """Sums of activations per text and feature, filled batch by batch."""

    def __init__(self, dictionary: Encoder, texts: int) -> None:
        """Empty sums; a dictionary without a site, or no text to read, is refused."""
        if dictionary.site is None:
            raise InvalidInputError(
                "the dictionary must say at which site it reads, got none; load it with site="
            )
        if not texts:
            raise InvalidInputError("texts must not be empty with a dictionary, got none")
        self.dictionary, self.site = dictionary, Site.parse(dictionary.site)
        self._texts = texts
        # Sums per text, since states of every token would not fit into memory.
        self._sums: list[Tensor] = []
        self._active: list[Tensor] = []
        self._tokens = torch.zeros(texts, dtype=torch.float64)

    def add(
        self,
        control: Float[Tensor, "token d_model"],
        treated: Float[Tensor, "token d_model"],
        owners: Sequence[int],
    ) -> None:
        """Encode the states of both models; ``owners`` is the text of each token."""
        rows = torch.tensor(owners)
        self._tokens.index_add_(0, rows, torch.ones(len(rows), dtype=torch.float64))
        for side, states in enumerate((control, treated)):
            with torch.no_grad():
                features = self.dictionary.encode(states).detach().cpu().float()
            # The number of features is known once the first states are encoded.
            if len(self._sums) <= side:
                self._sums.append(torch.zeros(self._texts, features.shape[1]))
                self._active.append(torch.zeros(features.shape[1], dtype=torch.float64))
            self._sums[side].index_add_(0, rows, features)
            self._active[side] += (features > 0).sum(0)

    def changes(self, rules: Inference, *, top: int = 20) -> tuple[FeatureChange, ...]:
        """The features whose mean activation changed most, relative to its standard error."""
        tokens = self._tokens.numpy()
        control, treated = (side.double().numpy() / tokens[:, None] for side in self._sums)
        change = treated - control
        weights = tokens / tokens.sum()
        mean = weights @ change
        error = np.sqrt(weights @ (change - mean) ** 2 / max(1, self._texts - 1))
        # A feature that is active in neither model has no spread, and score 0.
        score = np.divide(mean, error, out=np.zeros_like(mean), where=error > 0)
        order = np.argsort(-np.abs(score), kind="stable")[:top]
        # Activity may change without its mean, which is not what the list is about.
        chosen = [int(index) for index in order if mean[index] != 0]
        if not chosen:
            return ()
        ends = bootstrap_interval(change[:, chosen], weights=tokens, **rules.resampling)
        means = [[weights @ side[:, index] for index in chosen] for side in (control, treated)]
        # Of all tokens, while the means above are of texts weighted by their tokens.
        density = [side.numpy()[chosen] / tokens.sum() for side in self._active]
        # One line per feature, in the order of the fields of a row.
        rows = np.stack([*means, mean[chosen], *ends, *density, score[chosen]], axis=1).tolist()
        return tuple(FeatureChange(index, *row) for index, row in zip(chosen, rows, strict=True))
