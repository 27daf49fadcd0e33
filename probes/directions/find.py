"""`find_direction`: from pairs of texts to a direction at every block, in one streamed pass.

    direction = find_direction("icl-gpt2", Contrast.from_file("pairs.jsonl"))
    direction.save("mood.safetensors")

Cost: the forward passes over the texts; the methods themselves are milliseconds to seconds a site
(:mod:`ed_interp.probes.directions.methods`).
"""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import torch

from ed_interp.options import named_values, takes_options
from ed_interp.probes.directions.function_vectors import function_vector
from ed_interp.probes.directions.methods import METHODS, Method, get_method
from ed_interp.probes.directions.options import FUNCTION_VECTOR, FindOptions
from ed_interp.probes.directions.pairs import Contrast, ContrastStates, check_gap
from ed_interp.probes.directions.steerability import FEWEST, Preflight, preflight, states_of
from ed_interp.progress import Progress
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
        # Sorted, as a file keeps them, so that find and show print one order.
        facts |= dict(sorted(origin["settings"].items()))
        return {name: str(value) for name, value in facts.items() if value is not None}

    def how(self) -> str:
        kind = METHODS.get(self.method)
        return f"{inspect.getdoc(kind)} ({kind.citation})." if kind else ""

    def tables(self) -> list[Table]:
        notes = [", ".join(f"{name} {value}" for name, value in self.facts().items())]
        if len(self.norms) > 1:
            sites = f"It holds vectors at {len(self.norms)} sites"
            notes.append(f"{sites}, and apply adds at all of them; --site chooses.")
        rows = [(site, f"{length:.3g}") for site, length in self.norms.items()]
        heads, more = ("site", "length"), self.preflight.tables() if self.preflight else []
        return [Table(name="sites", caption="Vectors", heads=heads, rows=rows, notes=notes), *more]


@takes_options(FindOptions)
def find_direction(
    model: Any = None,
    pairs: Contrast | ContrastStates | str | Path | None = None,
    *,
    method: str | Method | None = None,
    task: Any = None,
    options: FindOptions,
    progress: Progress = None,
) -> Direction:
    """Find a direction from two classes of texts, or the function vector of a task.

    Args:
        model: Anything :func:`ed_interp.load` takes.
        pairs: The texts or a file of them, or their states if several methods share one pass.
        method: A name, or a method with its settings such as ``LogisticProbe(penalty_c=0.1)``.
        task: For a function vector: a labelled task, or its name.
        progress: See :mod:`ed_interp.progress`.

    Raises:
        UnknownNameError: no such method or site.
        InvalidInputError: texts that cannot be read, or classes that have the same mean.
    """
    if options.method == FUNCTION_VECTOR:
        hooked, shots = options.load(model), options.shots or 8
        return function_vector(
            hooked, task, heads=options.heads, shots=shots, seed=options.seed, progress=progress
        )
    chosen = method if isinstance(method, Method) else get_method(options.method)
    chosen = dataclasses.replace(chosen, **named_values("set", options.set))
    return _direction(states_of(model, pairs, options, progress), chosen)


def find_with_preflight(
    options: FindOptions, progress: Progress = None
) -> tuple[Direction, DirectionSummary]:
    """The direction that the options describe, and how likely it is to steer."""
    if options.method == FUNCTION_VECTOR:
        direction = find_direction(options=options, progress=progress)
        return direction, DirectionSummary.of(direction)
    method = get_method(options.method, **named_values("set", options.set))
    # Read once, for the direction and for its preflight.
    states = states_of(None, options.pairs, options, progress)
    direction = _direction(states, method)
    if min(len(states.positive), len(states.negative)) < FEWEST:
        verdict = f"too few pairs to say whether it will steer: at least {FEWEST} are needed"
        return direction, DirectionSummary.of(direction, verdict=verdict)
    return direction, DirectionSummary.of(direction, preflight(None, states, seed=options.seed))


def _direction(states: ContrastStates, method: Method) -> Direction:
    check_gap(states)
    sizes = {"positive": len(states.positive), "negative": len(states.negative)}
    settings = {**sizes, "paired": states.paired, "texts": states.name, **method.to_dict()}
    # Computed in float64; kept in the precision of directions.
    rows = method.vectors(states).to(torch.float32)
    vectors, data = dict(zip(states.sites, rows, strict=True)), states.data
    return Direction.of(states.model, vectors, method=method.name, data=data, settings=settings)
