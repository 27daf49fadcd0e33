"""Rows of a comparison: effects with intervals and corrected p-values, and what goes with them."""

from __future__ import annotations

import dataclasses

HIGHER_IS_BETTER = {
    "accuracy": True,
    "logprob": True,
    "reciprocal_rank": True,
    "cross_entropy": False,
    "divergence": False,
    # More information, or a more active feature, is neither good nor bad in itself.
    "emergence": None,
    "activation": None,
}
"""Metric -> whether higher is better; None if neither direction is."""


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
    """Demonstrations before the query; None if the metric is a mean over shot counts."""
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
    """``McNemar`` (exact) for accuracy if no query is repeated; ``order two`` (normal, with twice
    the standard error) for emergence; ``sign-flip`` for everything else."""
    n: int
    """Number of independent samples: texts, or prompts (equal queries count once)."""
    watched: bool = False
    """A relation outside the task: a change here is a side effect."""

    def verdict(self, alpha: float = 0.05) -> str:
        """``better``, ``worse``, ``changed`` or ``unchanged`` at the corrected level ``alpha``."""
        # No difference is no change, whatever rounding makes of its p-value.
        if self.p_holm >= alpha or self.difference == 0:
            return "unchanged"
        better = HIGHER_IS_BETTER.get(self.metric)
        if better is None:
            return "changed"
        return "better" if (self.difference > 0) == better else "worse"


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """A position of neutral text at which the two models' predictions differ most."""

    text: int
    """Index of the text."""
    position: int
    """Index of the predicted token in its window."""
    before: str
    """The text just before the token."""
    token: str
    """The token that follows."""
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
    """The positions that differ most, largest divergence first."""

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
    """Lower end of the bootstrap interval of `difference` over texts."""
    ci_high: float
    control_density: float
    """Fraction of tokens on which the feature is active."""
    treated_density: float
    standardised: float
    """`difference` over its standard error between texts; the list is sorted by its size."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """What each side needs; None if it does not apply or was not measured."""

    parameters_control: int
    parameters_treated: int
    adapter_parameters: int | None
    """Parameters that the adapter adds."""
    checkpoint_bytes: int | None
    """Size of the adapter's weights."""
    training_seconds: float | None
    """Wall time of the training, if it was timed."""
    training_steps: int | None
    """From the record of the training in the adapter's folder."""
    peak_bytes_control: int | None
    """Parameters, plus the peak of live tensors during a forward pass over 8 prompts."""
    peak_bytes_treated: int | None
    decode_ratio: float | None
    """Generation time of the treated model over that of the control, median of paired rounds."""
    decode_ratio_low: float | None
    """Smallest ratio of any round."""
    decode_ratio_high: float | None
    decode_rounds: int = 0
    decode_tokens: int = 0
    """Tokens generated per round."""


@dataclasses.dataclass(frozen=True, slots=True)
class Identity:
    """Whether the adapter changes nothing before it is trained."""

    checked: bool
    """False without an adapter, or if its configuration cannot be initialised afresh."""
    neutral: bool | None
    """Logits of a fresh adapter of the same configuration equal the base's, bit for bit."""
    largest_difference: float | None
    """Largest absolute difference between those logits."""
    base_is_control: bool | None
    """With the adapter off, the treated model's logits equal the control's, bit for bit."""
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    """Performance within a session, averaged over sessions."""

    turn: int
    """Interactions with feedback so far; 0 is before the first."""
    logprob: float
    """Log-probability of the right answers to the probes, in nats."""
    ci_low: float
    """Lower end of the bootstrap interval over sessions."""
    ci_high: float
    accuracy: float
    without: float
    """Log-probability without the experience of the turns, on the same probes."""
    gain: float
    """`logprob` minus that of turn 0, paired by session."""
    gain_ci_low: float
    gain_ci_high: float
    n: int
    """Number of sessions."""


@dataclasses.dataclass(frozen=True, slots=True)
class Decay:
    """How much of an experience is left after a pause."""

    elapsed: float
    """Length of the pause, in the unit of the adapter's clock (turns or seconds)."""
    effect: float
    """Mean absolute change of the logits by the experience, relative to that without a pause."""


@dataclasses.dataclass(frozen=True, slots=True)
class Adaptivity:
    """A session of interactions with feedback."""

    turns: tuple[Turn, ...]
    decay: tuple[Decay, ...]
    tau: float | None
    """Decay time of an experience, in the unit of the clock."""
    half_life_expected: float | None
    """tau ln 2."""
    half_life: float | None
    """Pause after which half of the effect is left, by interpolation; None if never reached."""
    reset_is_neutral: bool
    """After a reset the logits equal those before the first turn, bit for bit."""
    gain_per_interaction: float
    """Gain of the last turn divided by the number of turns, in nats."""
    gain_per_interaction_per_parameter: float | None
    """The same divided by the number of trained parameters."""
