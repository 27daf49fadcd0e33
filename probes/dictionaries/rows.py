"""Rows of every result about dictionaries, as they are written to files."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class TrainingRow:
    """One batch of training."""

    step: int
    loss: float
    fvu: float
    """Fraction of variance unexplained."""
    l0: float
    """Mean number of active latents per token."""


@dataclasses.dataclass(frozen=True, slots=True)
class Recovered:
    """Mean cross-entropy per predicted token, in nats, and the share that the dictionary keeps."""

    clean: float
    spliced: float
    zero: float
    """With 0 in place of the stream."""
    mean: float
    """With the mean state in its place."""
    against_zero: float
    against_zero_low: float
    """Lower end of the 95% bootstrap interval over windows."""
    against_zero_high: float
    against_mean: float
    against_mean_low: float
    against_mean_high: float
    tokens: int
    """Number of predicted tokens."""


@dataclasses.dataclass(frozen=True, slots=True)
class ProbeRow:
    """Accuracy on one task with one number of features, over all folds."""

    task: str
    features: int
    accuracy: float
    dense: float
    """Accuracy of a probe on every channel of the raw state."""
    chance: float
    """Share of the most common class."""
    classes: int
    n: int
    """Number of labelled inputs."""


@dataclasses.dataclass(frozen=True, slots=True)
class ConceptRow:
    """One concept's features."""

    concept: str
    features: tuple[int, ...]
    """Latents that it is spread over, the best first."""
    f1_one: float
    """F1 of the best one alone, on held-out tokens."""
    f1: float
    """F1 of all of them."""
    f1_dense: float
    """F1 of the probe on the raw states."""
    missed: float
    """Share of the tokens that the probe recognises at which none of its features is active."""
    absorbed: float
    """Share at which, in addition, another feature carries it."""
    n: int
    """Number of tokens of the concept that were used."""


@dataclasses.dataclass(frozen=True, slots=True)
class FeatureEmergenceRow:
    """One checkpoint and shot count."""

    step: int | None
    """Training step of the checkpoint; None for the trained model."""
    shots: int
    active: int
    """Features that are active at the last token of at least 1% of the prompts."""
    l0: float
    """Features active at the last token, mean over prompts."""
    informative: int
    """Features whose activity informs about the label, at a family-wise 5% level."""
    new: tuple[int, ...]
    """Informative features that were not at any lower shot count of the same checkpoint."""
    top: tuple[tuple[int, float], ...]
    """The most informative features, with their information in bits."""
    best_bits: float
    """Information of the most informative feature, in bits."""
    fvu: float
    """Fraction of variance unexplained of these states; near 1 or above, the dictionary does not
    describe the model at this checkpoint."""


@dataclasses.dataclass(frozen=True, slots=True)
class InterpretationRow:
    """One feature's explanation and how well it predicts, as areas under ROC curves."""

    feature: int
    text: str
    detection: float
    detection_control: float
    """Detection with the explanation of another feature."""
    fuzzing: float
    fuzzing_control: float
    contexts: int
    """Held-out contexts with the feature active; as many without it were used."""
