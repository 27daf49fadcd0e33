"""The page of a curve says what the numbers say, loads nothing, and takes names for text."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser

import pytest

from ed_interp.probes.emergence.curve import EmergenceCurve
from ed_interp.probes.emergence.rows import BehaviourRow, EmergenceRow, ProfileRow
from ed_interp.probes.emergence.words import spans
from ed_interp.report import flattened, render


def row(layer: int, shots: int, e: float, *flags: str, half: float = 0.1) -> EmergenceRow:
    return EmergenceRow(
        layer, shots, e, e - half, e + half, e + 1.234, 1.234, 6.5, 8.25, 0.0625, flags
    )


def answer(shots: int, accuracy: float, gain: float) -> BehaviourRow:
    return BehaviourRow(
        shots,
        accuracy,
        accuracy - 0.05,
        accuracy + 0.05,
        -1.5,
        -1.75,
        -1.25,
        2.0,
        0.12,
        gain,
        gain - 0.1,
        gain + 0.1,
        1500,
    )


CURVE = EmergenceCurve(
    model="tiny",
    task="country-capital",
    estimator="smoothed",
    noise=0.625,
    rows=(
        row(0, 0, 0.017),
        row(0, 8, 0.023, "lost"),
        row(1, 0, 2.111),
        row(1, 8, 4.333, "few-rows"),
    ),
    behaviour=(answer(0, 0.1, 0.0), answer(8, 0.9, 0.8)),
    profile=(ProfileRow(1, 8, 0.5, 0.625, 4.333, 5.567, 1.234),),
    settings={"command": "ed-interp emergence --seed 7", "beta": 0.5, "model": {"sha": "abc123"}},
)
HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">'


class Page(HTMLParser):
    """What a browser would see of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "line", "circle", "polyline", "img", "br"}:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            attrs, before = self.scripts[-1]
            self.scripts[-1] = (attrs, before + data)
        elif self.open and self.open[-1] != "style":
            self.text += data


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render(CURVE))


def test_every_element_is_closed_and_every_number_is_in_the_tables(page: Page) -> None:
    assert page.open == []
    for item in CURVE.rows:
        for value in (item.emergence, item.ci_low, item.ci_high, item.macro, item.micro):
            assert f"{value:.3f}" in page.text
    for number in ("0.062", "8.250", "6.500", "0.900", "+0.800", "-1.750", "1,500", "0.6250"):
        assert number in page.text


def test_figures_are_embedded_for_both_themes_with_the_rows(page: Page) -> None:
    figures = {str(attrs["id"]): json.loads(text) for attrs, text in page.scripts if "id" in attrs}
    names = ("emergence", "heatmap", "terms", "profile")
    assert set(figures) == {f"{name}-{theme}" for name in names for theme in ("light", "dark")}
    for theme in ("light", "dark"):
        values = [trace.get("y", []) for trace in figures[f"emergence-{theme}"]["data"]]
        assert [2.111, 4.333] in values
    backgrounds = {figures[f"emergence-{t}"]["layout"]["paper_bgcolor"] for t in ("light", "dark")}
    assert len(backgrounds) == 2
    divs = {attrs.get("id") for tag, attrs in page.tags if tag == "div"}
    assert set(names) <= divs


def test_nothing_is_fetched(page: Page) -> None:
    for tag, attrs in page.tags:
        assert tag not in {"link", "iframe", "object", "embed", "base", "img"}
        assert "src" not in attrs
        for name in ("href", "action", "data", "poster", "style"):
            assert "//" not in (attrs.get(name) or "")
    own = re.sub(r"<script>.{1000000,}?</script>", "", render(CURVE), flags=re.S)
    assert len(own) < 500_000
    assert not re.search(r"https?://(?!www\.w3\.org/(2000/svg|1999/xlink))", own)
    assert not re.search(r"url\((?!#)", own)  # only to parts of the picture itself
    assert "@import" not in own
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "http" not in policy
    libraries = [text for attrs, text in page.scripts if "plotly.js v" in text]
    assert len(libraries) == 1


def test_names_and_settings_are_text() -> None:
    curve = dataclasses.replace(
        CURVE,
        model=HOSTILE,
        task=HOSTILE,
        estimator=HOSTILE,
        unit=HOSTILE,
        rows=(*CURVE.rows, row(2, 8, 1.0, HOSTILE)),
        settings={"command": HOSTILE, HOSTILE: {HOSTILE: [HOSTILE]}},
    )
    clean = render(CURVE)
    for made, usual in (
        (render(curve), clean),
        (curve._repr_html_(), CURVE._repr_html_()),
    ):
        seen = Page(made)
        assert seen.open == []
        assert len(seen.scripts) == len(Page(usual).scripts)
        assert not any(tag == "img" or "onerror" in attrs for tag, attrs in seen.tags)
        assert HOSTILE in seen.text


def test_the_page_can_be_used_by_keyboard_and_by_ear(page: Page) -> None:
    first = page.tags[0]
    assert first == ("html", {"lang": "en"})
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in page.tags:
        target = attrs.get("href") or ""
        if tag == "a":
            assert target.startswith("#")
            assert target[1:] in ids
        if attrs.get("class") == "table":
            assert attrs["tabindex"] == "0"
            assert attrs["aria-labelledby"] in ids
        if tag == "th":
            assert attrs["scope"] in {"row", "col"}
        if tag == "svg":
            assert attrs["role"] == "img"
            assert attrs["aria-label"] == CURVE.headline()
    assert sum(tag == "h1" for tag, _ in page.tags) == 1
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert links[0] == "#main"


def test_only_flags_that_occur_are_explained(page: Page) -> None:
    assert list(CURVE.glossary()) == ["lost", "few-rows"]
    for meaning in CURVE.glossary().values():
        assert meaning in page.text
        assert "(1 of 4 values)" in meaning
    assert "saturated" not in page.text
    assert CURVE.cautions() == "2 of 4 values carry a flag (lost, few-rows)."
    clean = dataclasses.replace(CURVE, rows=(row(0, 0, 1.0),))
    assert clean.cautions() == ""
    assert "#glossary" not in render(clean)


def test_how_to_repeat_it_is_on_the_page(page: Page) -> None:
    assert "ed-interp emergence --seed 7" in page.text
    assert "abc123" in page.text
    assert page.text.index("beta") < page.text.index("model.sha")
    assert "by the smoothed estimator with noise of scale 0.625" in page.text
    assert "3.99" in Page(render(CURVE, {"python": "3.99"})).text


def test_headline_is_the_numbers() -> None:
    assert CURVE.headline() == (
        "Block 1: E rises from 2.11 bits at 0 shots to 4.33 bits at 8 shots; the untrained twin "
        "has 0.06; accuracy rises from 0.10 to 0.90 (chance 0.12)."
    )


def changed(e: float, accuracy: float, gain: float) -> EmergenceCurve:
    return dataclasses.replace(
        CURVE,
        rows=(row(0, 0, 2.0), row(0, 8, e)),
        behaviour=(answer(0, 0.5, 0.0), answer(8, accuracy, gain)),
    )


@pytest.mark.parametrize(
    ("curve", "parts"),
    [
        (changed(1.0, 0.2, -0.3), ["E falls from 2.00", "accuracy falls from 0.50 to 0.20"]),
        (
            changed(2.15, 0.55, 0.05),
            ["E does not clearly change: from 2.00", "accuracy does not clearly change: from 0.50"],
        ),
        (changed(2.25, 0.7, 0.2), ["E rises", "accuracy rises"]),
    ],
)
def test_headline_claims_a_change_only_where_intervals_do(
    curve: EmergenceCurve, parts: list[str]
) -> None:
    for part in parts:
        assert part in curve.headline()


def test_headline_of_little_data() -> None:
    lone = dataclasses.replace(CURVE, rows=(row(2, 1, 3.0),), behaviour=(answer(1, 0.5, 0.0),))
    assert lone.headline().startswith("Block 2: E is 3.00 bits at 1 shot;")
    assert "accuracy is 0.50 (chance 0.12)" in lone.headline()
    bare = dataclasses.replace(
        CURVE, rows=(dataclasses.replace(row(2, 1, 3.0), untrained=None),), behaviour=()
    )
    assert bare.headline() == "Block 2: E is 3.00 bits at 1 shot."
    empty = EmergenceCurve("m", "t", "e", None, ())
    assert empty.headline() == "No row was measured."
    assert Page(render(empty)).open == []
    assert Page(empty._repr_html_()).open == []


def test_summary_is_short_has_the_table_and_no_script() -> None:
    summary = CURVE._repr_html_()
    page = Page(summary)
    assert page.open == []
    assert page.scripts == []
    assert len(summary) < 20_000
    assert not re.search(r"https?://(?!www\.w3\.org/(2000/svg|1999/xlink))", summary)
    for item in CURVE.rows:
        assert f"{item.emergence:.2f}" in page.text
    assert CURVE.headline() in page.text
    assert CURVE.glossary()["lost"] in page.text


@pytest.mark.parametrize(
    ("counts", "text"),
    [([0, 1, 2, 8], "0-2, 8"), ([3], "3"), ([4, 5], "4, 5"), ([2, 1, 0, 1], "0-2"), ([], "")],
)
def test_spans(counts: list[int], text: str) -> None:
    assert spans(counts) == text


def test_settings_are_flattened_in_order() -> None:
    nested = {"b": {"y": 1, "x": {"z": [1, 2]}}, "a": None, "c": {}, "d": True}
    assert flattened(nested) == [
        ("b.y", "1"),
        ("b.x.z", "[1, 2]"),
        ("a", "none"),
        ("c", "{}"),
        ("d", "true"),
    ]
