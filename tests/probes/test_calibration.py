"""Calibration: truth, the band, resuming, files; and the self-consistency checks."""

import dataclasses
from pathlib import Path

import pytest

from ed_interp.errors import InvalidInputError, UnknownNameError
from ed_interp.probes.emergence.calibration import (
    Calibration,
    CalibrationRow,
    calibrate,
    consistency,
)
from ed_interp.probes.emergence.calibration.rows import bands_of, is_right
from ed_interp.probes.emergence.estimators import get_estimator


def row(family: str, truth: float, estimate: float) -> CalibrationRow:
    name, right = f"{family}-{truth:g}", is_right(estimate, truth)
    return CalibrationRow(name, family, truth, 0.0, estimate, estimate, estimate, 1.0, 0.1, right)


def made(*rows: CalibrationRow) -> Calibration:
    return Calibration("gaussian", 100, 3, 3, rows, bands_of(rows))


def test_the_band_ends_at_the_first_gap() -> None:
    calibration = made(
        row("gaussian", 0.0, 0.2),
        row("gaussian", 1.0, 1.2),
        row("gaussian", 2.0, 1.5),
        row("gaussian", 8.0, 8.7),  # right again, but beyond the gap
        row("student", 1.0, 1.1),
        row("student", 8.0, 8.7),
    )
    assert calibration.bands == {"gaussian": 1.0, "student": 8.0}
    assert calibration.band() == 1.0
    assert "gaussian to 1 bits" in calibration.says()
    assert made(row("gaussian", 0.0, 0.3)).band() is None
    assert "nowhere" in made(row("gaussian", 0.0, 0.3)).says()


def test_the_chart_shows_every_estimate_and_the_rule() -> None:
    rows = (row("gaussian", 1.0, 1.0), row("student", 2.0, 1.0), row("student", 8.0, 400.0))
    chart = made(*rows).charts()[0]
    lines = {mark.name: mark for mark in chart.panels[0].marks}
    assert list(lines["student"].y) == [1.0, 400.0]
    band = lines["right: within 0.25 bits or 10%"]
    assert band.high[0] == pytest.approx(0.25)
    assert band.high[-1] == pytest.approx(1.1 * band.x[-1])
    # A wild estimate runs out of the picture; the table has it.
    assert chart.panels[0].y_range[1] < 20
    assert any("400.000" in cells for table in made(*rows).tables() for cells in table.rows)


def test_the_gaussian_estimator_is_right_on_gaussians_and_not_on_clusters(tmp_path: Path) -> None:
    calibration = calibrate(
        "gaussian",
        n=600,
        d=10,
        bits=(0.0, 2.0),
        families=("gaussian", "clusters"),
        seeds=2,
        checks=False,
    )
    assert calibration.bands["gaussian"] == pytest.approx(2.0)
    assert calibration.bands["clusters"] is None
    folder = calibration.save(tmp_path / "run")
    assert Calibration.load(folder) == calibration
    assert sorted(path.name for path in folder.iterdir()) == [
        "calibration.parquet",
        "calibration.png",
        "report.html",
        "run.json",
        "settings.json",
    ]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "nowhere on clusters" in page
    assert "clusters-2" in calibration._repr_html_()


def test_the_truth_of_a_noisy_estimator_is_that_behind_its_noise() -> None:
    calibration = calibrate("smoothed", n=300, d=2, bits=(1.0,), seeds=1, noise=0.5, checks=False)
    by = {one.family: one for one in calibration.rows}
    assert calibration.noise == 0.5
    assert set(calibration.left_out) == {"student", "nonlinear"}
    assert 0.2 < by["gaussian"].truth < 0.9
    assert by["gaussian"].right
    assert by["deterministic"].right


def test_an_interrupted_calibration_is_resumed(tmp_path: Path) -> None:
    options = {"n": 100, "d": 2, "bits": (1.0,), "families": ("gaussian",), "checks": False}
    steps: list[int] = []

    def stop(done: int, total: int, what: str) -> None:
        steps.append(done)
        if len(steps) == 2:
            raise KeyboardInterrupt

    out = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        calibrate("gaussian", seeds=3, progress=stop, out=out, **options)
    cells = sorted((tmp_path / ".run.partial" / "work").glob("*.json"))
    assert len(cells) == 2
    # What is there is used as it is: a mark left in it comes back.
    cells[0].write_text(cells[0].read_text().replace('"flags": []', '"flags": ["marked"]'))
    resumed = calibrate("gaussian", seeds=3, out=out, **options)
    assert resumed.rows[0].flags[:1] == ("marked",)
    fresh = calibrate("gaussian", seeds=3, **options)
    same = [dataclasses.replace(one.rows[0], seconds=0.0, flags=()) for one in (resumed, fresh)]
    assert same[0] == same[1]
    assert not (out / "work").exists()


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="n must be 4 or greater"):
        calibrate("gaussian", n=2, d=2)
    with pytest.raises(InvalidInputError, match="seeds must be 1 or greater"):
        calibrate("gaussian", n=20, d=2, seeds=0)
    with pytest.raises(InvalidInputError, match="leave the checks out"):
        calibrate("gaussian", n=20, d=1)
    with pytest.raises(UnknownNameError, match="gaussian"):
        calibrate("gausian", n=20, d=2)


def test_both_sides_get_the_same_noise_whatever_their_widths() -> None:
    calibration = calibrate(
        "smoothed", n=60, d=3, d_y=2, bits=(1.0,), families=("gaussian",), seeds=1, checks=False
    )
    assert calibration.noise is not None
    assert calibration.rows[0].truth < 1.0


def test_consistency_of_a_good_estimator_and_of_a_bad_one() -> None:
    good = consistency(get_estimator("gaussian"), n=1000, d=4)
    assert [check.check for check in good if not check.holds] == []
    assert len(good) == 8
    # The plain value at few rows sees information in independence, and more with fewer rows.
    bad = consistency(get_estimator("gaussian", correction="none"), n=60, d=20)
    failed = {check.check for check in bad if not check.holds}
    assert {"independence", "permutation", "growth with n"} <= failed
    with pytest.raises(InvalidInputError, match="d must be 2 or greater"):
        consistency(get_estimator("gaussian"), n=100, d=1)
