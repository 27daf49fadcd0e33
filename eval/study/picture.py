"""The picture of several studies, one panel each.

    python -m ed_interp.eval.study.picture eval/study_records --out eval/pictures/study.png

Every mark is read from the records. Cost: two seconds, most of it the import of Matplotlib.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ed_interp.charts.still import png
from ed_interp.errors import InvalidInputError
from ed_interp.eval.study.charts import learned_chart
from ed_interp.eval.study.result import Study
from ed_interp.records import write_bytes


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the records of a folder; returns the exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("records", type=Path, help="folder of the study's run folders")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    options = parser.parse_args(arguments)
    draw_studies(options.records, options.out)
    return 0


def draw_studies(records: Path, path: Path) -> Path:
    """Draw every study in ``records`` to ``path``, atomically.

    Raises:
        RunFolderError: a folder that holds no study, or ``path`` cannot be written.
        InvalidInputError: no folder in ``records``.
    """
    folders = sorted(file.parent for file in records.glob("*/run.json"))
    if not folders:
        raise InvalidInputError(
            f"{records} must hold run folders of studies, got none; "
            f"python -m ed_interp.eval.study --out {records} makes them"
        )
    studies = {folder.name: Study.load(folder).trials for folder in folders}
    return write_bytes(path, png(learned_chart(studies, "Learned and forgotten", wide=True)))


if __name__ == "__main__":
    raise SystemExit(main())
