"""A curve in the terminal: every number is there, at every width."""

from __future__ import annotations

import dataclasses

import pytest

from ed_interp.cli.show import print_result
from ed_interp.probes.emergence.curve import EmergenceCurve
from ed_interp.probes.emergence.rows import BehaviourRow, EmergenceRow

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
    # A wrapped sentence may begin with the label too.
    tables = [line for line in cells if line and line[0].lstrip("-")[:1].isdigit()]
    return [float(cell.rstrip("a")) for line in tables for cell in line]


@pytest.mark.parametrize("width", [30, 80, 140, 400])
def test_no_number_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    shown = curve()
    print_result(shown)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for layer in shown.layers:
        expected = [round(row.emergence, 2) for row in shown.rows if row.layer == layer]
        assert numbers(text, f"block {layer}") == pytest.approx(expected)
    assert numbers(text, "limit") == [7.5 + count for count in range(9)]
    assert numbers(text, "twin") == [-1.25 * count for count in range(9)]
    assert numbers(text, "accuracy") == [count / 10 for count in range(9)]
    assert numbers(text, "logprob") == [-31.0 - count for count in range(9)]
    assert numbers(text, "rank") == [100.0 + count for count in range(9)]


def test_the_newcomer_s_nine_shot_counts_stand_side_by_side(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = curve(layers=4)
    rows = tuple(dataclasses.replace(row, emergence=-1.55) for row in shown.rows)
    print_result(dataclasses.replace(shown, rows=rows))
    text = capsys.readouterr().out
    assert text.count("block 0") == 1
    assert text.count("\naccuracy") == 1


def test_flags_are_explained(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    shown = curve(layers=1, shots=3)
    print_result(shown)
    text = capsys.readouterr().out
    # A mark stands in the cells it is about, and not where it would stand in all of them.
    line = next(line.split() for line in text.splitlines() if line.startswith("block 0 "))
    assert [cell.endswith("a") for cell in line[2:]] == [True, True, False]
    assert f"a: {SOME}" in text
    assert f"everywhere: {ALL}" in text
    meanings = shown.glossary()
    assert list(meanings) == [SOME, ALL]
    for name, meaning in meanings.items():
        assert f"{name}: {meaning}" in text
    assert "(2 of 3 values)" in meanings[SOME]


def test_every_flag_has_a_mark_of_its_own() -> None:
    names = [f"flag-{number}" for number in range(30)]
    row = dataclasses.replace(curve(1, 1).rows[0], flags=tuple(names))
    other = dataclasses.replace(row, shots=1, flags=())
    grid = EmergenceCurve("m", "t", "e", None, (row, other)).tables()[0]
    marks = dict(part.split(": ")[::-1] for part in grid.notes[2].split(", "))
    assert list(marks) == names
    assert len(set(marks.values())) == len(names)


def test_markup_in_a_name_is_only_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(curve(layers=1, shots=1, task="my [/] [bold] data"))
    assert "my [/] [bold] data" in capsys.readouterr().out


def test_what_was_not_run_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    rows = curve(layers=2, shots=2, twin=False).rows
    print_result(EmergenceCurve("m", "t", "other", None, rows))
    text = capsys.readouterr().out
    assert "twin" not in text
    assert "noise 0" not in text
    assert "accuracy" not in text
