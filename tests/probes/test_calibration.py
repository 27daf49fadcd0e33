"""Calibration: truth, the band, resuming, files; and the self-consistency checks."""

import dataclasses
from pathlib import Path

import pytest

from ed_interp.errors import InvalidInputError, RunFolderError, UnknownNameError
from ed_interp.figures import calibration as figures
from ed_interp.probes.emergence.calibration import (
    Calibration,
    CalibrationRow,
    calibrate,
    consistency,
)
from ed_interp.probes.emergence.calibration.result import ABSOLUTE_BITS, RELATIVE


def row(family: str, truth: float, estimate: float) -> CalibrationRow:
    return CalibrationRow(
        f"{family}-{truth:g}", family, truth, 0.0, estimate, estimate, estimate, 1.0, 0.1
    )


def made(*rows: CalibrationRow) -> Calibration:
    return Calibration("gaussian", 100, 3, 3, rows)


def test_the_band_ends_at_the_first_gap() -> None:
    found = made(
        row("gaussian", 0.0, 0.2),
        row("gaussian", 1.0, 1.2),
        row("gaussian", 2.0, 1.5),
        row("gaussian", 8.0, 8.7),  # right again, but beyond the gap
        row("student", 1.0, 1.1),
        row("student", 8.0, 8.7),
    )
    assert found.bands() == {"gaussian": 1.0, "student": 8.0}
    assert found.band() == 1.0
    assert "gaussian to 1 bits" in found.says()
    assert made(row("gaussian", 0.0, 0.3)).band() is None
    assert "nowhere" in made(row("gaussian", 0.0, 0.3)).says()


def test_figure_and_rule_agree() -> None:
    assert (figures.ABSOLUTE_BITS, figures.RELATIVE) == (ABSOLUTE_BITS, RELATIVE)
    found = made(row("gaussian", 1.0, 1.0), row("student", 2.0, 1.0))
    names = [trace.name for trace in found.plot().data]
    assert "gaussian" in names
    assert "student" in names


def test_the_gaussian_estimator_is_right_on_gaussians_and_not_on_clusters(tmp_path: Path) -> None:
    found = calibrate(
        "gaussian", n=600, d=10, bits=(0.0, 2.0), families=("gaussian", "clusters"), seeds=2
    )
    assert found.bands()["gaussian"] == pytest.approx(2.0)
    assert found.bands()["clusters"] is None
    folder = found.save(tmp_path / "run")
    assert Calibration.load(folder) == found
    assert sorted(path.name for path in folder.iterdir()) == [
        "calibration.parquet",
        "calibration.png",
        "report.html",
        "run.json",
        "settings.json",
    ]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "nowhere on clusters" in page
    assert "http-equiv" in page
    assert "clusters-2" in found._repr_html_()
    (folder / "run.json").write_text('{"format": "ed-interp/emergence"}')
    with pytest.raises(RunFolderError, match="not a calibration"):
        Calibration.load(folder)


def test_the_truth_of_a_noisy_estimator_is_that_behind_its_noise() -> None:
    found = calibrate("smoothed", n=300, d=2, bits=(1.0,), seeds=1, options={"noise": 0.5})
    by = {one.family: one for one in found.rows}
    assert found.noise == 0.5
    assert set(found.left_out) == {"student", "nonlinear"}
    assert 0.2 < by["gaussian"].truth < 0.9
    assert by["gaussian"].right
    assert by["deterministic"].right


def test_an_interrupted_calibration_goes_on(tmp_path: Path) -> None:
    asked = {"n": 100, "d": 2, "bits": (1.0,), "families": ("gaussian",), "folder": tmp_path}
    steps: list[int] = []

    def stop(done: int, total: int, what: str) -> None:
        steps.append(done)
        if len(steps) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate("gaussian", seeds=3, progress=stop, **asked)  # type: ignore[arg-type]
    cells = sorted(tmp_path.glob("*.json"))
    assert len(cells) == 2
    cells[0].write_text(cells[0].read_text().replace('"seconds": ', '"seconds": 9'))
    found = calibrate("gaussian", seeds=3, **asked)  # type: ignore[arg-type]
    fresh = calibrate("gaussian", seeds=3, **{**asked, "folder": None})  # type: ignore[arg-type]
    same = [dataclasses.replace(one.rows[0], seconds=0.0) for one in (found, fresh)]
    assert same[0] == same[1]
    assert len(list(tmp_path.glob("*.json"))) == 3


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="at least 4 rows"):
        calibrate("gaussian", n=2, d=2)
    with pytest.raises(InvalidInputError, match="seeds=0"):
        calibrate("gaussian", n=20, d=2, seeds=0)
    with pytest.raises(UnknownNameError, match="gaussian"):
        calibrate("gausian", n=20, d=2)


def test_consistency_of_a_good_estimator_and_of_a_bad_one() -> None:
    good = consistency("gaussian", n=1000, d=4)
    assert [check.check for check in good if not check.holds] == []
    assert len(good) == 8
    # The plain value at few rows sees information in independence, and more with fewer rows.
    bad = consistency("gaussian", n=60, d=20, options={"correction": "none"})
    failed = {check.check for check in bad if not check.holds}
    assert {"independence", "permutation", "growth with n"} <= failed
    with pytest.raises(InvalidInputError, match="d >= 2"):
        consistency("gaussian", n=100, d=1)
