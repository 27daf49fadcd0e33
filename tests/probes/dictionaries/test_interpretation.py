"""Explanations and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ed_interp.errors import InvalidInputError
from ed_interp.probes.dictionaries import Interpretations, score_explanations
from ed_interp.probes.dictionaries.explaining import (
    Examples,
    Explanation,
    area_under_curve,
    by_tokens,
)

TEXTS = ("France", "Japan", "Kenya", "red", "the")


def _examples(mass: list[float], occurrences: list[int]) -> Examples:
    return Examples(
        feature=0,
        contexts=(),
        activations=(),
        occurrences=np.array(occurrences),
        mass=np.array(mass),
        token_texts=TEXTS,
        categories={"country": (0, 1, 2), "any": (0, 1, 2, 3, 4)},
    )


def test_a_category_is_named_when_it_holds_the_activation() -> None:
    found = by_tokens(_examples([90.0, 80.0, 100.0, 1.0, 0.0], [100] * 5))
    assert found.text == "category: country"
    assert found.predict(["France", "the", "Kenya"])[1] == 0.0
    assert min(found.predict(["France", "Kenya"])) > 0


def test_single_tokens_are_named_otherwise() -> None:
    found = by_tokens(_examples([90.0, 0.0, 0.0, 2.0, 0.0], [100] * 5))
    assert found.text == "tokens: 'France'"
    assert found.predict(["red", "France"])[0] == 0.0


def test_a_token_seen_once_does_not_lead() -> None:
    found = by_tokens(_examples([90.0, 0.0, 0.0, 1.0, 0.0], [100, 100, 100, 1, 100]))
    assert found.text.startswith("tokens: 'France'")


def test_a_dead_feature_predicts_nothing() -> None:
    found = by_tokens(_examples([0.0] * 5, [10] * 5))
    assert list(found.predict(["France", "the"])) == [0.0, 0.0]


def test_area_under_the_curve() -> None:
    assert area_under_curve(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1.0
    assert area_under_curve(np.array([0.0]), np.array([1.0])) == 0.0
    assert area_under_curve(np.array([1.0, 1.0]), np.array([1.0])) == 0.5
    assert area_under_curve(np.array([]), np.array([1.0])) == 0.5


def test_scores_of_a_perfect_and_of_an_empty_explanation(
    trained: Any, hooked: Any, texts: list[str], tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"text": texts * 10, "tokens": 3000, "window": 16, "contexts": 20}
    found = score_explanations(trained[0], hooked, **asked)
    assert len(found.rows) + found.skipped == 64
    assert len(found.rows) > 5
    means = found.means()
    # Features of a random model's first block are mostly about the present token.
    assert means["detection"] > means["detection_control"] + 0.05
    assert means["fuzzing"] > means["fuzzing_control"] + 0.05
    chosen = [found.rows[0].feature]
    blind = score_explanations(
        trained[0],
        hooked,
        features=chosen,
        explain=lambda examples: Explanation("nothing", lambda tokens: [0.0] * len(tokens)),
        **asked,
    )
    assert (blind.rows[0].detection, blind.rows[0].fuzzing) == (0.5, 0.5)
    assert Interpretations.load(found.save(tmp_path / "scores")) == found
    # Older versions wrote one file, without a header.
    (tmp_path / "scores.json").write_text(found.to_json())
    assert Interpretations.load(tmp_path / "scores.json") == found


def test_an_explanation_of_another_length_is_refused(
    trained: Any, hooked: Any, texts: list[str]
) -> None:
    def short(examples: Examples) -> Explanation:
        def predict(tokens: Sequence[str]) -> Sequence[float]:
            return [1.0]

        return Explanation("short", predict)

    with pytest.raises(InvalidInputError, match="must predict one finite number per token"):
        score_explanations(
            trained[0], hooked, explain=short, text=texts * 10, tokens=2000, window=16
        )


def test_no_such_feature(trained: Any, hooked: Any, texts: list[str]) -> None:
    with pytest.raises(InvalidInputError, match="0 to 63"):
        score_explanations(trained[0], hooked, features=[64], text=texts)
