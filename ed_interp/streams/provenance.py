"""Where a vector in the residual stream comes from: which model, which basis, which data.

A vector has a meaning only in the basis it was computed in. A :class:`Provenance` records that
basis closely enough to refuse the vector anywhere else, with the reason. Cost: reading up to 4,096
values of every weight for the fingerprint, and 64 weights for the sample.
"""

from __future__ import annotations

import dataclasses
import math
import weakref
from typing import Any, ClassVar

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.records.files import strict_json

BEFORE_FINAL_NORM = "before the final norm"

_SAMPLED = 64
# Twice the largest rounding error of bfloat16 (2**-8), the coarsest format of loaded weights.
_ROUNDING = 2.0**-7
# As plain data: importing pydantic for its type would slow every import.
_STRICT = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


@dataclasses.dataclass(frozen=True)
class ModelStamp:
    """A model, as far as a vector in its residual stream depends on it."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    name: str
    family: str
    fingerprint: str
    """See :attr:`ed_interp.models.hooked.HookedModel.fingerprint`."""
    n_layers: int
    d_model: int
    dtype: str
    basis: str
    """``raw weights``, or ``processed weights`` where norms were folded into them."""
    norm: str
    """``layernorm`` (which removes the stream's mean) or ``rms``."""
    tokenizer: str | None
    """Fingerprint of its vocabulary; None if there was no tokenizer."""
    sample: tuple[float, ...] = ()
    """Some weights, which identify the same model in another precision."""

    @classmethod
    def of(cls, hooked: HookedModel) -> ModelStamp:
        """The stamp of a loaded model, made once: hashing a large vocabulary takes a while."""
        if hooked not in _STAMPS:
            described = hooked.describe()
            del described["device"]
            _STAMPS[hooked] = cls(**described, norm=hooked.norm, sample=_sample(hooked))
        return _STAMPS[hooked]

    def same_weights(self, other: ModelStamp) -> bool:
        """Whether both have the same weights, up to the precision they were loaded in."""
        if other.fingerprint == self.fingerprint:
            return True
        if other.dtype == self.dtype or not 0 < len(self.sample) == len(other.sample):
            return False
        both = zip(self.sample, other.sample, strict=True)
        return all(math.isclose(*pair, rel_tol=_ROUNDING, abs_tol=1e-7) for pair in both)

    def refusal(self, hooked: HookedModel) -> str | None:
        """Why a vector of this model does not fit ``hooked``; None if it fits."""
        here = ModelStamp.of(hooked)
        for what, mine, its in (
            ("architecture", self.family, here.family),
            ("width (d_model)", self.d_model, here.d_model),
            ("depth (blocks)", self.n_layers, here.n_layers),
            ("basis", self.basis, here.basis),
        ):
            if mine != its:
                return f"another {what}: {mine}, here {its}"
        if not self.same_weights(here):
            return f"other weights: fingerprint {self.fingerprint}, here {here.fingerprint}"
        if None not in (self.tokenizer, here.tokenizer) and self.tokenizer != here.tokenizer:
            return f"another tokenizer: fingerprint {self.tokenizer}, here {here.tokenizer}"
        return None


@dataclasses.dataclass(frozen=True)
class Provenance:
    """How a direction was computed, and from what."""

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT

    method: str
    """For instance ``mean difference``; for results of algebra, the expression."""
    model: ModelStamp
    data: str | None = None
    """Hash of the data it was computed from."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    """All other settings of the method; plain data."""
    stream: str = BEFORE_FINAL_NORM
    """Where it was read. A vector read after the final norm fits no site."""
    of: tuple[Provenance, ...] = ()
    """What it was computed from, for results of algebra."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Provenance:
        """The inverse of :meth:`to_dict`; InvalidInputError for anything else."""
        import pydantic

        try:
            # As JSON: strict in Python would refuse the lists that JSON makes of tuples.
            text = strict_json(data, "the provenance")
            return pydantic.TypeAdapter(cls).validate_json(text)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise InvalidInputError(f"the provenance is damaged ({where})") from error


_STAMPS: weakref.WeakKeyDictionary[HookedModel, ModelStamp] = weakref.WeakKeyDictionary()


def _sample(hooked: HookedModel) -> tuple[float, ...]:
    """Single values of the weight matrices that are not quantised."""
    matrices = [
        tensor.detach().reshape(-1)
        for _, tensor in sorted(hooked.model.named_parameters(), key=lambda item: item[0])
        if tensor.ndim > 1 and tensor.is_floating_point() and not tensor.is_meta
    ]
    values: list[float] = []
    for index in range(min(_SAMPLED, 8 * len(matrices))):
        # Matrices evenly spaced by name; up to 8 matrices take turns. Steps of a prime number
        # spread the values over a matrix.
        few = len(matrices) <= 8
        flat = matrices[index % len(matrices) if few else index * len(matrices) // _SAMPLED]
        values.append(float(flat[(index * 7919) % flat.numel()]))
    return tuple(values)
