"""The picture of the study, from the committed records."""

from __future__ import annotations

from pathlib import Path

import pytest

from ed_interp.errors import InvalidInputError
from ed_interp.eval.study.figure import main, study_figure

RECORDS = Path(__file__).parents[3] / "eval" / "study_records"


@pytest.mark.skipif(not RECORDS.is_dir(), reason="the records lie in a checkout, not in the wheel")
def test_it_is_drawn_from_the_records(tmp_path: Path) -> None:
    path = tmp_path / "study.png"
    assert main([str(RECORDS), "--out", str(path)]) == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 30_000


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="holds no study"):
        study_figure(tmp_path, tmp_path / "study.png")
