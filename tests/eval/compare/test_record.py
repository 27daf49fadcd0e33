"""Comparisons in folders: what is written is read back, and what is damaged is refused."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from ed_interp.errors import RunFolderError
from ed_interp.eval.compare import Comparison, compare
from ed_interp.eval.compare.rows import Adaptivity, Decay, Effect, Turn
from ed_interp.results import load_any

RECORDS = Path(__file__).parents[3] / "eval" / "study_records"


@pytest.fixture(scope="module")
def tiny_pair(tiny_model, tiny_tokenizer):
    from ed_interp import load

    tiny = load(tiny_model, tokenizer=tiny_tokenizer)
    settings = {
        "on": "mixed-country", "prompts": 12, "shots": (0, 1), "watch": ["present-past"],
        "texts": ("the cat sat on the mat .",) * 3, "resamples": 20, "decode_rounds": 1,
    }  # fmt: skip
    return tiny, settings


@pytest.fixture(scope="module")
def folder(tiny_pair, tmp_path_factory):
    """A comparison in a run folder."""
    tiny, settings = tiny_pair
    out = tmp_path_factory.mktemp("comparison") / "run"
    compare(tiny, tiny, **settings, out=out)
    return out


@pytest.fixture
def made(folder):
    turns = (Turn(0, -1.0, -2.0, -0.5, 0.5, -1.0, 0.0, 0.0, 0.0, 4),)
    session = Adaptivity(turns, (Decay(0.0, 1.0),), 8.0, 5.5, None, True, 0.1, None)
    return dataclasses.replace(Comparison.load(folder), adaptivity=session)


def test_a_run_folder_holds_everything(folder, tiny_pair):
    tiny, settings = tiny_pair
    assert {file.name for file in folder.iterdir()} >= {
        "comparison.json", "comparison.png", "relations.png", "emergence.png", "effects.parquet",
        "report.html", "samples.parquet",
        "settings.json",
    }  # fmt: skip
    result = load_any(folder)
    assert isinstance(result, Comparison)
    assert result.settings["options"]["watch"] == ["present-past"]
    assert len(result.samples) == (12 + 24) * 2
    assert result.headline() in (folder / "report.html").read_text("utf-8")
    with pytest.raises(RunFolderError, match="exists"):
        compare(tiny, tiny, **settings, out=folder)


def test_saved_and_loaded_is_equal(made, tmp_path):
    made.write_record(tmp_path)
    again = Comparison.load(tmp_path)
    assert again == made
    assert again.samples.equals(made.samples)
    assert not (tmp_path / "report.html").exists()


def test_table_figure_and_page(made):
    frame = made.to_frame()
    assert len(frame) == len(made.effects)
    assert set(frame["verdict"]) == {"unchanged"}
    assert made.to_frame("adaptivity.turns")["logprob"].tolist() == [-1.0]
    assert {trace.name for trace in made.plot().data} == {"control", "treated"}
    assert {trace.name for trace in made.plot("relations").data} == {"unchanged"}
    assert len(made.plot("emergence").data[0].z) == 2  # blocks
    page = made._repr_html_()
    assert made.headline().split(";")[0] in page
    assert "<script" not in page
    assert made.summary()["forgetting"] == 0
    assert {table.name for table in made.tables()} >= {
        "significant", "behaviour", "relation", "forgetting", "emergence", "session", "cost",
    }  # fmt: skip


def test_an_adapter_that_is_not_neutral_is_a_caution(made):
    identity = dataclasses.replace(
        made.identity, checked=True, neutral=False, largest_difference=0.25
    )
    assert made.cautions() == ""
    assert "up to 0.25" in dataclasses.replace(made, identity=identity).cautions()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data.pop("effects"), "effects"),
        (lambda data: data["effects"][0].pop("p_holm"), r"effects\[0\].p_holm"),
        (lambda data: data["effects"][0].update(n=1.5), r"effects\[0\].n"),
        (lambda data: data["effects"][0].update(control="x"), r"effects\[0\].control"),
        (lambda data: data["cost"].update(spare=1), r"cost.spare: unknown"),
    ],
)
def test_a_changed_record_is_refused(folder, tmp_path, change, reason):
    data = json.loads((folder / "comparison.json").read_text("utf-8"))
    change(data)
    (tmp_path / "comparison.json").write_text(json.dumps(data), "utf-8")
    with pytest.raises(RunFolderError, match=reason) as refused:
        Comparison.load(tmp_path)
    assert "\n" not in str(refused.value)


def test_damaged_scores_are_refused(folder, tmp_path):
    shutil.copy(folder / "comparison.json", tmp_path)
    (tmp_path / "samples.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunFolderError, match=r"samples\.parquet is damaged"):
        Comparison.load(tmp_path)


@pytest.mark.skipif(not RECORDS.is_dir(), reason="the records lie in a checkout, not in the wheel")
def test_records_of_version_1_are_read():
    for folder in RECORDS.glob("*/comparisons/*"):
        old = Comparison.load(folder)
        assert old.alpha == pytest.approx(0.05)
        assert "neutral text" in old.harmed()
        assert old.settings["options"]["watch_prompts"] == 14


def test_verdicts():
    effect = Effect(
        "relation", "r", "logprob", 1, 0.0, -1.0, -1.0, -2.0, -0.5, 0.001, 0.01, "sign-flip", 9
    )
    assert effect.verdict() == "worse"
    assert dataclasses.replace(effect, p_holm=0.05).verdict() == "unchanged"
    assert dataclasses.replace(effect, metric="cross_entropy").verdict() == "better"
    assert dataclasses.replace(effect, metric="emergence").verdict() == "changed"
