"""What is refused, each with a line that says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.eval.paper.records import read_records


def changed(folder, change):
    file = folder / "run.json"
    data = json.loads(file.read_text("utf-8"))
    change(data)
    file.write_text(json.dumps(data), "utf-8")
    return folder


def refused(*runs):
    with pytest.raises((RunFolderError, InvalidInputError)) as caught:
        read_records(runs)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_no_run():
    assert "at least one run" in refused()


def test_a_folder_that_is_not_there_or_holds_nothing(tmp_path):
    assert "there is no run at" in refused(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert "must be a run folder, got one without" in refused(tmp_path / "empty")
    (tmp_path / "file").write_text("x")
    assert "must be a run folder, got a file" in refused(tmp_path / "file")


def test_an_interrupted_run(tmp_path):
    (tmp_path / ".run.partial").mkdir()
    assert "was interrupted; repeat its command" in refused(tmp_path / "run")


@pytest.mark.parametrize("text", ["{", "[]", "\x00", '{"format": 3}'])
def test_a_damaged_record(study, text):
    (study / "run.json").write_text(text, "utf-8")
    problem = refused(study)
    assert str(study) in problem
    assert "run.json" in problem


def test_another_version_and_an_unknown_kind(study):
    assert "version" in refused(changed(study, lambda data: data.update(version=7)))
    text = refused(changed(study, lambda data: data.update(format="ed-interp/tea", version=1)))
    assert "got format 'ed-interp/tea'" in text
    assert "emergence" in text


def test_fields_that_are_missing_or_of_the_wrong_type(study):
    assert "damaged" in refused(changed(study, lambda data: data["trials"][0].update(seed="zero")))
    assert "damaged" in refused(
        changed(study, lambda data: data["settings"]["options"].update(tea=1))
    )
    assert "damaged" in refused(changed(study, lambda data: data.pop("tested")))


def test_a_damaged_part_of_a_study(study):
    (file,) = study.glob("comparisons/*/comparison.json")
    file.write_text("{}", "utf-8")
    problem = refused(study)
    assert str(file.parent) in problem
    assert file.name in problem


def test_parts_of_a_study_are_records_of_their_own(study):
    records = read_records([study])
    assert [record.kind for record in records] == [
        "controlled study",
        "comparison",
        "trained adapter",
    ]
    assert [record.parent for record in records] == ["", "R1", "R1"]


def test_an_adapter_without_a_training_record(study):
    (folder,) = study.glob("adapters/*")
    (folder / "training.json").unlink()
    (record,) = read_records([folder])
    assert record.kind == "adapter"
    assert record.place("n_nodes").raw == 2
    taus = record.place("taus", "greatest", file="adapter_model.safetensors")
    assert taus.raw == pytest.approx(2.718281828**2)


def test_any_other_kind_has_its_tables(tmp_path, draft, put):
    from ed_interp.probes.emergence.calibration.result import Calibration, CalibrationRow

    row = CalibrationRow("normal, 1 bit", "normal", 1.0, 0.0, 1.03125, 0.96875, 1.09375, 1.0, 0.5,
                         True, ("shrunk",))  # fmt: skip
    settings = {"command": "ed-interp calibrate", "long": list(range(99))}
    result = Calibration("gaussian", 500, 8, 8, (row,), {"normal": 1.0}, settings=settings)
    paper = draft(put(result, tmp_path))
    texts = [value.text for value in paper.values()]
    assert {"1.031", "normal, 1 bit", "500", "shrunk"} <= set(texts)
    assert not any("97, 98" in text for text in texts)  # a list that no cell could hold


def test_a_missing_place_differs_from_one_with_nothing_in_it(study):
    head = read_records([study])[0].place()
    assert head["settings"]["options"]["template"]().text == "none"
    assert head["settings"]["options"]["no such setting"]().text == ""
    assert head["trials"][999]["arm"]().missing


def test_places_compare_as_what_they_hold_and_are_no_strings(study):
    head = read_records([study])[0].place()
    row = head["trials"][0]
    assert row["arm"] == head["tested"] == "bias-injection"
    assert row["rate"] > 0
    assert not row["rate"] < 0
    assert row["seed"] == 0
    assert row["seed"]  # 0 is a value
    assert row["sweep"] != 1
    assert not head["trials"][3]["neutral"]  # nobody measured it
    assert not row["no such field"] > 0
    assert not row["no such field"] < 0
    with pytest.raises(TypeError, match="printed by itself"):
        str(row["rate"])


def test_files_of_older_runs_are_read(draft):
    """The studies of the first version hold a plan, and their numbers are those of the files."""
    folder = Path(__file__).parents[3] / "eval" / "study_records" / "icl-gpt2-item-category"
    records = read_records([folder])
    assert [record.kind for record in records] == ["controlled study", "comparison"]
    data = json.loads((folder / "run.json").read_text("utf-8"))
    values = {value.path: value.text for value in draft(folder).values() if value.record == "R1"}
    assert values["plan", "seeds"] == ", ".join(map(str, data["plan"]["seeds"]))
    assert float(values["summary", 0, "mean"]) == pytest.approx(
        data["summary"][0]["mean"], rel=1e-3
    )
    assert {path[1] for path in values if path[0] == "trials"} == set(range(len(data["trials"])))
