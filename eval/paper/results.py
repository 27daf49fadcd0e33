"""The results of the trials in short: each record's main table and picture.

Cost: the pictures of emergence curves take a second each.
"""

from __future__ import annotations

from collections.abc import Sequence

from ed_interp.eval.compare.result import Effect
from ed_interp.eval.paper.discussion import STUDY
from ed_interp.eval.paper.document import (
    Block,
    Gap,
    Heading,
    Paragraph,
    Parts,
    Picture,
    Section,
    Table,
    gap,
)
from ed_interp.eval.paper.pictures import Mark, Panel, Tone, curve_picture, interval_picture
from ed_interp.eval.paper.records import Place, Record
from ed_interp.eval.paper.tables import UNITS, between, chosen, column, interval_column, table

_SHOWN = ("accuracy", "logprob", "forgetting", "harmed")


def results(records: Sequence[Record]) -> Section:
    """Studies, comparisons by prompt, emergence; a gap for each kind that is missing."""
    blocks: list[Block] = []
    kinds = {
        "controlled study": (_study, "a controlled study", STUDY),
        "comparison": (_comparison, "a comparison prompt by prompt", STUDY),
        "emergence curve": (_curve, "an emergence curve", "ed-interp emergence --out RUN"),
    }
    for kind, (make, what, command) in kinds.items():
        found = [record for record in records if record.kind == kind]
        if not found:
            blocks.append(gap(what, command))
        for record in found:
            blocks += make(record)
    return Section("results", "Results of the trials", tuple(blocks))


def _study(record: Record) -> list[Block]:
    head = record.place()
    about = (
        "The task is to ",
        head["problem"]["about"].show(),
        ". Means over ",
        "seeds, with their intervals, at the learning rate that each arm's own sweep chose. "
        "Under test is ",
        head["tested"].show(),
        ".",
    )
    rows: list[tuple[Parts, ...]] = []
    for arm in head["arms"]:
        cells = [_mean(head, arm["name"].raw, metric) for metric in _SHOWN]
        rows.append(((arm["name"].show(),), *cells))
    heads = ("arm", "accuracy", "log-probability", "forgetting", "made worse")
    caption = (
        "Arms of the study: accuracy and log-probability (nats) on the task, rise of the "
        "cross-entropy on neutral text (nats per token), relations and texts made worse",
    )
    title = (head["problem"]["name"].show(), " on ", head["model"]["name"].show())
    found: list[Block] = [Heading(title), Paragraph(about), Table(caption, heads, tuple(rows))]
    panels = [_panel(head, metric) for metric in _SHOWN[:3]]
    if any(panel.marks for panel in panels):
        name, words = f"study-{record.id.lower()}", "Arms, mean and interval over seeds"
        shown = ("Mean and interval over seeds; the arm under test is coloured. An arm of a "
                 "single run has no interval.",)  # fmt: skip
        found.append(interval_picture(name, words, shown, panels))
    return found


def _mean(head: Place, arm: str, metric: str) -> Parts:
    row = next(iter(chosen(head["summary"], arm=arm, metric=metric)), None)
    if row is None:
        return ("not measured",)
    if row["ci_low"].raw is None:
        return (row["mean"].show(".3g"),)
    return (row["mean"].show(".3g"), " (", *between(row, "ci_low", "ci_high"), ")")


def _panel(head: Place, metric: str) -> Panel:
    tested = head["tested"].raw
    marks = []
    for row in chosen(head["summary"], metric=metric):
        tone: Tone = "accent" if row["arm"].raw == tested else "plain"
        low, high = (_number(row[end]) for end in ("ci_low", "ci_high"))
        marks.append(Mark(row["arm"].raw, float(row["mean"].raw), low, high, tone))
    return Panel(UNITS[metric], tuple(marks), zero=metric == "forgetting")


def _number(place: Place) -> float | None:
    return None if place.raw is None else float(place.raw)


def _comparison(record: Record) -> list[Block]:
    head, loaded = record.place(), record.loaded
    rows = chosen(head["effects"], family="behaviour")
    title = (head["treated"]["name"].show(), " against ", head["control"]["name"].show(), " on ")
    found: list[Block] = [Heading((*title, head["task"].show(), ", by prompt"))]
    if rows:
        columns = [
            column("metric", words=True), column("shots"), column("control", form=".3g"),
            column("treated", form=".3g"), column("difference", form="+.3g"),
            interval_column("interval", "ci_low", "ci_high", "+.3g"),
            column("corrected p", "p_holm", form=".2g"), column("samples", "n"),
        ]  # fmt: skip
        found += table(("Behaviour on the task, paired by prompt",), rows, columns)
    else:
        found.append(
            Gap(("This comparison holds no behaviour: the task has no answers to score.",))
        )
    text = head["forgetting"]
    if text.there:
        parts = (
            "Neutral text: cross-entropy ",
            text["control_cross_entropy"].show(".4g"),
            " under the control and ",
            text["treated_cross_entropy"].show(".4g"),
            " under the treated model, nats per token; divergence between their predictions ",
            text["divergence_mean"].show(".3g"),
            " nats per token (",
            *between(text, "divergence_ci_low", "divergence_ci_high"),
            ").",
        )
        found.append(Paragraph(parts))
    else:
        found.append(gap("forgetting on neutral text in this comparison", STUDY))
    panels = [
        Panel(f"change of {UNITS['accuracy']} by shots", _marks(record, "behaviour", "accuracy"),
              True),
        Panel("change of log-probability by shots, nats", _marks(record, "behaviour", "logprob"),
              True),
        Panel("change of log-probability by relation, nats",
              _marks(record, "relation", "logprob"), True),
    ]  # fmt: skip
    if any(panel.marks for panel in panels):
        caption = ("Treated minus control, paired by prompt, with bootstrap intervals; coloured "
                   "where the corrected test holds.",)  # fmt: skip
        name = f"comparison-{record.id.lower()}"
        heading = f"{loaded.treated.get('name')} against {loaded.control.get('name')}"
        found.append(interval_picture(name, heading, caption, panels))
    return found


def _marks(record: Record, family: str, metric: str) -> tuple[Mark, ...]:
    tones: dict[str, Tone] = {"better": "accent", "worse": "caution"}
    effects: tuple[Effect, ...] = record.loaded.effect(family, metric)
    if family == "relation":
        effects = tuple(sorted(effects, key=lambda effect: effect.difference))
    return tuple(
        Mark(
            f"{effect.shots} shots" if family == "behaviour" else effect.name,
            effect.difference,
            effect.ci_low,
            effect.ci_high,
            tones.get(effect.verdict(record.loaded.alpha), "plain"),
        )
        for effect in effects
    )


def _curve(record: Record) -> list[Block]:
    head = record.place()
    title: Parts = ("Emergence of ", head["model"].show(), " on ", head["task"].show())
    caption = (
        "E per block over shots, by the estimator ",
        head["estimator"].show(),
        "; its rows are in appendix D.",
    )
    picture: Picture = curve_picture(f"curve-{record.id.lower()}", record.loaded, caption)
    return [Heading(title), picture]
