"""`DirectionSummary`: a direction without its numbers, and how likely it is to steer."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from ed_interp.probes.directions.methods import METHODS
from ed_interp.probes.directions.steerability import Preflight
from ed_interp.results import Result
from ed_interp.streams.direction import Direction
from ed_interp.tables import Table


@dataclasses.dataclass(frozen=True)
class DirectionSummary(Result):
    """What ``steer find`` reports, and ``steer show`` of a direction's file."""

    KIND = "direction-summary"
    method: str
    model: str
    d_model: int
    norms: dict[str, float]
    """Euclidean length of the vector at each site."""
    provenance: dict[str, Any]
    verdict: str = ""
    """How likely it is to steer; empty for a function vector or a direction from a file."""
    preflight: Preflight | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls, direction: Direction, look: Preflight | None = None, *, verdict: str = ""
    ) -> DirectionSummary:
        """The summary of a direction, with its preflight if there is one."""
        origin = direction.provenance
        return cls(
            method=origin.method,
            model=origin.model.name,
            d_model=direction.d_model,
            norms=direction.norm(),
            provenance=origin.to_dict(),
            verdict=look.verdict if look else verdict,
            preflight=look,
        )

    def title(self) -> str:
        basis = f"{self.provenance['model']['basis']}, {self.provenance['stream']}"
        return f"{self.method} in {self.model} (d_model {self.d_model}, {basis})"

    def headline(self) -> str:
        return self.verdict

    def facts(self) -> dict[str, str]:
        origin = self.provenance
        facts = {"model": origin["model"]["fingerprint"], "data": origin["data"]}
        return {name: str(value) for name, value in {**facts, **origin["settings"]}.items()}

    def how(self) -> str:
        kind = METHODS.get(self.method)
        return f"{inspect.getdoc(kind)} ({kind.citation})." if kind else ""

    def tables(self) -> list[Table]:
        notes = [", ".join(f"{name} {value}" for name, value in self.facts().items())]
        if len(self.norms) > 1:
            notes.append(
                f"It holds vectors at {len(self.norms)} sites, and apply adds at all of them; "
                "--site chooses."
            )
        table = Table(
            name="sites",
            caption="Vectors",
            heads=("site", "length"),
            rows=[(site, f"{length:.3g}") for site, length in self.norms.items()],
            notes=notes,
        )
        return [table, *(self.preflight.tables() if self.preflight else [])]
