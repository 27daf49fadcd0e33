"""How wrong an estimator is at the user's own number of rows and width."""

from ed_interp.probes.emergence.calibration.calibrate import calibrate
from ed_interp.probes.emergence.calibration.consistency import consistency
from ed_interp.probes.emergence.calibration.result import Calibration
from ed_interp.probes.emergence.calibration.rows import CalibrationRow, CheckRow

__all__ = ["Calibration", "CalibrationRow", "CheckRow", "calibrate", "consistency"]
