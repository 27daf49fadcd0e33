"""The charts of emergence show every number, stay legible, and take names for text."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ed_interp.charts.plotly import figure
from ed_interp.charts.spec import Band, Chart, Heat, Line, Panel, Rule
from ed_interp.charts.still import png, spread, svg
from ed_interp.charts.theme import MANY_BLOCKS, THEMES, mix, shortened, ticks
from ed_interp.probes.emergence.curve import EmergenceCurve
from ed_interp.probes.emergence.rows import BehaviourRow, EmergenceRow, ProfileRow


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


def drawn(curve: EmergenceCurve, name: str) -> Chart:
    """One chart of a curve."""
    return next(chart for chart in curve.charts() if chart.name == name)


def lines(chart: Chart) -> list[Line]:
    """The lines of all panels."""
    return [mark for panel in chart.panels for mark in panel.marks if isinstance(mark, Line)]


def numbers(chart: Chart) -> list[Any]:
    """Every y of every line."""
    return [value for line in lines(chart) for value in line.y]


SHAPES = [
    make_curve(),
    make_curve(MANY_BLOCKS + 1),
    make_curve(behaviour=False, untrained=False, profile=False),
    make_curve(1, (3,), flags=("saturated",)),
]


@pytest.mark.parametrize("curve", SHAPES)
def test_every_number_of_every_row_is_in_the_chart(curve: EmergenceCurve) -> None:
    chart = drawn(curve, "emergence")
    by_name = {line.name: line for line in lines(chart)}
    for row in curve.rows:
        line = by_name[f"block {row.layer}"]
        index = list(line.x).index(row.shots)
        assert line.y[index] == row.emergence
        assert line.low is not None
        assert line.high is not None
        assert (line.low[index], line.high[index]) == (row.ci_low, row.ci_high)
        assert row.limit in by_name["limit of noiseless networks"].y
        for value in (row.emergence, row.ci_low, row.ci_high, row.macro, row.micro, row.limit):
            assert f"{value:.3f}" in line.hover[index]
        if row.untrained is not None:
            assert f"untrained twin {row.untrained:.3f}" in line.hover[index]
    for answer in curve.behaviour:
        assert {answer.accuracy, answer.chance, answer.logprob} <= set(numbers(chart))
        hover = by_name["accuracy"].hover[list(by_name["accuracy"].x).index(answer.shots)]
        assert f"gain {answer.gain:+.3f}" in hover


@pytest.mark.parametrize("curve", SHAPES)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_chart_can_be_drawn_with_its_numbers(curve: EmergenceCurve, theme: str) -> None:
    for chart in curve.charts():
        made = figure(chart, theme)
        shown = [value for trace in made.data if trace.y is not None for value in trace.y]
        assert set(numbers(chart)) <= set(shown)
        assert made.layout.height > 300


def test_the_two_metrics_of_behaviour_have_an_axis_each() -> None:
    chart = drawn(make_curve(), "emergence")
    axis = {line.name: line.axis for line in lines(chart)}
    assert axis["accuracy"] == axis["chance"] == "left"
    assert axis["log-probability"] == "right"
    assert [panel.y for panel in chart.panels] == ["emergence E (bits)", "accuracy"]
    assert chart.panels[1].right == "log-probability (nats)"
    assert "accuracy" in chart.caption
    without = drawn(make_curve(behaviour=False), "emergence")
    assert len(without.panels) == 1
    assert "accuracy" not in without.caption


def test_many_blocks_have_a_colour_bar_instead_of_a_legend_entry_each() -> None:
    def entries(blocks: int) -> list[str]:
        chart = drawn(make_curve(blocks), "emergence")
        return [line.name for line in lines(chart) if line.legend]

    assert sum(name.startswith("block") for name in entries(MANY_BLOCKS)) == MANY_BLOCKS
    assert not any(name.startswith("block") for name in entries(48))
    assert drawn(make_curve(48), "emergence").depth == (0, 47)
    assert drawn(make_curve(MANY_BLOCKS), "emergence").depth is None
    ends = [line.colour for line in lines(drawn(make_curve(48), "terms")) if "block" in line.name]
    assert (min(ends), max(ends)) == (0.0, 1.0)


def test_the_twin_is_dotted_lines_or_a_band() -> None:
    few = make_curve(3)
    twins = [line for line in lines(drawn(few, "emergence")) if line.group == "untrained twin"]
    assert [line.dash for line in twins] == ["dot"] * 3
    assert [line.legend for line in twins] == [True, False, False]
    many = make_curve(MANY_BLOCKS + 1)
    bands = [m for m in drawn(many, "emergence").panels[0].marks if isinstance(m, Band)]
    for index, shots in enumerate(bands[0].x):
        values = [row.untrained for row in many.rows if row.shots == shots]
        assert (bands[0].low[index], bands[0].high[index]) == (min(values), max(values))
    none = drawn(make_curve(untrained=False), "emergence")
    assert "twin" not in str(none.panels)


def test_flagged_points_are_hollow_and_say_why() -> None:
    curve = make_curve(flags=("saturated", "of-the-future"))
    hollow = [
        (line.x[i], line.y[i], line.hover[i])
        for line in lines(drawn(curve, "emergence"))
        for i, flagged in enumerate(line.hollow)
        if flagged
    ]
    assert [(x, y) for x, y, _ in hollow] == [(curve.rows[-1].shots, curve.rows[-1].emergence)]
    text = " ".join(hollow[0][2].split())
    assert f"saturated: {curve.glossary()['saturated'].partition(' (')[0]}" in text
    assert "⚑ of-the-future" in text
    clean = lines(drawn(make_curve(), "emergence"))
    assert not any(any(line.hollow) for line in clean)
    assert not any("⚑" in text for line in clean for text in line.hover)


def test_heatmap_has_each_value_in_its_cell() -> None:
    def heat(curve: EmergenceCurve) -> Heat:
        mark = drawn(curve, "heatmap").panels[0].marks[0]
        assert isinstance(mark, Heat)
        return mark

    curve = make_curve(flags=("lost",))
    cells = heat(curve)
    for row in curve.rows:
        i, j = list(cells.y).index(str(row.layer)), list(cells.x).index(str(row.shots))
        assert cells.z[i][j] == row.emergence
        assert cells.text[i][j] == f"{row.emergence:.2f}" + ("*" if row.flags else "")
        assert ("lost" in cells.hover[i][j]) == bool(row.flags)
    below = dataclasses.replace(curve.rows[0], emergence=-1.0)
    signed = dataclasses.replace(curve, rows=(below, *curve.rows[1:]))
    above = dataclasses.replace(
        curve, rows=tuple(dataclasses.replace(r, emergence=abs(r.emergence)) for r in curve.rows)
    )
    assert heat(signed).centre == 0
    assert heat(above).centre is None
    ragged = dataclasses.replace(curve, rows=curve.rows[1:])
    assert heat(ragged).z[0][0] is None
    assert heat(ragged).text[0][0] == ""


def test_macro_and_micro_apart_and_profile_at_most_shots() -> None:
    curve = make_curve()
    shown = numbers(drawn(curve, "terms"))
    assert all({row.macro, row.micro, row.macro_limit} <= set(shown) for row in curve.rows)
    profile = drawn(curve, "profile")
    assert sorted(numbers(profile)) == sorted(row.emergence for row in curve.profile)
    rules = [mark for mark in profile.panels[0].marks if isinstance(mark, Rule)]
    assert [(rule.at, rule.vertical) for rule in rules] == [(curve.noise, True)]
    # Plotly places the note of a line on a logarithmic axis by its exponent.
    notes = [note.x for note in figure(profile).layout.annotations if "noise of" in note.text]
    assert notes == [pytest.approx(-0.2218, abs=1e-3)]


@pytest.mark.parametrize("name", ["emergence", "heatmap", "terms", "profile"])
def test_names_are_not_markup(name: str) -> None:
    title = figure(drawn(make_curve(model="<b>bold</b>"), name)).layout.title.text
    assert "&lt;b&gt;bold" in title
    assert "<b>bold" not in title


def test_a_curve_without_rows_can_be_drawn() -> None:
    empty = EmergenceCurve("m", "t", "smoothed", None, ())
    for chart in empty.charts():
        assert figure(chart).layout.height > 0
        assert png(chart).startswith(b"\x89PNG")
    assert "<svg" in svg(empty.charts()[0], label="nothing")


@pytest.mark.parametrize("curve", [*SHAPES, make_curve(model="$x_$ 模型 \n " * 30)])
def test_png_is_a_large_picture_with_something_on_it(curve: EmergenceCurve) -> None:
    with Image.open(io.BytesIO(png(drawn(curve, "emergence")))) as picture:
        assert picture.size[0] == 1600
        assert len(picture.convert("RGB").getcolors(10**6) or ()) > 50


def test_png_leaves_the_global_state_of_matplotlib_alone() -> None:
    import matplotlib as mpl
    from matplotlib import _pylab_helpers

    before = dict(mpl.rcParams)
    png(drawn(make_curve(), "emergence"))
    assert dict(mpl.rcParams) == before
    assert not _pylab_helpers.Gcf.figs


def test_svg_says_its_label() -> None:
    picture = svg(drawn(make_curve(), "emergence"), label='a "quoted" <label>')
    assert "&lt;label&gt;" in picture
    assert "<label>" not in picture
    assert picture.count("<path") > 10


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, two: str) -> float:
    """The contrast ratio of the Web Content Accessibility Guidelines, from 1 to 21."""
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [THEMES["light"], THEMES["dark"]])
def test_colours_can_be_told_from_their_background(theme: Any) -> None:
    scale = [mix(theme.depth, i / 47) for i in range(48)]
    assert min(contrast(colour, theme.background) for colour in scale) >= 3
    for text in (theme.text, theme.muted, theme.accent, theme.caution):
        assert contrast(text, theme.background) >= 4.5
    for cell in (mix(theme.heat, i / 20) for i in range(21)):
        assert contrast(theme.text, cell) >= 4.5
    lightness = [luminance(colour) for colour in scale]
    assert lightness == sorted(lightness)


def test_colours_of_small_pictures_suit_either_background() -> None:
    for i in range(48):
        for theme in ("light", "dark"):
            colour = mix(THEMES["either"].depth, i / 47)
            assert contrast(colour, THEMES[theme].background) >= 3


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


def test_logarithmic_ticks_are_plain_numbers() -> None:
    line = Line(name="cost", x=[0, 1, 2], y=[0.4, None, 30.0])
    panel = Panel(marks=[line, Rule(at=1.1, name="budget")], log_y=True)
    drawn = figure(Chart(name="c", title="Cost", caption="", panels=[panel]))
    axis = drawn.layout.yaxis
    assert (axis.type, axis.tickformat, axis.dtick) == ("log", ",~r", None)
    # Its name stands at the line, whose place a note takes as an exponent.
    (note,) = [note for note in drawn.layout.annotations if note.text == "budget"]
    assert note.y == pytest.approx(math.log10(1.1))
