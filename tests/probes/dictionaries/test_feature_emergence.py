"""Information of features about labels, over shots and checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ed_interp.errors import RunFolderError
from ed_interp.probes.dictionaries import FeatureEmergence, feature_emergence
from ed_interp.probes.dictionaries.emergence import entropy_of, label_information
from ed_interp.prompts.tasks import LabelledTask, MixedTask

CAPITALS = LabelledTask("one", tuple(zip("abcdefgh", "ijklmnop", strict=True)))
OTHERS = LabelledTask("two", tuple(zip("abcdefgh", "qrstuvwx", strict=True)))


def test_a_feature_that_is_the_label_carries_its_entropy() -> None:
    labels = [f"{i % 4}" for i in range(200)]
    active = np.zeros((200, 3), dtype=bool)
    active[:, 0] = [label in "01" for label in labels]
    active[:, 1] = np.random.default_rng(0).random(200) < 0.5
    found = label_information(active, labels, permutations=100, seed=0)
    assert entropy_of(labels) == pytest.approx(2.0)
    assert found.bits[0] == pytest.approx(1.0, abs=0.03)
    assert found.informative.tolist() == [True, False, False]
    assert found.bits[2] == 0.0


def test_false_alarms_are_held_over_all_features_together() -> None:
    rng = np.random.default_rng(1)
    alarms = 0
    for run in range(60):
        active = rng.random((80, 200)) < 0.2
        labels = [str(label) for label in rng.integers(0, 4, 80)]
        alarms += label_information(active, labels, permutations=60, seed=run).informative.any()
    assert alarms <= 8  # 3 expected; more than 8 has a probability of 0.4%


def test_it_follows_shots(trained: Any, hooked: Any, tmp_path: Path) -> None:
    task = MixedTask("both", (CAPITALS, OTHERS))
    found = feature_emergence(
        trained[0], hooked, task=task, shots=[0, 2], prompts=40, permutations=40
    )
    assert found.about == "relation"
    assert found.label_entropy == pytest.approx(1.0)
    assert [row.shots for row in found.rows] == [0, 2]
    # Without demonstrations nothing tells the relation: the prompts are the same.
    assert found.rows[0].informative == 0
    assert all(0 < row.l0 <= 4 for row in found.rows)
    folder = found.save(tmp_path / "seen")
    assert FeatureEmergence.load(folder) == found
    assert (folder / "features.png").stat().st_size > 10_000
    assert "inform about the relation" in (folder / "report.html").read_text("utf-8")
    assert len(found.plot().data) >= 3


def test_answers_instead_of_relations(trained: Any, hooked: Any) -> None:
    found = feature_emergence(
        trained[0], hooked, task=CAPITALS, shots=[0], prompts=24, permutations=40
    )
    assert found.about == "answer"
    assert found.label_entropy == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": CAPITALS, "about": "relation"}, "of one relation"),
        ({"task": CAPITALS, "about": "mood"}, "about must be one of auto, answer or relation"),
        ({"task": CAPITALS, "permutations": 5}, "permutations must be 20 or greater, got 5"),
        ({"task": CAPITALS, "checkpoints": [1]}, "without training checkpoints"),
        ({"task": "list-country"}, None),
    ],
)
def test_bad_requests(
    trained: Any, hooked: Any, options: dict[str, Any], message: str | None
) -> None:
    from ed_interp.errors import EdInterpError

    with pytest.raises(EdInterpError, match=message):
        feature_emergence(trained[0], hooked, shots=[0], prompts=8, **options)


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunFolderError):
        FeatureEmergence.load(tmp_path)
