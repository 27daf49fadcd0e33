"""``ed-interp calibrate``, and ``emergence`` with ``--calibrate`` and ``--compare-estimators``."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ed_interp.cli import app
from ed_interp.errors import InvalidInputError, UnknownNameError
from ed_interp.probes.emergence.calibration import Calibration
from ed_interp.probes.emergence.curve import EmergenceCurve

SMALL = ["--n", "120", "--d", "3", "--bits", "0,1", "--seeds", "1", "--quiet"]
RUN = ["emergence", "--prompts", "40", "--shots", "0,1", "--no-untrained", "--no-behaviour", "-q"]


def test_prints_a_table_and_writes_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["calibrate", "--estimator", "gaussian", *SMALL, "--out", str(out)]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    assert "gaussian-1" in done.stdout
    assert "gaussian is right on" in done.stdout
    assert "independence" in done.stdout
    found = Calibration.load(out)
    assert (found.n, found.d_x) == (120, 3)
    assert found.checks
    assert not (out / "cells").exists()


def test_json_is_one_object(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["calibrate", "--estimator", "ksg", "--no-checks", "--families", "gaussian", *SMALL]
    done = CliRunner().invoke(app, [*command, "--json", "--out", str(out)], catch_exceptions=False)
    data = json.loads(done.stdout)
    assert data["estimator"] == "ksg"
    assert [row["population"] for row in data["rows"]] == ["gaussian-0", "gaussian-1"]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["--estimator", "gausian"], UnknownNameError, "gaussian"),
        (["--estimator", "gaussian", "--noise", "1"], InvalidInputError, "noise"),
        (["--bits", "1,two"], InvalidInputError, "--bits must be a finite number, got 'two'"),
        (["--estimator", "ksg", "--set", "neighbors=5"], InvalidInputError, "neighbours"),
        (["--estimator", "ksg", "--set", "neighbours"], InvalidInputError, "NAME=VALUE"),
        (["--d", "1"], InvalidInputError, "leave the checks out"),
        (["--families", "gauss", "--estimator", "ksg"], UnknownNameError, "family"),
    ],
)
def test_what_is_wrong_is_one_line(
    arguments: list[str], kind: type[Exception], message: str, tmp_path: Path
) -> None:
    command = ["calibrate", *SMALL, *arguments, "--out", str(tmp_path / "run")]
    with pytest.raises(kind, match=message):
        CliRunner().invoke(app, command, catch_exceptions=False)
    assert not (tmp_path / "run").exists()


def test_a_run_carries_its_calibration_and_other_estimators(tmp_path: Path) -> None:
    out = tmp_path / "run"
    extra = ["--estimator", "gaussian", "--compare-estimators", "gaussian,ksg", "--calibrate"]
    done = CliRunner().invoke(app, [*RUN, *extra, "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0
    curve = EmergenceCurve.load(out)
    assert curve.calibration is not None
    assert (curve.calibration.estimator, curve.calibration.n) == ("gaussian", 40)
    assert curve.calibration.d_x == 128
    assert curve.comparison is not None
    assert curve.comparison.estimators == ["gaussian", "ksg"]
    own = [row.emergence for row in sorted(curve.rows, key=lambda row: (row.layer, row.shots))]
    assert [row.emergence for row in curve.comparison.of("gaussian")] == own
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Estimators side by side" in page
    assert "Estimate against truth" in page
    assert (out / "calibration.png").exists()
    assert "Spearman" in done.stdout
    with pytest.raises(UnknownNameError, match="gaussian"):
        CliRunner().invoke(app, [*RUN, "--compare-estimators", "gausian"], catch_exceptions=False)
