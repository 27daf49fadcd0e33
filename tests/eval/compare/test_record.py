"""Comparisons in folders: what is written is read back, and what is damaged is refused."""

import dataclasses
import json

import pytest

from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.eval.compare import Comparison, compare
from ed_interp.eval.compare.files import FILE, read_as
from ed_interp.eval.compare.result import Adaptivity, Decay, Effect, Turn
from ed_interp.eval.study.trials import TrialRow


@pytest.fixture(scope="module")
def made(tiny_model, tiny_tokenizer):
    from ed_interp import load

    tiny = load(tiny_model, tokenizer=tiny_tokenizer)
    found = compare(
        tiny, tiny, on="mixed-country", prompts=12, shots=(0, 1), watch=["present-past"],
        texts=("the cat sat on the mat .",) * 3, resamples=20, decode_rounds=1,
    )  # fmt: skip
    turns = (Turn(0, -1.0, -2.0, -0.5, 0.5, -1.0, 0.0, 0.0, 0.0, 4),)
    session = Adaptivity(turns, (Decay(0.0, 1.0),), 8.0, 5.5, None, True, 0.1, None)
    return dataclasses.replace(found, adaptivity=session)


def test_saved_and_loaded_is_equal(made, tmp_path):
    folder = made.save(tmp_path / "run")
    again = Comparison.load(folder)
    assert again == made
    assert again.samples.equals(made.samples)
    assert sorted(file.name for file in folder.iterdir()) == [
        FILE, "effects.parquet", "samples.parquet", "settings.json",
    ]  # fmt: skip
    with pytest.raises(RunFolderError, match="exists"):
        made.save(tmp_path / "run")
    made.save(tmp_path / "run", overwrite=True)


def test_table_figure_and_page(made):
    frame = made.to_frame()
    assert len(frame) == len(made.effects)
    assert set(frame["verdict"]) == {"unchanged"}
    names = {trace.name for trace in made.plot().data}
    assert {"control", "treated", "unchanged"} <= names
    page = made._repr_html_()
    assert made.headline().split(";")[0] in page
    assert "<script" not in page
    assert made.summary()["forgetting"] == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data.update(version=99), "version 99"),
        (lambda data: data.update(format="other"), "its format is 'other'"),
        (lambda data: data.pop("effects"), "effects is None"),
        (lambda data: data["effects"][0].pop("p_holm"), r"effects\[0\]: p_holm is missing"),
        (lambda data: data["effects"][0].update(n=1.5), r"effects\[0\].n is 1.5"),
        (lambda data: data["effects"][0].update(control="x"), "control is 'x'"),
        (lambda data: data.update(settings=[]), "settings is"),
        (lambda data: data["cost"].update(spare=1), "cost: spare"),
    ],
)
def test_a_changed_record_is_refused(made, tmp_path, change, reason):
    folder = made.save(tmp_path / "run")
    data = json.loads((folder / FILE).read_text("utf-8"))
    change(data)
    (folder / FILE).write_text(json.dumps(data), "utf-8")
    with pytest.raises(RunFolderError, match=reason) as refused:
        Comparison.load(folder)
    assert "\n" not in str(refused.value)


def test_a_damaged_or_missing_folder_is_refused(made, tmp_path):
    with pytest.raises(RunFolderError, match="no run at"):
        Comparison.load(tmp_path / "none")
    with pytest.raises(RunFolderError, match=r"has no comparison\.json"):
        Comparison.load(tmp_path)
    folder = made.save(tmp_path / "run")
    text = (folder / FILE).read_text("utf-8")
    (folder / "samples.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunFolderError, match=r"samples\.parquet is damaged"):
        Comparison.load(folder)
    for damaged in (text[: len(text) // 2], text.replace("0.0", "NaN", 1), "[]"):
        (folder / FILE).write_text(damaged, "utf-8")
        with pytest.raises(RunFolderError, match=r"damaged|no record"):
            Comparison.load(folder)


def test_reading_by_type():
    row = TrialRow("lora", 0.1, 0, False, "done", shots=(0, 1), harmed=("a",))
    data = json.loads(json.dumps(dataclasses.asdict(row)))
    assert read_as(TrialRow, data, "row") == row
    assert read_as(tuple[float, ...], [1, 2.5], "x") == (1.0, 2.5)
    with pytest.raises(InvalidInputError, match="x is True"):
        read_as(int, True, "x")
    with pytest.raises(InvalidInputError, match=r"x\[1\] is None"):
        read_as(tuple[int, ...], [1, None], "x")
    with pytest.raises(InvalidInputError, match="shots"):
        read_as(TrialRow, {**data, "shots": "no"}, "row")


def test_verdicts():
    effect = Effect(
        "relation", "r", "logprob", 1, 0.0, -1.0, -1.0, -2.0, -0.5, 0.001, 0.01, "sign-flip", 9
    )
    assert effect.verdict() == "worse"
    assert dataclasses.replace(effect, p_holm=0.05).verdict() == "unchanged"
    assert dataclasses.replace(effect, metric="cross_entropy").verdict() == "better"
    assert dataclasses.replace(effect, metric="emergence").verdict() == "changed"
