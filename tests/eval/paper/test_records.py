"""What is refused, each with a line that says why."""

from __future__ import annotations

import json

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
    assert "holds no record" in refused(tmp_path / "empty")
    (tmp_path / "file").write_text("x")
    assert "there is no run at" in refused(tmp_path / "file")


def test_an_interrupted_run(tmp_path):
    (tmp_path / ".run.partial").mkdir()
    assert "was interrupted; repeat its command" in refused(tmp_path / "run")


@pytest.mark.parametrize("text", ["{", "[]", "\x00", '{"format": 3}'])
def test_a_damaged_record(study, text):
    (study / "run.json").write_text(text, "utf-8")
    assert str(study / "run.json") in refused(study)


def test_another_version_and_an_unknown_kind(study):
    assert "version 7" in refused(changed(study, lambda data: data.update(version=7)))
    found = refused(changed(study, lambda data: data.update(format="ed-interp/tea", version=1)))
    assert "unknown kind" in found
    assert "emergence curve" in found


def test_fields_that_are_missing_or_of_the_wrong_type(study):
    assert "damaged" in refused(changed(study, lambda data: data["trials"][0].update(seed="zero")))
    assert "damaged" in refused(changed(study, lambda data: data.pop("plan")))


def test_a_damaged_part_of_a_study(study):
    (file,) = study.glob("comparisons/*/comparison.json")
    file.write_text("{}", "utf-8")
    assert str(file) in refused(study)


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


def test_any_other_kind_has_its_tables(tmp_path):
    from ed_interp.eval.paper.write import make_paper
    from ed_interp.probes.emergence.calibration.files import FORMAT, VERSION
    from ed_interp.probes.emergence.calibration.result import Calibration, CalibrationRow
    from ed_interp.records import write_json

    row = CalibrationRow("normal, 1 bit", "normal", 1.0, 0.0, 1.03125, 0.96875, 1.09375, 1.0, 0.5,
                         ("shrunk",))  # fmt: skip
    found = Calibration("gaussian", 500, 8, 8, (row,), settings={"long": list(range(99))})
    data = {"format": FORMAT, "version": VERSION, **found.to_dict(), "values": list(range(99))}
    write_json(tmp_path / "run.json", data)
    paper = make_paper([tmp_path])
    shown = [value.text for value in paper.values()]
    assert {"1.031", "normal, 1 bit", "500", "shrunk"} <= set(shown)
    assert not any("97, 98" in text for text in shown)  # a list that no cell could hold


def test_a_place_that_is_not_there_is_told_from_one_with_nothing_in_it(study):
    head = read_records([study])[0].place()
    assert head["plan"]["treated"].show().text == "none"
    assert head["plan"]["no such setting"].show().text == ""
    assert head["trials"][999]["arm"].show().missing
