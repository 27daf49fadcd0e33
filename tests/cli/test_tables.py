"""The terminal's tables: every number is there, at every width."""

from __future__ import annotations

import dataclasses

import pytest

from ed_interp.cli import tables
from ed_interp.cli.tables import print_curve
from ed_interp.probes.emergence.curve import FLAGS, BehaviourRow, EmergenceCurve, EmergenceRow

SOME, ALL = "saturated", "half-precision"


def curve(
    layers: int = 12, shots: int = 9, *, task: str = "country", twin: bool = True
) -> EmergenceCurve:
    rows = [
        EmergenceRow(
            layer=layer,
            shots=count,
            emergence=-30 + 3.21 * layer + 0.17 * count,
            ci_low=0.0,
            ci_high=0.0,
            macro=0.0,
            micro=0.0,
            limit=7.5 + count,
            macro_limit=9.0,
            untrained=-1.25 * count if twin else None,
            flags=(SOME, ALL) if count < 2 else (ALL,),
        )
        for layer in range(layers)
        for count in range(shots)
    ]
    behaviour = [
        BehaviourRow(
            shots=count,
            accuracy=count / 10,
            ci_low=0.0,
            ci_high=1.0,
            logprob=-31.0 - count,
            logprob_ci_low=0.0,
            logprob_ci_high=0.0,
            rank=100.0 + count,
            chance=0.125,
            gain=0.0,
            gain_ci_low=0.0,
            gain_ci_high=0.0,
            n=50,
        )
        for count in range(shots)
    ]
    return EmergenceCurve("gpt2", task, "smoothed", 0.93, tuple(rows), tuple(behaviour))


def numbers(text: str, label: str) -> list[float]:
    """The numbers of all lines that begin with ``label``, in order."""
    lines = [line.strip() for line in text.splitlines()]
    cells = [line.removeprefix(label).split() for line in lines if line.startswith(f"{label} ")]
    return [float(cell.rstrip("*")) for line in cells for cell in line]


@pytest.mark.parametrize("width", [30, 80, 140, 400])
def test_no_number_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    shown = curve()
    print_curve(shown)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for layer in shown.layers:
        expected = [round(row.emergence, 2) for row in shown.rows if row.layer == layer]
        assert numbers(text, str(layer)) == pytest.approx(expected)
    assert numbers(text, "limit") == [7.5 + count for count in range(9)]
    assert numbers(text, "untrained") == [-1.25 * count for count in range(9)]
    assert numbers(text, "accuracy") == [count / 10 for count in range(9)]
    assert numbers(text, "logprob, nats") == [-31.0 - count for count in range(9)]
    assert numbers(text, "median rank") == [100.0 + count for count in range(9)]


def test_the_newcomer_s_nine_shot_counts_stand_side_by_side(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = curve(layers=4)
    rows = tuple(dataclasses.replace(row, emergence=-1.55) for row in shown.rows)
    print_curve(dataclasses.replace(shown, rows=rows))
    text = capsys.readouterr().out
    assert text.count("block") == 2  # the head of the one table, and the legend
    assert text.count("accuracy") == 1


def test_flags_are_explained(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    print_curve(curve(layers=1, shots=3))
    text = capsys.readouterr().out
    # A mark stands in the cells it is about, and not where it would stand in all of them.
    line = next(line.split() for line in text.splitlines() if line.split()[:1] == ["0"])
    assert [cell.endswith("*") for cell in line[1:]] == [True, True, False]
    assert f"* {SOME}: {FLAGS[SOME]}" in text
    assert f"everywhere {ALL}: {FLAGS[ALL]}" in text
    assert "lost" not in text


def test_every_flag_has_a_mark_of_its_own() -> None:
    marks = [tables._mark(flag) for flag in FLAGS]
    assert len({*marks, "?"}) == len(FLAGS) + 1


def test_markup_in_a_name_is_only_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_curve(curve(layers=1, shots=1, task="my [/] [bold] data"))
    assert "my [/] [bold] data" in capsys.readouterr().out


def test_what_is_not_there_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    print_curve(EmergenceCurve("m", "t", "other", None, curve(layers=2, shots=2, twin=False).rows))
    text = capsys.readouterr().out
    assert "untrained" not in text
    assert "noise" not in text.splitlines()[0]
    assert "accuracy" not in text
