"""A curve that was saved is the curve that is loaded; anything else is refused with a reason."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.probes.emergence.calibration import Calibration
from ed_interp.probes.emergence.curve import EmergenceCurve
from ed_interp.probes.emergence.rows import BehaviourRow, EmergenceRow, ProfileRow
from ed_interp.records import write_json
from ed_interp.results import load_any

RUNS = Path(__file__).with_name("runs")
"""Runs that version 0.1 of the formats wrote."""

HEADER = {"format": "ed-interp/emergence", "version": 2}

NUMBER = st.floats(-1e6, 1e6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBER | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
COUNT = st.integers(0, 10_000)
TYPES: dict[Any, st.SearchStrategy[Any]] = {
    "int": COUNT,
    "float": NUMBER,
    "float | None": st.none() | NUMBER,
    "tuple[str, ...]": st.lists(st.text()),
}


def rows(kind: type[Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Lists of what ``to_dict`` gives for rows of ``kind``."""
    fields = {field.name: TYPES[field.type] for field in dataclasses.fields(kind)}
    return st.lists(st.fixed_dictionaries(fields), max_size=4)


CURVES = st.fixed_dictionaries(
    {
        "model": st.text(),
        "task": st.text(),
        "estimator": st.text(),
        "unit": st.sampled_from(["bits", "nats"]),
        "noise": st.none() | NUMBER,
        "rows": rows(EmergenceRow),
        "behaviour": rows(BehaviourRow),
        "profile": rows(ProfileRow),
        "settings": st.dictionaries(st.text(), JSON, max_size=3),
    }
)


def curve(**changes: Any) -> EmergenceCurve:
    measured = tuple(
        EmergenceRow(layer, shots, 1.5 + layer, 1.25, 1.75, 2.5, 1.0, 6.0, 8.0, None, ("lost",))
        for layer, shots in itertools.product((0, 1), (0, 1, 2))
    )
    data: dict[str, Any] = {
        "model": "tiny",
        "task": "country-capital",
        "estimator": "smoothed",
        "noise": 0.5,
        "rows": measured,
        "behaviour": (
            BehaviourRow(0, 0.5, 0.4, 0.6, -1.0, -1.5, -0.5, 1.0, 0.25, 0.0, 0.0, 0.0, 9),
        ),
        "profile": (ProfileRow(0, 2, 0.5, 0.5, 1.5, 2.5, 1.0),),
        "settings": {"seed": 3, "nested": {"shots": [0, 1, 2]}},
    }
    return EmergenceCurve(**{**data, **changes})


@given(CURVES)
@settings(deadline=None)
def test_every_curve_survives_its_dictionary_and_json(data: dict[str, Any]) -> None:
    made = EmergenceCurve.from_dict(data)
    assert made.to_dict() == {**data, "comparison": None, "calibration": None}
    assert EmergenceCurve.from_dict(json.loads(made.to_json())) == made
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "run.json", {**HEADER, **data})
        assert EmergenceCurve.load(folder) == made


@given(CURVES)
# Without shrinking, which would draw hundreds of pictures.
@settings(deadline=None, max_examples=6, phases=[Phase.explicit, Phase.reuse, Phase.generate])
def test_every_curve_can_be_saved(data: dict[str, Any]) -> None:
    made = EmergenceCurve.from_dict(data)
    with tempfile.TemporaryDirectory() as folder:
        assert EmergenceCurve.load(made.save(Path(folder) / "run")) == made
        assert os.listdir(folder) == ["run"]


def test_saved_is_loaded_and_the_tables_agree(tmp_path: Path) -> None:
    made = curve()
    path = made.save(tmp_path / "run")
    assert EmergenceCurve.load(path) == made
    assert sorted(file.name for file in path.iterdir()) == [
        "behaviour.parquet",
        "emergence.parquet",
        "emergence.png",
        "profile.parquet",
        "report.html",
        "run.json",
        "settings.json",
    ]
    table = pd.read_parquet(path / "emergence.parquet")
    assert table["emergence"].tolist() == [row.emergence for row in made.rows]
    assert [tuple(flags) for flags in table["flags"]] == [row.flags for row in made.rows]
    # Types must not depend on the values: here no twin was run.
    assert table["untrained"].dtype == "float64"
    assert pd.read_parquet(path / "behaviour.parquet")["n"].tolist() == [9]
    assert pd.read_parquet(path / "profile.parquet")["beta"].tolist() == [0.5]
    run = json.loads((path / "run.json").read_text())
    assert {name: run[name] for name in HEADER} == HEADER
    assert run["environment"]["versions"]["transformers"]


def test_tables_without_rows_are_left_out(tmp_path: Path) -> None:
    path = curve(behaviour=(), profile=()).save(tmp_path / "run")
    assert not (path / "behaviour.parquet").exists()
    assert not (path / "profile.parquet").exists()
    assert EmergenceCurve.load(path).behaviour == ()


def test_the_environment_of_the_run_is_kept(tmp_path: Path) -> None:
    was = {"python": "3.99", "versions": {}}
    path = curve(settings={"environment": was}).save(tmp_path / "run")
    assert json.loads((path / "run.json").read_text())["environment"] == was
    assert "3.99" in (path / "report.html").read_text()


def test_saving_twice_needs_overwrite(tmp_path: Path) -> None:
    curve().save(tmp_path / "run")
    with pytest.raises(RunFolderError, match="exists"):
        curve(noise=0.75).save(tmp_path / "run")
    assert EmergenceCurve.load(tmp_path / "run") == curve()
    curve(noise=0.75).save(tmp_path / "run", overwrite=True)
    assert EmergenceCurve.load(tmp_path / "run").noise == 0.75


def test_a_curve_that_json_cannot_hold_leaves_nothing(tmp_path: Path) -> None:
    row = dataclasses.replace(curve().rows[0], macro=float("nan"))
    for bad in (curve(rows=(row,)), curve(settings={"path": tmp_path})):
        with pytest.raises(InvalidInputError):
            bad.save(tmp_path / "run")
        assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def fail(source: Any, target: Any) -> None:
        if str(target).endswith("report.html"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(RunFolderError, match="no space left"):
        curve().save(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_writing_again_gives_the_same_numbers(tmp_path: Path) -> None:
    curve().write(tmp_path)
    first = (tmp_path / "run.json").read_bytes()
    curve().write(tmp_path)
    assert (tmp_path / "run.json").read_bytes() == first


def damaged(folder: Path, text: str | bytes) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(RunFolderError) as error:
        EmergenceCurve.load(folder)
    message = str(error.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


def test_damaged_runs_are_refused_with_the_reason(tmp_path: Path) -> None:
    good = {**HEADER, **curve().to_dict()}
    text = json.dumps(good)
    assert "damaged" in damaged(tmp_path, text[: len(text) // 2])
    assert "damaged" in damaged(tmp_path, "")
    assert "damaged" in damaged(tmp_path, b"\xff\xfe")
    assert "NaN" in damaged(tmp_path, text.replace("0.5", "NaN"))
    assert "got 'other'" in damaged(tmp_path, json.dumps({**good, "format": "other"}))
    assert "list" in damaged(tmp_path, "[]")
    assert "got 3" in damaged(tmp_path, json.dumps({**good, "version": 3}))
    for key in ("model", "rows", "noise"):
        without = {name: value for name, value in good.items() if name != key}
        assert key in damaged(tmp_path, json.dumps(without))
    for change in (
        {"rows": None},
        {"rows": [3]},
        {"rows": [{**good["rows"][0], "layer": "first"}]},
        {"rows": [{**good["rows"][0], "layer": 0.5}]},
        {"rows": [{**good["rows"][0], "macro": None}]},
        {"rows": [{**good["rows"][0], "flags": [1]}]},
        {"rows": [{**good["rows"][0], "new": 1}]},
        {"behaviour": [{"shots": 0}]},
        {"profile": [{**good["profile"][0], "beta": True}]},
    ):
        assert "damaged" in damaged(tmp_path, json.dumps({**good, **change}))


def test_what_is_not_a_run_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "folder").mkdir()
    (tmp_path / ".half.partial").mkdir()
    for name, part in {
        "none": "there is no run",
        "file": "got a file",
        "folder": "without run.json",
        "half": "interrupted",
    }.items():
        with pytest.raises(RunFolderError) as error:
            EmergenceCurve.load(tmp_path / name)
        assert part in str(error.value)
        assert str(tmp_path / name) in str(error.value)


def test_only_json_is_read_back(tmp_path: Path) -> None:
    path = curve().save(tmp_path / "run")
    for file in path.iterdir():
        if file.name != "run.json":
            file.unlink()
    assert EmergenceCurve.load(path) == curve()


def test_runs_of_version_1_are_read() -> None:
    data = json.loads((RUNS / "emergence-1" / "run.json").read_text("utf-8"))
    old = load_any(RUNS / "emergence-1")
    assert isinstance(old, EmergenceCurve)
    assert old.comparison is not None
    assert old.calibration is not None
    assert json.loads(old.to_json())["rows"] == data["rows"]
    assert len(old.profile) == len(data["profile"]) > 0
    assert len(old.comparison.rows) == len(data["comparison"]["rows"]) > 0
    assert old.calibration.bands == data["calibration"]["bands"]
    assert old.calibration.band() == data["calibration"]["band"]
    assert old.settings == data["settings"]
    assert EmergenceCurve.from_dict(old.to_dict()) == old

    checks = json.loads((RUNS / "calibration-1" / "run.json").read_text("utf-8"))["checks"]
    calibration = load_any(RUNS / "calibration-1")
    assert isinstance(calibration, Calibration)
    assert [row.estimate for row in calibration.checks] == [check["found"] for check in checks]
    assert Calibration.from_dict(calibration.to_dict()) == calibration
