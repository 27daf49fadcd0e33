"""Populations of known mutual information: the suite, and those at the user's own width."""

from ed_interp.probes.emergence.truth.known import KnownInformation
from ed_interp.probes.emergence.truth.suite import ground_truth_tasks
from ed_interp.probes.emergence.truth.width import DEFAULT_BITS, FAMILIES, calibration_tasks

__all__ = [
    "DEFAULT_BITS",
    "FAMILIES",
    "KnownInformation",
    "calibration_tasks",
    "ground_truth_tasks",
]
