"""Settings of an emergence run and of a calibration, for Python, the command line and ``run.json``.

Nothing heavy is imported here, so that ``--help`` stays fast.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from ed_interp.errors import InvalidInputError
from ed_interp.models.options import ModelOptions
from ed_interp.options import (
    MEASURE,
    OUTPUT,
    PROMPTS,
    RUNNING,
    Batched,
    OptionError,
    Options,
    Seeded,
    option,
)
from ed_interp.prompts.options import SHOTS, PromptOptions

if TYPE_CHECKING:
    from ed_interp.probes.emergence.estimators.base import Estimator

SinglePosition = Literal["zero", "original"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EstimatorOptions(Options):
    """A mutual-information estimator, and its own options."""

    # A name and not a choice of names: packages add estimators.
    estimator: str = option(
        "smoothed", "Mutual-information estimator: smoothed, auto, gaussian, ksg, ...", MEASURE
    )
    set: tuple[str, ...] = option(
        (),
        "Option of the estimator as NAME=VALUE, e.g. neighbours=5; repeat for more.",
        MEASURE,
        whole=True,
    )
    noise: float | None = option(
        None,
        "Noise standard deviation per normalised coordinate.",
        MEASURE,
        shown="beta * sqrt(d / ln n)",
        above=0,
    )
    beta: float | None = option(
        None, "Scale of the default noise rule.", MEASURE, shown="1/3", above=0
    )

    def __post_init__(self) -> None:
        if isinstance(self.set, Mapping):  # as is natural in Python: set={"neighbours": 5}
            lists = {k: v if isinstance(v, (tuple, list)) else [v] for k, v in self.set.items()}
            texts = tuple(f"{name}={','.join(map(str, v))}" for name, v in lists.items())
            # The dataclass is frozen for its users; its own making is the exception.
            object.__setattr__(self, "set", texts)
        super().__post_init__()
        if self.noise is not None and self.beta is not None:
            problem = "and beta must not both be given, since beta only sets the noise; drop one"
            raise OptionError("noise", problem, "beta")

    def make_estimator(self) -> Estimator:
        """The estimator, with its own options; raises as ``get_estimator``."""
        from ed_interp.probes.emergence.estimators.registry import get_estimator, parse_settings

        settings = parse_settings(self.estimator, self.set)
        for name in ("noise", "beta"):
            value = getattr(self, name)
            if value is not None and name in settings:
                raise OptionError(name, "must be given once, got it in set too; drop one", "set")
            if value is not None:
                settings[name] = value
        try:
            return get_estimator(self.estimator, **settings)
        except OptionError as error:
            # A setting of the estimator's own may have the name of a flag, such as dtype.
            if error.name in ("noise", "beta"):
                raise
            raise InvalidInputError(str(error)) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmergenceOptions(ModelOptions, PromptOptions, EstimatorOptions, Seeded, Batched):
    """How emergence is measured."""

    shots: tuple[int, ...] | None = option(
        None, SHOTS, PROMPTS, shown="0-8; lists 1-8; text 1 to --window", min=0
    )
    prompts: int = option(500, "Number of prompts to sample.", PROMPTS, min=2)
    noise_profile: bool = option(False, "Also estimate at seven levels of noise.", MEASURE)
    compare_estimators: tuple[str, ...] = option(
        (), "Other estimators to run on the same activations.", MEASURE
    )
    calibrate: bool = option(
        False, "Also test the estimator on data of known information of this size.", MEASURE
    )
    normalisation: Literal["auto", "layernorm", "rms", "none"] = option(
        "auto", "Normalise states before estimating; auto uses the model's own norm.", MEASURE
    )
    single_position: SinglePosition = option(
        "zero", "Position at which single tokens are fed.", MEASURE
    )
    untrained: bool = option(True, "Also run an untrained copy of the model as a control.", MEASURE)
    behaviour: bool = option(
        True, "Also score the model's answers: accuracy, log-probability, rank.", MEASURE
    )
    level: float = option(0.95, "Confidence level of the intervals.", MEASURE, above=0, below=1)
    resamples: int = option(1000, "Number of bootstrap resamples.", MEASURE, min=1)
    path: Literal["auto", "packed", "prefix", "separate"] = option(
        "auto",
        "How shot counts share forward passes; auto takes the fastest that is exact.",
        RUNNING,
    )
    keep_activations: bool = option(
        False, "Leave the states in the run folder, as safetensors.", OUTPUT
    )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, as ``run.json`` records it: everything that can change a number."""
        # A run that was interrupted without it can be resumed with it.
        return {k: v for k, v in super().to_dict().items() if k != "keep_activations"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationOptions(EstimatorOptions):
    """How an estimator is tested on data of known information."""

    n: int = option(2000, "Rows of every sample.", MEASURE, min=4)
    d: int = option(768, "Columns of x.", MEASURE, min=1)
    d_y: int | None = option(None, "Columns of y.", MEASURE, shown="as --d", min=1)
    bits: tuple[float, ...] = option(
        (0, 1, 2, 4, 8), "True values of mutual information.", MEASURE, min=0
    )
    families: tuple[str, ...] = option(
        (), "Families of populations, e.g. gaussian,clusters.", MEASURE, shown="all of them"
    )
    seeds: int = option(3, "Samples of every population.", MEASURE, min=1)
    checks: bool = option(True, "Also check self-consistency.", MEASURE)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checks and (self.d < 2 or self.n < 16):
            raise InvalidInputError(
                "d must be 2 or greater and n 16 or greater for the self-consistency checks, got "
                f"d = {self.d} and n = {self.n}; leave the checks out"
            )
