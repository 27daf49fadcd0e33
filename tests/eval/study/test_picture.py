"""The picture of the study, from the committed records."""

from __future__ import annotations

from pathlib import Path

import pytest

from ed_interp.errors import RunFolderError
from ed_interp.eval.study.__main__ import draw_studies, main

RECORDS = Path(__file__).parents[3] / "eval" / "study_records"


@pytest.mark.skipif(not RECORDS.is_dir(), reason="the records lie in a checkout, not in the wheel")
def test_it_is_drawn_from_the_records(tmp_path: Path) -> None:
    path = tmp_path / "study.png"
    # All runs are there, so nothing is trained.
    assert main(["--out", str(RECORDS), "--picture", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 30_000


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="run folder"):
        draw_studies([tmp_path], tmp_path / "study.png")
