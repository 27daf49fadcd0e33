"""Options of finding a direction and of checking whether it will steer. Imports nothing heavy."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ed_interp.errors import unknown
from ed_interp.models.options import ModelOptions
from ed_interp.options import (
    MEASURE,
    PROMPTS,
    Batched,
    OptionError,
    Options,
    Seeded,
    named_values,
    option,
)

FUNCTION_VECTOR = "function_vector"
"""The method that takes a task; all others take two classes of texts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SiteOptions(Options):
    """Hook points by name."""

    sites: tuple[str, ...] | None = option(
        None, "Hook points.", MEASURE, flag="--site", shown="all block outputs"
    )

    def __post_init__(self) -> None:
        if self.sites is not None:
            # In Python a single site, and Site objects, are as good as a list of names.
            single = isinstance(self.sites, str) or hasattr(self.sites, "name")
            sites = [self.sites] if single else self.sites
            names = tuple(getattr(site, "name", site) for site in sites)
            object.__setattr__(self, "sites", names)
        super().__post_init__()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ContrastOptions(ModelOptions, SiteOptions, Seeded, Batched):
    """Two classes of texts, and where their states are read."""

    pairs: Path | None = option(
        None, "File with columns positive, negative and optionally read.", PROMPTS
    )
    read: str | None = option(
        None, "Token to read: an index, or a part of the text.", PROMPTS, shown="last"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreflightOptions(ContrastOptions):
    """How to check a contrast before steering along it."""

    halves: int = option(50, "Random halvings for the stability.", MEASURE, min=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FindOptions(ContrastOptions):
    """How to find a direction: from pairs of texts, or, for a function vector, from a task."""

    method: str = option(
        "mean_difference",
        "Method: mean_difference, pca, logistic, lda, whitened; function_vector of --task.",
        MEASURE,
    )
    set: tuple[str, ...] = option(
        (), "Setting of the method as NAME=VALUE; repeat for more.", MEASURE, whole=True
    )
    task: str | None = option(None, "Built-in task (see `ed-interp tasks`).", PROMPTS)
    heads: int | None = option(
        None, "Heads to sum (with function_vector).", MEASURE, shown="by effect", min=1
    )
    shots: int | None = option(
        None, "Shots of its prompts (with function_vector).", PROMPTS, shown="8", min=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        # Here, as methods import torch; their names and settings are known to them alone.
        from ed_interp.probes.directions.methods import METHODS, get_method

        if self.method not in (*METHODS, FUNCTION_VECTOR):
            raise unknown("method", self.method, [*METHODS, FUNCTION_VECTOR])
        vector = self.method == FUNCTION_VECTOR
        if not vector:
            get_method(self.method, **named_values("set", self.set))
        wanted, other = ("task", "pairs") if vector else ("pairs", "task")
        if getattr(self, wanted) is None or getattr(self, other) is not None:
            problem = f"must be given with method {self.method}, and {other} must not"
            raise OptionError(wanted, problem, "method", other)
        # An option without effect is most often a mistake about what is being found.
        for name in ("sites", "read", "set") if vector else ("heads", "shots"):
            if getattr(self, name):
                problem = f"does not apply to method {self.method}; drop it"
                raise OptionError(name, problem, "method")
