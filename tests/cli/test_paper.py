"""``ed-interp paper`` as a person would run it."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def steering(tmp_path):
    """A small record of a kind without a section of its own."""
    from ed_interp.eval.steering.result import SweepResult
    from ed_interp.eval.steering.rows import SweepCell, SweepComparison
    from ed_interp.records.files import write_json

    cell = SweepCell("blocks.1.hook_resid_post", 2.0, 0.75, 0.5, 1.0, 0.125, 1.0625, True)
    rows = (
        SweepComparison("no steering", -2.5, 0.6875, 0.4375, 0.9375, 0.0005, 0.0015),
        SweepComparison("random direction", -2.25, 0.0625, -0.25, 0.375, 0.7, 0.7),
    )
    result = SweepResult("icl-gpt2", "mean difference", (cell,), cell, rows, -1.8125, 0.125,
                         0.03125, 0.3125, (16, 16), 1.25, 7.5)  # fmt: skip
    folder = tmp_path / "sweep"
    folder.mkdir()
    write_json(
        folder / "run.json",
        {"format": "ed-interp/steering-sweep", "version": 1, **result.to_dict()},
    )
    return folder


def test_a_paper_is_written(cli, steering, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("paper", "sweep", "--out", "PAPER")
    assert done.status == 0, done.stderr
    assert done.stdout.split() == ["PAPER/paper.html", "PAPER/paper.md"]
    text = (tmp_path / "PAPER" / "paper.md").read_text("utf-8")
    assert "Against no steering[^" in text
    assert ": better (+0.688" in text
    assert ": not supported (+0.0625" in text
    assert "No record of a controlled study" in text

    again = cli("paper", "sweep", "--out", "PAPER")
    assert again.status == 1
    assert "exists" in again.error
    printed = json.loads(cli("paper", "sweep", "--out", "PAPER", "--overwrite", "--json").stdout)
    assert printed["format"] == "ed-interp/paper"
    assert [record["kind"] for record in printed["records"]] == ["steering sweep"]


def test_bad_input_is_one_line(cli, steering, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "there is no run at nowhere" in cli("paper", "nowhere").error
    nothing = cli("paper")
    assert nothing.status == 2
    assert "at least one run" in nothing.error
    data = json.loads((steering / "run.json").read_text("utf-8"))
    (steering / "run.json").write_text(json.dumps({**data, "format": "other"}), "utf-8")
    assert "got format 'other'" in cli("paper", "sweep").error
    (steering / "run.json").write_text("{", "utf-8")
    assert "is damaged" in cli("paper", "sweep").error
    assert not (tmp_path / "paper").exists()
