"""`Direction`: one vector per site of the residual stream, with a record of its model.

Computed by :mod:`ed_interp.probes.directions` (or made from any vectors by :meth:`Direction.of`),
applied by :func:`ed_interp.streams.injection.inject`, saved as one safetensors file::

    direction = Direction.of(model, {"blocks.2.hook_resid_post": vector}, method="by hand")
    direction.save("mood.safetensors")
    Direction.load("mood.safetensors").check(model)   # refuses another model, with the reason

Directions of one model at the same sites can be added, subtracted, scaled, projected and compared;
the provenance of the result records the operands. Cost: ``d_model`` numbers per site;
:meth:`Direction.of` and :meth:`Direction.check` sample the model's weights once (see
:mod:`ed_interp.streams.provenance`).
"""

from __future__ import annotations

import dataclasses
import html
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import EdInterpError, InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load
from ed_interp.models.sites import Site
from ed_interp.records.files import new_file
from ed_interp.records.tensors import read, write
from ed_interp.streams.provenance import BEFORE_FINAL_NORM, ModelStamp, Provenance

if TYPE_CHECKING:
    import pandas as pd

Binary = Callable[[Tensor, Tensor], Tensor]


@dataclasses.dataclass(frozen=True, eq=False)
class Direction:
    """A vector per site, with its provenance.

    Operations on two directions raise InvalidInputError unless both belong to the same model and
    sites; so does what divides by the length of a vector of zeros.
    """

    vectors: Mapping[str, Float[Tensor, " d_model"]]
    """By the site's name, in order of depth; float32, on the CPU, not part of any graph."""
    provenance: Provenance

    def __post_init__(self) -> None:
        width = self.provenance.model.d_model
        kept: dict[str, Tensor] = {}
        for site, vector in sorted(
            (Site.parse(name, n_layers=self.provenance.model.n_layers), vector)
            for name, vector in self.vectors.items()
        ):
            if vector.shape != (width,):
                raise InvalidInputError(
                    f"the vector at {site.name} must have {width} numbers, the width of "
                    f"{self.provenance.model.name}, got shape {tuple(vector.shape)}"
                )
            plain = vector.detach().to("cpu", torch.float32)
            if not bool(torch.isfinite(plain).all()):
                raise InvalidInputError(f"the vector at {site.name} must be finite, got NaN or inf")
            kept[site.name] = plain
        if not kept:
            raise InvalidInputError("a direction must have a vector at one site or more, got none")
        object.__setattr__(self, "vectors", types.MappingProxyType(kept))

    @classmethod
    def of(
        cls,
        model: Any,
        vectors: Mapping[str, Tensor] | Mapping[Site, Tensor],
        *,
        method: str,
        data: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Direction:
        """A direction in the residual stream of ``model``.

        Args:
            model: Anything :func:`ed_interp.load` takes: the model the vectors belong to.
            vectors: By site, each of ``d_model`` numbers.
            method: How they were computed.
            data: Hash of the data they were computed from.
            settings: All other settings of the method; plain data.

        Raises:
            InvalidInputError: no vector, a wrong width, NaN or infinite values.
            UnknownNameError: no such site.
            CaptureError: this architecture has no such place.
        """
        hooked = load(model)
        named = {hooked.site(site).name: vector for site, vector in vectors.items()}
        return cls(named, Provenance(method, ModelStamp.of(hooked), data, dict(settings or {})))

    @property
    def sites(self) -> tuple[Site, ...]:
        """Its sites, in order of depth."""
        return tuple(Site.parse(name) for name in self.vectors)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.provenance.model.d_model

    def __getitem__(self, site: str | Site) -> Float[Tensor, " d_model"]:
        """The vector at one site; InvalidInputError, with its sites, if it has none there."""
        name = site.name if isinstance(site, Site) else site
        if name not in self.vectors:
            raise InvalidInputError(
                f"this direction has no vector at {name}; choose from: {', '.join(self.vectors)}"
            )
        return self.vectors[name]

    def restricted(self, *sites: str | Site) -> Direction:
        """Only the vectors at ``sites``, of which there must be one or more."""
        if not sites:
            raise InvalidInputError("restricted() must be given one site or more, got none")
        names = [site.name if isinstance(site, Site) else site for site in sites]
        return dataclasses.replace(self, vectors={name: self[name] for name in names})

    # Algebra. The provenance of each result records the operands.

    def __add__(self, other: Direction) -> Direction:
        return self._with(other, torch.add, "({} + {})")

    def __sub__(self, other: Direction) -> Direction:
        return self._with(other, torch.sub, "({} - {})")

    def __mul__(self, factor: float | int) -> Direction:
        if isinstance(factor, bool) or not isinstance(factor, (int, float)):
            return NotImplemented
        return self._map(lambda vector: vector * factor, f"{factor:g} * {self.provenance.method}")

    __rmul__ = __mul__

    def __truediv__(self, divisor: float | int) -> Direction:
        if isinstance(divisor, bool) or not isinstance(divisor, (int, float)):
            return NotImplemented
        if divisor == 0:
            raise InvalidInputError("the divisor of a direction must not be 0")
        return self._map(lambda vector: vector / divisor, f"{self.provenance.method} / {divisor:g}")

    def __neg__(self) -> Direction:
        return self._map(torch.neg, f"-{self.provenance.method}")

    def projected_on(self, other: Direction) -> Direction:
        """The part along ``other``, site by site."""
        other._refuse_zeros("project on")
        return self._with(other, _along, "({} projected on {})")

    def away_from(self, other: Direction) -> Direction:
        """What remains without the part along ``other``, site by site."""
        other._refuse_zeros("project on")
        return self._with(other, lambda mine, its: mine - _along(mine, its), "({} away from {})")

    def cosine(self, other: Direction) -> dict[str, float]:
        """Cosine of the angle with ``other`` per site, in -1 to 1."""
        self._compare(other)
        for one in (self, other):
            one._refuse_zeros("measure an angle with")
        # In float64: in float32 the cosine of a direction with itself can be above 1.
        return {
            name: float(torch.cosine_similarity(vector.double(), other[name].double(), dim=0))
            for name, vector in self.vectors.items()
        }

    def norm(self) -> dict[str, float]:
        """Euclidean length per site."""
        return {name: float(vector.norm()) for name, vector in self.vectors.items()}

    def unit(self) -> Direction:
        """Every vector scaled to length 1."""
        self._refuse_zeros("normalise")
        return self._map(lambda vector: vector / vector.norm(), f"unit({self.provenance.method})")

    def _refuse_zeros(self, what: str) -> None:
        for name, vector in self.vectors.items():
            if not bool(vector.any()):
                raise InvalidInputError(f"cannot {what} the direction at {name}, which is zero")

    def _compare(self, other: Direction) -> None:
        mine, its = self.provenance.model, other.provenance.model
        if mine.fingerprint != its.fingerprint:
            raise InvalidInputError(
                f"both directions must belong to one model, got {mine.name} (fingerprint "
                f"{mine.fingerprint}) and {its.name} ({its.fingerprint}), which have no common "
                "basis"
            )
        if list(self.vectors) != list(other.vectors):
            raise InvalidInputError(
                f"both directions must be at the same sites, got {', '.join(self.vectors)} and "
                f"{', '.join(other.vectors)}; use restricted(...) first"
            )

    def _with(self, other: Direction, operation: Binary, template: str) -> Direction:
        if not isinstance(other, Direction):
            return NotImplemented
        self._compare(other)
        vectors = {name: operation(vector, other[name]) for name, vector in self.vectors.items()}
        names = (self.provenance.method, other.provenance.method)
        return self._made(vectors, template.format(*names), other)

    def _map(self, operation: Callable[[Tensor], Tensor], method: str) -> Direction:
        return self._made({name: operation(v) for name, v in self.vectors.items()}, method)

    def _made(self, vectors: dict[str, Tensor], method: str, *others: Direction) -> Direction:
        mine = self.provenance
        parts = (mine, *(other.provenance for other in others))
        stream = mine.stream if len({part.stream for part in parts}) == 1 else "mixed"
        return Direction(vectors, Provenance(method, mine.model, stream=stream, of=parts))

    # The model it belongs to.

    def check(self, model: HookedModel) -> None:
        """Refuse any model but its own.

        InvalidInputError for another architecture, width, depth, basis, tokenizer or weights, or
        vectors read after the final norm; CaptureError if the model has no such site.
        """
        stamp = self.provenance.model
        if (reason := stamp.refusal(model)) is not None:
            raise InvalidInputError(
                f"this direction belongs to {stamp.name}, not to {model.name}: {reason}; compute "
                "it again for this model, or use direction.transferred_to(model) on purpose"
            )
        if self.provenance.stream != BEFORE_FINAL_NORM:
            raise InvalidInputError(
                f"this direction must have been read {BEFORE_FINAL_NORM}, as sites are, got "
                f"{self.provenance.stream}; read it again at the site"
            )
        for name in self.vectors:
            model.site(name)

    def transferred_to(self, model: Any) -> Direction:
        """The same numbers declared to belong to another model of the same width, on purpose.

        For a fine-tuned copy, an adapter on top, or TransformerLens's form of the same weights.
        The provenance keeps the first model. InvalidInputError for another width; for a site that
        the model lacks, as :meth:`of`.
        """
        hooked = load(model)
        for name in self.vectors:
            hooked.site(name)
        if hooked.d_model != self.d_model:
            wanted = f"the width of the direction, {self.d_model}"
            raise InvalidInputError(f"{hooked.name} must have {wanted}, got {hooked.d_model}")
        mine, method = self.provenance, f"transferred({self.provenance.method})"
        made = dataclasses.replace(mine, method=method, model=ModelStamp.of(hooked), of=(mine,))
        return dataclasses.replace(self, provenance=made)

    def to_frame(self) -> pd.DataFrame:
        """One row per site: ``site``, ``layer``, ``kind``, ``norm``, ``method``, ``model``."""
        import pandas as pd

        method, model = self.provenance.method, self.provenance.model.name
        rows = [
            (site.name, site.layer, site.kind, length, method, model)
            for site, length in zip(self.sites, self.norm().values(), strict=True)
        ]
        return pd.DataFrame(rows, columns=["site", "layer", "kind", "norm", "method", "model"])

    def __repr__(self) -> str:
        about = f"{self.provenance.method!r}, {self.provenance.model.name!r}"
        return f"Direction({about}, d_model={self.d_model}, sites={list(self.vectors)})"

    def _repr_html_(self) -> str:
        model, stream = self.provenance.model, self.provenance.stream
        about = f"in {model.name} (d_model {model.d_model}, {model.basis}, {stream})"
        table = self.to_frame()[["site", "norm"]].to_html(index=False, border=0)
        return f"<b>{html.escape(self.provenance.method)}</b> {html.escape(about)}{table}"

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write one safetensors file, whole or not at all; returns its path.

        RunFolderError if ``path`` exists (and not ``overwrite``) or cannot be written;
        InvalidInputError if the settings in its provenance are not plain data.
        """
        path = new_file(path, overwrite=overwrite)
        return write(path, self.vectors, kind="direction", meta=self.provenance.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> Direction:
        """Read back what :meth:`save` wrote; InvalidInputError for anything else, saying which."""
        vectors, provenance = read(path, kind="direction")
        try:
            return cls(vectors, Provenance.from_dict(provenance))
        except EdInterpError as error:
            raise InvalidInputError(f"{path} is damaged ({error}); write it again") from error


def mean_of(directions: Sequence[Direction]) -> Direction:
    """The mean of one or more directions at the same sites of the same model."""
    if not directions:
        raise InvalidInputError("directions must hold one direction or more, got none")
    return sum(directions[1:], start=directions[0]) / len(directions)


def _along(mine: Tensor, other: Tensor) -> Tensor:
    return other * (mine @ other) / (other @ other)
