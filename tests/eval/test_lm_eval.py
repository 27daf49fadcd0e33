"""Comparison through tasks of lm-evaluation-harness, and from its logs."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ed_interp.errors import InvalidInputError
from ed_interp.eval.lm_eval import (
    TaskComparison,
    compare_logs,
    compare_tasks,
    read_logs,
)

TASK = """task: tiny_pairs
dataset_path: json
dataset_kwargs:
  data_files: {file}
test_split: train
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: 0
metric_list:
  - metric: acc
  - metric: acc_norm
"""


def _log(folder: Path, values: list[float], task: str = "t", **more: Any) -> None:
    folder.mkdir(exist_ok=True)
    rows = [
        {"doc_id": i, "doc_hash": f"h{i}", "metrics": ["acc"], "acc": v, **more}
        for i, v in enumerate(values)
    ]
    file = folder / f"samples_{task}_2026-01-31T10-00-00.1.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))


def test_logs_are_paired_by_document(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    easy = rng.random(200) < 0.5
    control = easy.astype(float)
    treated = control.copy()
    treated[np.flatnonzero(~easy)[:12]] = 1.0  # twelve gained, none lost
    _log(tmp_path / "a", control.tolist())
    _log(tmp_path / "b", treated.tolist())
    found = compare_logs(tmp_path / "a", tmp_path / "b")
    (row,) = found.rows
    assert (row.name, row.metric, row.n) == ("t", "acc", 200)
    assert row.difference == pytest.approx(0.06)
    assert row.p_value == pytest.approx(2 * 0.5**12)  # McNemar, exact
    assert row.ci_low > 0
    # Unpaired, the same difference could not be told from chance.
    spread = np.sqrt(control.var() / 200 + treated.var() / 200)
    assert abs(row.difference) / spread < 1.96
    assert TaskComparison.load(found.save(tmp_path / "saved")) == found
    assert "1 of 1 differences hold" in found.headline()


def test_order_does_not_matter_and_only_common_documents_count(tmp_path: Path) -> None:
    _log(tmp_path / "a", [0, 1, 1, 0, 1])
    _log(tmp_path / "b", [1, 1, 0])
    file = next((tmp_path / "b").iterdir())
    file.write_text("\n".join(reversed(file.read_text().splitlines())))
    (row,) = compare_logs(tmp_path / "a", tmp_path / "b").rows
    assert (row.n, row.control, row.treated) == (3, pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_several_tasks_are_corrected_together(tmp_path: Path) -> None:
    for name, shift in (("a", 0.0), ("b", 1.0)):
        for task in ("one", "two", "three"):
            _log(tmp_path / name, [0.5 * i + shift for i in range(12)], task)
    found = compare_logs(tmp_path / "a", tmp_path / "b")
    assert len(found.rows) == 3
    assert all(row.p_holm == pytest.approx(min(1, 3 * row.p_value)) for row in found.rows)


def test_what_cannot_be_paired_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="--log_samples"):
        read_logs(tmp_path)
    _log(tmp_path / "a", [0, 1], "one")
    _log(tmp_path / "b", [0, 1], "two")
    with pytest.raises(InvalidInputError, match="nothing to pair"):
        compare_logs(tmp_path / "a", tmp_path / "b")
    next((tmp_path / "a").iterdir()).write_text("{")
    with pytest.raises(InvalidInputError, match="damaged"):
        read_logs(tmp_path / "a")


@pytest.fixture
def harness(tmp_path: Path) -> Any:
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    found = pytest.importorskip("lm_eval", reason="comes with the lm-eval extra")
    rows = [{"question": f"{word} ->", "choices": ["a", "b", "c"]} for word in "kitchens"]
    (tmp_path / "data.json").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "tiny.yaml").write_text(TASK.format(file=tmp_path / "data.json"))
    logging.disable(logging.WARNING)
    yield found
    logging.disable(logging.NOTSET)


@pytest.mark.filterwarnings("ignore")
def test_a_model_with_itself_and_steered(
    harness: Any, tmp_path: Path, tiny_model: Any, tiny_tokenizer: Any
) -> None:
    from ed_interp.adapters.steering import steer
    from ed_interp.models.load import load
    from ed_interp.streams.direction import Direction

    hooked = load(tiny_model, tokenizer=tiny_tokenizer)
    same = compare_tasks(hooked, hooked, tasks=["tiny_pairs"], include=tmp_path)
    assert {row.metric for row in same.rows} == {"acc", "acc_norm"}
    assert all(row.difference == 0 and row.p_value == 1 and row.n == 8 for row in same.rows)
    site = "blocks.1.hook_resid_post"
    towards = tiny_model.lm_head.weight.detach()[tiny_tokenizer(" a").input_ids[-1]]
    direction = Direction.of(hooked, {site: towards}, method="by hand")
    treated = steer(hooked, direction, coefficient=60.0)
    found = compare_tasks(hooked, treated, tasks=["tiny_pairs"], include=tmp_path)
    accuracy = next(row for row in found.rows if row.metric == "acc")
    assert accuracy.treated == 1.0
    assert accuracy.treated > accuracy.control
    with pytest.raises(InvalidInputError, match="knows no task 'tiny'"):
        compare_tasks(hooked, hooked, tasks=["tiny"], include=tmp_path)
    with pytest.raises(InvalidInputError, match="no YAML"):
        compare_tasks(hooked, hooked, tasks=["tiny"], include=tmp_path / "data.json")


def test_torch_is_left_alone() -> None:
    # The harness seeds global generators; a comparison from logs must not.
    before = torch.random.get_rng_state()
    with pytest.raises(InvalidInputError):
        compare_logs("nowhere", "nowhere")
    assert torch.equal(before, torch.random.get_rng_state())
