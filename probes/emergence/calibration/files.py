"""A calibration as a folder: ``run.json``, a Parquet table, a picture and a page.

``run.json`` holds every number and is what is read back.
"""

from __future__ import annotations

from pathlib import Path

from ed_interp.errors import InvalidInputError, RunFolderError
from ed_interp.probes.emergence.calibration.result import Calibration
from ed_interp.probes.emergence.files import read_run
from ed_interp.records import RunFolder, write_json, write_parquet, write_text

FORMAT = "ed-interp/calibration"
VERSION = 1


def save_calibration(calibration: Calibration, folder: Path, *, overwrite: bool = False) -> Path:
    """Write ``calibration`` to ``folder``, which appears complete or not at all; gives its path.

    Raises:
        RunFolderError: ``folder`` exists (and not ``overwrite``) or cannot be written.
    """
    with RunFolder.open(folder, calibration.settings, overwrite=overwrite, resumable=False) as run:
        write_calibration(calibration, run.folder)
    return run.path


def write_calibration(calibration: Calibration, folder: Path) -> None:
    """Write the files of ``calibration`` into ``folder``, which exists; each file atomically."""
    from ed_interp.figures.calibration import calibration_png
    from ed_interp.report_calibration import render_calibration

    data = {"format": FORMAT, "version": VERSION, **calibration.to_dict()}
    write_json(folder / "run.json", data)
    write_parquet(folder / "calibration.parquet", calibration.to_frame())
    calibration_png(calibration, folder / "calibration.png")
    write_text(folder / "report.html", render_calibration(calibration))


def load_calibration(folder: Path) -> Calibration:
    """Read back what :func:`save_calibration` wrote.

    Raises:
        RunFolderError: there is no complete calibration, it is damaged, or a newer version of
            ed-interp wrote it.
    """
    file, data = read_run(folder, FORMAT, VERSION, "a calibration")
    try:
        return Calibration.from_dict(data)
    except InvalidInputError as error:
        raise RunFolderError(f"{file} is damaged ({error}); make the run again") from error
