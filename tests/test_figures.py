"""The figures show every number, stay legible, and never depend on luck with names."""

from __future__ import annotations

import dataclasses
import itertools
import random
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ed_interp import figures
from ed_interp.figures.shapes import flag_meanings
from ed_interp.figures.still import spread
from ed_interp.figures.style import EITHER, MANY_BLOCKS, THEMES, mix, shortened, ticks
from ed_interp.probes.emergence.curve import (
    FLAGS,
    BehaviourRow,
    EmergenceCurve,
    EmergenceRow,
    ProfileRow,
)


def make_curve(
    blocks: int = 3,
    shots: tuple[int, ...] = (0, 1, 2, 4),
    *,
    behaviour: bool = True,
    profile: bool = True,
    untrained: bool = True,
    flags: tuple[str, ...] = (),
    model: str = "tiny",
    **settings: Any,
) -> EmergenceCurve:
    """A curve of arbitrary, distinct numbers; the last block at the most shots has ``flags``."""
    draw = random.Random(blocks)
    rows = []
    for layer, count in itertools.product(range(blocks), shots):
        e = draw.uniform(-1, 5)
        rows.append(
            EmergenceRow(
                layer=layer,
                shots=count,
                emergence=e,
                ci_low=e - draw.uniform(0.1, 0.2),
                ci_high=e + draw.uniform(0.1, 0.2),
                macro=e + 1.5,
                micro=1.5,
                limit=6.0 + count / 10,
                macro_limit=8.0 + count / 10,
                untrained=draw.uniform(0, 1) if untrained else None,
                flags=flags if (layer, count) == (blocks - 1, shots[-1]) else (),
            )
        )
    answers = [
        BehaviourRow(
            shots=count,
            accuracy=(a := draw.uniform(0.2, 0.8)),
            ci_low=a - 0.1,
            ci_high=a + 0.1,
            logprob=(p := draw.uniform(-3, -1)),
            logprob_ci_low=p - 0.3,
            logprob_ci_high=p + 0.3,
            rank=2.0,
            chance=0.125,
            gain=a - 0.3,
            gain_ci_low=a - 0.4,
            gain_ci_high=a - 0.2,
            n=1234,
        )
        for count in shots
    ]
    scales = [
        ProfileRow(layer, shots[-1], beta, 2 * beta, draw.uniform(0, 4), 2.0, 1.0)
        for layer in range(blocks)
        for beta in (0.1, 0.3, 1.0)
    ]
    return EmergenceCurve(
        model=model,
        task="country-capital",
        estimator="smoothed",
        noise=0.6,
        rows=tuple(rows),
        behaviour=tuple(answers) if behaviour else (),
        profile=tuple(scales) if profile else (),
        settings=settings,
    )


def numbers(figure: Any) -> list[float]:
    found: list[float] = []
    for trace in figure.data:
        for value in trace.y if trace.y is not None else ():
            if isinstance(value, int | float):
                found.append(value)
    return found


SHAPES = [
    make_curve(),
    make_curve(MANY_BLOCKS + 1),
    make_curve(behaviour=False, untrained=False, profile=False),
    make_curve(1, (3,), flags=("saturated",)),
]


@pytest.mark.parametrize("curve", SHAPES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_number_of_every_row_is_in_the_figure(curve: EmergenceCurve, theme: Any) -> None:
    figure = figures.emergence_figure(curve, theme=theme)
    shown = numbers(figure)
    bars = [t.error_y for t in figure.data if t.error_y.array is not None]
    for row in curve.rows:
        assert row.emergence in shown
        assert row.limit in shown
        if len(curve.shots) > 1:
            assert row.ci_low in shown
            assert row.ci_high in shown
        else:
            assert any(bar.array[0] == row.ci_high - row.emergence for bar in bars)
        hover = next(
            text
            for trace in figure.data
            for text in trace.hovertext or ()
            if text.startswith(f"<b>block {row.layer}, {row.shots} shot")
        )
        for value in (row.emergence, row.ci_low, row.ci_high, row.macro, row.micro, row.limit):
            assert f"{value:.3f}" in hover
        if row.untrained is not None:
            assert f"{row.untrained:.3f}" in hover
    for answer in curve.behaviour:
        assert {answer.accuracy, answer.chance, answer.logprob} <= set(shown)


def test_the_two_metrics_of_behaviour_have_an_axis_each() -> None:
    figure = figures.emergence_figure(make_curve())
    axis = {trace.name: trace.yaxis for trace in figure.data}
    assert axis["accuracy"] == axis["chance"] != axis["log-probability"]
    assert figure.layout.yaxis.title.text == "emergence E (bits)"
    without = figures.emergence_figure(make_curve(behaviour=False))
    assert "accuracy" not in {trace.name for trace in without.data}


def test_many_blocks_have_a_colour_bar_instead_of_a_legend_entry_each() -> None:
    def entries(blocks: int) -> list[str]:
        figure = figures.emergence_figure(make_curve(blocks))
        return [t.name for t in figure.data if t.showlegend is not False and t.name]

    assert sum(name.startswith("block") for name in entries(MANY_BLOCKS)) == MANY_BLOCKS
    assert not any(name.startswith("block") for name in entries(48))
    bar = figures.emergence_figure(make_curve(48)).layout.coloraxis
    assert (bar.cmin, bar.cmax) == (0, 47)


def test_flagged_points_are_hollow_and_say_why() -> None:
    curve = make_curve(flags=("saturated", "of-the-future"))
    figure = figures.emergence_figure(curve)
    hollow = [
        (trace.x[0], trace.y[0])
        for trace in figure.data
        if trace.mode == "markers" and trace.x[0] is not None
    ]
    assert hollow == [(curve.rows[-1].shots, curve.rows[-1].emergence)]
    hover = [text for trace in figure.data for text in trace.hovertext or () if "⚑" in text]
    assert len(hover) == 1
    assert "macro is within 5%" in hover[0]
    assert "of-the-future" in hover[0]
    clean = figures.emergence_figure(make_curve())
    assert not any(trace.mode == "markers" for trace in clean.data)


def test_meanings_of_flags_come_from_beside_the_curve() -> None:
    assert flag_meanings(make_curve()) is FLAGS

    class Derived(EmergenceCurve):
        """A curve of a module that tells nothing of flags itself."""

    Derived.__module__ = "nowhere"
    assert flag_meanings(Derived("m", "t", "e", None, ())) is FLAGS
    told = {field.name: getattr(make_curve(), field.name) for field in dataclasses.fields(Derived)}
    foreign = types.SimpleNamespace(**told, layers=[0], shots=[0])
    assert flag_meanings(foreign) == {}


def test_heatmap_has_each_value_in_its_cell() -> None:
    curve = make_curve(flags=("lost",))
    heat = figures.emergence_heatmap(curve).data[0]
    for row in curve.rows:
        i, j = list(heat.y).index(row.layer), list(heat.x).index(str(row.shots))
        assert heat.z[i][j] == row.emergence
        assert heat.text[i][j] == f"{row.emergence:.2f}" + ("*" if row.flags else "")
    below = dataclasses.replace(curve.rows[0], emergence=-1.0)
    signed = dataclasses.replace(curve, rows=(below, *curve.rows[1:]))
    above = dataclasses.replace(
        curve, rows=tuple(dataclasses.replace(r, emergence=abs(r.emergence)) for r in curve.rows)
    )
    assert figures.emergence_heatmap(signed).data[0].zmid == 0
    assert figures.emergence_heatmap(above).data[0].zmid is None
    ragged = dataclasses.replace(curve, rows=curve.rows[1:])
    assert figures.emergence_heatmap(ragged).data[0].z[0][0] is None


def test_macro_and_micro_apart_and_profile_at_most_shots() -> None:
    curve = make_curve()
    shown = numbers(figures.macro_micro_figure(curve))
    assert all({row.macro, row.micro, row.macro_limit} <= set(shown) for row in curve.rows)
    profile = figures.profile_figure(curve)
    assert sorted(numbers(profile)) == sorted(row.emergence for row in curve.profile)
    assert profile.layout.shapes[0].x0 == curve.noise


@pytest.mark.parametrize("draw", ["emergence_figure", "emergence_heatmap", "macro_micro_figure"])
def test_names_are_not_markup(draw: str) -> None:
    curve = make_curve(model="<b>bold</b>")
    title = getattr(figures, draw)(curve).layout.title.text
    assert "&lt;b&gt;bold" in title
    assert "<b>bold" not in title


def test_a_curve_without_rows_can_be_drawn(tmp_path: Path) -> None:
    empty = EmergenceCurve("m", "t", "smoothed", None, ())
    for draw in ("emergence_figure", "emergence_heatmap", "macro_micro_figure", "profile_figure"):
        getattr(figures, draw)(empty)
    assert figures.emergence_png(empty, tmp_path / "a.png").exists()
    assert "<svg" in figures.emergence_svg(empty, label="nothing")


@pytest.mark.parametrize("curve", [*SHAPES, make_curve(model="$x_$ 模型 \n " * 30)])
def test_png_is_a_large_picture_with_something_on_it(curve: EmergenceCurve, tmp_path: Path) -> None:
    with Image.open(figures.emergence_png(curve, tmp_path / "a.png")) as picture:
        assert picture.size == (1600, 1000)
        assert len(picture.convert("RGB").getcolors(10**6) or ()) > 50
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_png_leaves_the_global_state_of_matplotlib_alone(tmp_path: Path) -> None:
    import matplotlib as mpl
    from matplotlib import _pylab_helpers

    before = dict(mpl.rcParams)
    figures.emergence_png(make_curve(), tmp_path / "a.png")
    assert dict(mpl.rcParams) == before
    assert not _pylab_helpers.Gcf.figs


def test_svg_has_a_point_per_row_and_says_its_label() -> None:
    curve = make_curve()
    svg = figures.emergence_svg(curve, label='a "quoted" <label>')
    assert svg.count("<polyline") == 3
    assert svg.count(",") >= len(curve.rows)
    assert 'aria-label="a &quot;quoted&quot; &lt;label&gt;"' in svg


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, two: str) -> float:
    """The contrast ratio of the Web Content Accessibility Guidelines, from 1 to 21."""
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", THEMES.values(), ids=list(THEMES))
def test_colours_can_be_told_from_their_background(theme: Any) -> None:
    scale = [mix(theme.depth, i / 47) for i in range(48)]
    assert min(contrast(colour, theme.background) for colour in scale) >= 3
    for text in (theme.text, theme.muted, theme.accuracy, theme.logprob):
        assert contrast(text, theme.background) >= 4.5
    for cell in (mix(theme.heat, i / 20) for i in range(21)):
        assert contrast(theme.text, cell) >= 4.5
    lightness = [luminance(colour) for colour in scale]
    assert lightness == sorted(lightness)


def test_colours_of_small_pictures_suit_either_background() -> None:
    for i in range(48):
        for theme in THEMES.values():
            assert contrast(mix(EITHER, i / 47), theme.background) >= 3


@given(st.lists(st.integers(0, 2000), min_size=1), st.integers(2, 30))
def test_ticks_are_counts_that_were_measured_and_never_touch(values: list[int], most: int) -> None:
    kept = ticks(values, at_most=most)
    assert set(kept) <= set(values)
    assert kept == sorted(set(kept))
    assert {min(values), max(values)} == {kept[0], kept[-1]}
    apart = (max(values) - min(values)) / most
    assert all(b - a >= apart for a, b in itertools.pairwise(kept))


def test_few_shot_counts_are_all_labelled() -> None:
    assert ticks(range(17)) == list(range(17))


@given(st.lists(st.floats(-5, 5), max_size=12), st.floats(0.01, 1))
def test_labels_are_moved_apart_in_order_around_their_places(
    places: list[float], gap: float
) -> None:
    moved = spread(places, gap)
    order = sorted(range(len(places)), key=lambda i: places[i])
    for i, j in itertools.pairwise(order):
        assert moved[j] - moved[i] >= gap - 1e-9
    assert sum(moved) == pytest.approx(sum(places), abs=1e-6)
    if all(places[j] - places[i] > gap + 1e-9 for i, j in itertools.pairwise(order)):
        assert moved == pytest.approx(places)


@given(st.text(), st.integers(5, 90))
def test_shortened_fits_in_one_line(text: str, length: int) -> None:
    short = shortened(text, length)
    assert len(short) <= length
    assert len(short.splitlines()) <= 1
