"""``ed-interp calibrate``: how wrong an estimator is at one number of rows and one width."""

from __future__ import annotations

from ed_interp.cli.app import app
from ed_interp.cli.command import RUN_FOLDER, Output, command
from ed_interp.probes.emergence.options import CalibrationOptions


@command(app, "calibrate", CalibrationOptions, out=RUN_FOLDER)
def calibrate(options: CalibrationOptions, output: Output) -> None:
    """Test an estimator of mutual information at your number of rows and width.

    Draws populations of known information (Gaussian, Student, nonlinear maps, mixtures, clusters,
    repeated rows), runs the estimator, and prints estimate against truth, the range in which it is
    right (median within 0.25 bits or 10%), and self-consistency checks.

    Writes run.json, a Parquet table, a PNG and one self-contained HTML page to a run folder.

    - ed-interp calibrate --estimator gaussian --n 2000 --d 768
    - ed-interp calibrate --estimator ksg --d 8 --bits 0,1,2,4 --seeds 5 --json
    """
    from ed_interp.probes.emergence.calibration.calibrate import calibrate

    path = output.folder(f"calibrate-{options.estimator}", options)
    output.show(calibrate(options=options, **output.where(path)), path)
