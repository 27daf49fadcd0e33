"""Where a vector in the residual stream comes from: which model, which basis, which data.

A vector means something only in the basis it was found in. A :class:`Provenance` names that basis
closely enough to refuse the vector anywhere else with the reason. Cost: one look at up to 4,096
values of every weight for the fingerprint, and at 64 weights for the sample.
"""

from __future__ import annotations

import dataclasses
import math
import weakref
from typing import Any

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel

BEFORE_FINAL_NORM = "before the final norm"

_SAMPLED = 64
# Half the spacing of bfloat16, the coarsest format that weights are loaded in, with some room.
_ROUNDING = 2.0**-7


@dataclasses.dataclass(frozen=True)
class ModelStamp:
    """A model, as far as a vector in its residual stream depends on it."""

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
    """``layernorm`` (the stream's mean is invisible) or ``rms``."""
    tokenizer: str | None
    """Fingerprint of its vocabulary; None if there was no tokenizer."""
    sample: tuple[float, ...] = ()
    """Some weights, by which the same model is known again in another precision."""

    @classmethod
    def of(cls, hooked: HookedModel) -> ModelStamp:
        """The stamp of a loaded model, taken once: a large vocabulary takes a while to hash."""
        if hooked not in _STAMPS:
            _STAMPS[hooked] = cls._taken(hooked)
        return _STAMPS[hooked]

    @classmethod
    def _taken(cls, hooked: HookedModel) -> ModelStamp:
        described = hooked.describe()
        return cls(
            name=hooked.name,
            family=hooked.family,
            fingerprint=hooked.fingerprint,
            n_layers=hooked.n_layers,
            d_model=hooked.d_model,
            dtype=described["dtype"],
            basis=described["basis"],
            norm=hooked.norm,
            tokenizer=described["tokenizer"],
            sample=_sample(hooked),
        )

    def same_weights(self, other: ModelStamp) -> bool:
        """Whether both have the same weights, up to the precision they were loaded in."""
        if other.fingerprint == self.fingerprint:
            return True
        if other.dtype == self.dtype or not 0 < len(self.sample) == len(other.sample):
            return False
        return all(
            math.isclose(here, there, rel_tol=_ROUNDING, abs_tol=1e-7)
            for here, there in zip(self.sample, other.sample, strict=True)
        )

    def refusal(self, hooked: HookedModel) -> str | None:
        """Why something found in this model does not fit ``hooked``; None if it fits."""
        here = ModelStamp.of(hooked)
        for what, mine, its in (
            ("another architecture", self.family, here.family),
            ("another width (d_model)", self.d_model, here.d_model),
            ("another depth (blocks)", self.n_layers, here.n_layers),
            ("another basis", self.basis, here.basis),
        ):
            if mine != its:
                return f"{what}: {mine}, here {its}"
        if not self.same_weights(here):
            return f"other weights: fingerprint {self.fingerprint}, here {here.fingerprint}"
        if None not in (self.tokenizer, here.tokenizer) and self.tokenizer != here.tokenizer:
            return f"another tokenizer: fingerprint {self.tokenizer}, here {here.tokenizer}"
        return None


@dataclasses.dataclass(frozen=True)
class Provenance:
    """How a direction was found, and in what."""

    method: str
    """For instance ``mean difference``; for results of algebra, the expression."""
    model: ModelStamp
    data: str | None = None
    """Hash of the data it was found from."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Everything else that the method was told; plain data."""
    stream: str = BEFORE_FINAL_NORM
    """Where it was read. A vector read after the final norm fits no site."""
    of: tuple[Provenance, ...] = ()
    """What it was computed from, for results of algebra."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {**dataclasses.asdict(self), "of": [part.to_dict() for part in self.of]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Provenance:
        """The inverse of :meth:`to_dict`.

        Raises:
            InvalidInputError: ``data`` is something else.
        """
        try:
            model = dict(data["model"])
            return cls(
                method=data["method"],
                model=ModelStamp(**{**model, "sample": tuple(model.get("sample", ()))}),
                data=data.get("data"),
                settings=dict(data.get("settings", {})),
                stream=data["stream"],
                of=tuple(cls.from_dict(part) for part in data.get("of", ())),
            )
        except Exception as error:  # beartype's own errors under test are no TypeErrors
            raise InvalidInputError(f"no provenance of a direction ({error!r:.80})") from error


_STAMPS: weakref.WeakKeyDictionary[HookedModel, ModelStamp] = weakref.WeakKeyDictionary()


def _sample(hooked: HookedModel) -> tuple[float, ...]:
    """Evenly spaced values of the weight matrices, by name, not of quantised ones."""
    named = sorted(
        (
            (name, tensor)
            for name, tensor in hooked.model.named_parameters()
            if tensor.ndim > 1 and tensor.is_floating_point() and not tensor.is_meta
        ),
        key=lambda item: item[0],
    )
    values: list[float] = []
    for index in range(min(_SAMPLED, 8 * len(named))):
        tensor = named[index * len(named) // _SAMPLED if len(named) > 8 else index % len(named)][1]
        flat = tensor.detach().reshape(-1)
        values.append(float(flat[(index * 7919) % flat.numel()]))
    return tuple(values)
