"""Rows of interpretation scores, as they are written to files."""

from __future__ import annotations

import dataclasses


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
