"""How wrong an estimator is at the user's own number of rows and width."""

from ed_interp.probes.emergence.calibration.calibrate import calibrate
from ed_interp.probes.emergence.calibration.consistency import CheckRow, consistency
from ed_interp.probes.emergence.calibration.result import Calibration, CalibrationRow

__all__ = ["Calibration", "CalibrationRow", "CheckRow", "calibrate", "consistency"]
