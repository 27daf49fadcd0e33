"""What a comparison found: effects with intervals and corrected p-values, and all that goes along.

A comparison is small (a few hundred rows), holds no tensor, and knows how to show and save itself
(:mod:`ed_interp.eval.compare.files` says how it lies in a folder). Cost of everything here:
negligible, except :meth:`Comparison.plot`, which imports Plotly.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

HIGHER_IS_BETTER = {
    "accuracy": True,
    "logprob": True,
    "reciprocal_rank": True,
    "cross_entropy": False,
    "divergence": False,
    "emergence": None,
    "activation": None,
}
"""Metric -> whether more of it is better; None where neither direction is."""


@dataclasses.dataclass(frozen=True, slots=True)
class Effect:
    """One paired comparison: treated minus control on the same samples."""

    family: str
    """``behaviour`` (the task, per shot count), ``relation`` (one relation of the task or a watched
    one), ``forgetting`` (neutral text) or ``emergence``."""
    name: str
    """The task, the relation, ``neutral text``, or ``block 3``."""
    metric: str
    """One of :data:`HIGHER_IS_BETTER`; logprob and cross_entropy in nats, emergence in bits."""
    shots: int | None
    """Demonstrations before the query; None where the metric is a mean over shot counts."""
    control: float
    treated: float
    difference: float
    """treated - control."""
    ci_low: float
    """Lower end of the paired bootstrap interval of `difference`."""
    ci_high: float
    p_value: float
    p_holm: float
    """`p_value` corrected for all effects of the comparison (Holm)."""
    test: str
    """``McNemar`` (exact) for right or wrong where no query is repeated; ``order two`` (normal,
    with twice the standard error) for emergence; ``sign-flip`` for everything else."""
    n: int
    """Number of independent samples: texts, or prompts, those of one query counted once."""
    watched: bool = False
    """A relation that is not part of the task: what is found there is a side effect."""

    def verdict(self, alpha: float = 0.05) -> str:
        """``better``, ``worse``, ``changed`` or ``unchanged`` at the corrected level ``alpha``."""
        if self.p_holm >= alpha or self.difference == 0:
            return "unchanged"
        better = HIGHER_IS_BETTER.get(self.metric)
        if better is None:
            return "changed"
        return "better" if (self.difference > 0) == better else "worse"


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """A place in neutral text where the two models' predictions differ most."""

    text: int
    """Index of the text."""
    position: int
    """Index of the predicted token in its window."""
    before: str
    """The text just before it."""
    token: str
    """What follows."""
    divergence: float
    """KL(control || treated) of the next-token distributions, in nats."""
    control_logprob: float
    """Log-probability of `token`, in nats."""
    treated_logprob: float
    control_top: tuple[str, ...]
    """The most likely next tokens, best first."""
    treated_top: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Forgetting:
    """Neutral text under both models."""

    control_cross_entropy: float
    """Nats per token, the label of a position being the token after it."""
    treated_cross_entropy: float
    divergence_mean: float
    """KL(control || treated) per token, in nats."""
    divergence_ci_low: float
    """Lower end of the bootstrap interval over texts."""
    divergence_ci_high: float
    divergence_p99: float
    """99th percentile over tokens."""
    texts: int
    tokens: int
    contexts: tuple[Context, ...] = ()
    """Where they differ most, largest divergence first."""

    @property
    def increase(self) -> float:
        """Rise of the cross-entropy, in nats per token."""
        return self.treated_cross_entropy - self.control_cross_entropy


@dataclasses.dataclass(frozen=True, slots=True)
class FeatureChange:
    """One feature of a dictionary on neutral text, under both models."""

    feature: int
    control: float
    """Mean activation over tokens."""
    treated: float
    difference: float
    ci_low: float
    """Of `difference`, by bootstrap over texts."""
    ci_high: float
    control_density: float
    """Fraction of tokens on which the feature is active."""
    treated_density: float
    standardised: float
    """`difference` over its standard deviation between texts: what the list is sorted by."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """What each side needs; None where it does not apply or was not measured."""

    parameters_control: int
    parameters_treated: int
    adapter_parameters: int | None
    """Parameters that the adapter adds."""
    checkpoint_bytes: int | None
    """Of the adapter's weights."""
    training_seconds: float | None
    """Wall time, where the training was timed."""
    training_steps: int | None
    """From the adapter's own record of its training."""
    peak_bytes_control: int | None
    """Parameters, and the most in live tensors during a forward pass of 8 prompts of the task."""
    peak_bytes_treated: int | None
    decode_ratio: float | None
    """Time of generating with the treated over that with the control, median of paired rounds."""
    decode_ratio_low: float | None
    """Smallest ratio of a round."""
    decode_ratio_high: float | None
    decode_rounds: int = 0
    decode_tokens: int = 0
    """Tokens generated in a round."""


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """Whether the adapter changes nothing before it is trained."""

    checked: bool
    """False where there is no adapter, or its configuration cannot be initialised afresh."""
    neutral: bool | None
    """Logits of a fresh adapter of the same configuration equal the base's, bit for bit."""
    largest_difference: float | None
    """Between those logits."""
    base_is_control: bool | None
    """With the adapter off, the treated model's logits equal the control's, bit for bit."""
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """Performance within a session, averaged over sessions."""

    turn: int
    """Interactions with feedback so far; 0 is before the first."""
    logprob: float
    """Of the right answer to the probes, in nats."""
    ci_low: float
    """Bootstrap over sessions."""
    ci_high: float
    accuracy: float
    without: float
    """Log-probability without the experience of the turns, on the same probes."""
    gain: float
    """`logprob` minus that of turn 0, paired by session."""
    gain_ci_low: float
    gain_ci_high: float
    n: int
    """Sessions."""


@dataclasses.dataclass(frozen=True, slots=True)
class Decay:
    """How much of an experience is left after a pause."""

    elapsed: float
    """In the unit of the adapter's own clock (turns or seconds)."""
    effect: float
    """Mean absolute change of the logits against no experience, over that without a pause."""


@dataclasses.dataclass(frozen=True, slots=True)
class Adaptivity:
    """A session of interactions with feedback."""

    turns: tuple[Turn, ...]
    decay: tuple[Decay, ...]
    tau: float | None
    """The adapter's decay time of an experience, in the clock's unit."""
    half_life_expected: float | None
    """tau ln 2."""
    half_life: float | None
    """Measured: where half of the effect is left, by interpolation; None if it is never reached."""
    reset_is_neutral: bool
    """After a reset the logits equal those before the first turn, bit for bit."""
    gain_per_interaction: float
    """Gain of the last turn over the number of turns, in nats."""
    gain_per_interaction_per_parameter: float | None
    """The same over the adapter's trained parameters."""


@dataclasses.dataclass(frozen=True, repr=False)
class Comparison:
    """A treated model against a control, on the same samples. Made by :func:`compare`."""

    control: dict[str, Any]
    """What the control is: name, kind, and the description of the model."""
    treated: dict[str, Any]
    task: str
    effects: tuple[Effect, ...]
    forgetting: Forgetting | None = None
    features: tuple[FeatureChange, ...] = ()
    cost: Cost | None = None
    identity: Identity | None = None
    adaptivity: Adaptivity | None = None
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Every setting and version that made the comparison: enough to repeat it exactly."""
    samples: pd.DataFrame | None = dataclasses.field(default=None, compare=False)
    """Both models' scores of every prompt and shot count; see the columns in ``files.py``."""

    def __repr__(self) -> str:
        return (
            f"Comparison({self.treated.get('name')!r} against {self.control.get('name')!r}, "
            f"{self.task!r}, {len(self.effects)} effects, {len(self.found())} found)"
        )

    @property
    def alpha(self) -> float:
        """The level of the corrected tests."""
        return 1.0 - float(self.settings.get("level", 0.95))

    def found(self) -> tuple[Effect, ...]:
        """Effects that hold at the corrected level, strongest evidence first."""
        kept = [effect for effect in self.effects if effect.verdict(self.alpha) != "unchanged"]
        return tuple(sorted(kept, key=lambda effect: (effect.p_holm, -abs(effect.difference))))

    def side_effects(self) -> tuple[Effect, ...]:
        """What became worse: relations by name, the task itself, and neutral text."""
        return tuple(effect for effect in self.found() if effect.verdict(self.alpha) == "worse")

    def harmed(self) -> tuple[str, ...]:
        """Names of what became worse, each once, the surest first."""
        return tuple(dict.fromkeys(effect.name for effect in self.side_effects()))

    def effect(self, family: str, metric: str, *, name: str | None = None) -> tuple[Effect, ...]:
        """The effects of one family and metric, and of one name if given."""
        return tuple(
            effect
            for effect in self.effects
            if effect.family == family
            and effect.metric == metric
            and (name is None or effect.name == name)
        )

    def to_frame(self) -> pd.DataFrame:
        """One line per effect, columns as in :class:`Effect`, and the verdict."""
        import pandas as pd

        columns = [field.name for field in dataclasses.fields(Effect)]
        rows = [dataclasses.asdict(effect) for effect in self.effects]
        frame = pd.DataFrame(rows, columns=columns)
        frame["verdict"] = [effect.verdict(self.alpha) for effect in self.effects]
        return frame

    def headline(self) -> str:
        """The finding in a sentence or two, made from the numbers."""
        from ed_interp.eval.compare.words import headline

        return headline(self)

    def summary(self) -> dict[str, Any]:
        """The main numbers as one flat row; see :func:`~ed_interp.eval.compare.words.row`."""
        from ed_interp.eval.compare.words import row

        return row(self)

    def plot(self) -> go.Figure:
        """An interactive figure: behaviour, relations, and emergence, control against treated."""
        from ed_interp.eval.compare.figure import comparison_figure

        return comparison_figure(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, the shape of ``comparison.json`` and of ``--json``; without the samples."""
        from ed_interp.eval.compare.files import to_dict

        return to_dict(self)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write ``comparison.json`` and Parquet tables to ``folder``, whole or not at all.

        Raises:
            RunFolderError: ``folder`` exists (and not ``overwrite``) or cannot be written.
        """
        from ed_interp.eval.compare.files import save_comparison

        return save_comparison(self, Path(folder), overwrite=overwrite)

    @classmethod
    def load(cls, folder: str | Path) -> Comparison:
        """Read back what :meth:`save` or the command line wrote.

        Raises:
            RunFolderError: no complete comparison is there, or it is damaged or of another version.
        """
        from ed_interp.eval.compare.files import load_comparison

        return load_comparison(Path(folder))

    def _repr_html_(self) -> str:
        from ed_interp.eval.compare.words import html_summary

        return html_summary(self)
