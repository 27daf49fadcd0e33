"""Sentences about differences, made only where intervals and corrected tests support them.

A difference is called supported where its interval excludes no difference and its p-value,
corrected by Holm over everything tested in that record, is below the level. Everything else is
called not supported, by name. Cost: none.
"""

from __future__ import annotations

from collections.abc import Sequence

from ed_interp.eval.compare.result import HIGHER_IS_BETTER, Effect
from ed_interp.eval.study.summary import COMPARED, LEVEL
from ed_interp.eval.paper.document import (
    Block,
    Bullets,
    Code,
    Heading,
    Paragraph,
    Part,
    Parts,
    Section,
    gap,
    listed,
    paragraph,
)
from ed_interp.eval.paper.records import Place, Record
from ed_interp.eval.paper.tables import UNITS, between, chosen

STUDY = "ed-interp compare --task TASK --out RUN"
BETTER = {"accuracy": True, "logprob": True, "forgetting": False, "harmed": False}


def supported(row: Place, low: str, high: str, alpha: float) -> bool:
    """Whether interval and corrected test agree that there is a difference."""
    ends, p_value = (row[low].raw, row[high].raw), row["p_holm"].raw
    if None in ends or p_value is None:
        return False
    return bool(p_value < alpha and (ends[0] > 0 or ends[1] < 0))


def discussion(records: Sequence[Record]) -> Section:
    """Each study's arm under test against its controls; then what was found prompt by prompt."""
    blocks: list[Block] = [
        paragraph(
            "A difference is stated below only where its interval excludes no difference and its "
            "corrected test agrees, at the level of the record or, for arms over seeds, of ",
            Code("ed_interp.eval.study.summary.LEVEL"),
            ". Where either does not, the difference is listed as not supported: that is no "
            "finding of equality.",
        )
    ]
    studies = [record for record in records if record.kind == "controlled study"]
    if not studies:
        blocks.append(gap("a controlled study, with its baselines,", STUDY))
    for record in studies:
        blocks += _study(record)
    compared = [record for record in records if record.kind == "comparison"]
    if not compared:
        blocks.append(gap("a comparison prompt by prompt", STUDY))
    for record in compared:
        blocks += _comparison(record)
    curves = [record for record in records if record.kind == "emergence curve"]
    for record in curves:
        blocks += _curve(record)
    if not curves:
        blocks.append(gap("an emergence curve", "ed-interp emergence --out RUN"))
    for record in records:
        if record.kind == "steering sweep":
            blocks += _sweep(record)
    return Section("discussion", "Discussion against benchmarks and baselines", tuple(blocks))


def _study(record: Record) -> list[Block]:
    head = record.place()
    tested = head["tested"]
    title = ("Arms on ", head["problem"]["name"].show(), ", ", head["model"]["name"].show())
    items = [_metric(head, metric) for metric in COMPARED]
    frozen = chosen(head["arms"], method="frozen")
    if not frozen:
        return [Heading(title), gap("the frozen model as a baseline of this study", STUDY)]
    about = (
        "Under test is ",
        tested.show(),
        "; every other arm is its control. Seeds are the unit, paired by seed: the differences "
        "say what another seed would do on these prompts, not what other prompts would.",
    )
    return [Heading(title), Paragraph(about), Bullets(tuple(items))]


def _metric(head: Place, metric: str) -> Parts:
    """One metric: the arms from which the arm under test differs, and the others by name."""
    tested = head["tested"].raw
    rows = [row for row in chosen(head["summary"], metric=metric) if row["arm"].raw != tested]
    parts: list[Part] = [f"{UNITS[metric]}: ".capitalize()]
    if not rows:
        return (*parts, "no control has this measure.")
    good, bad, rest, untested = [], [], [], []
    for row in rows:
        told = (
            row["arm"].show(),
            " (",
            row["difference"].show("+.3g"),
            ", ",
            *between(row, "difference_low", "difference_high", "+.3g"),
        )
        if row["p_holm"].raw is None:
            untested.append((row["arm"].show(),))
            continue
        told = (*told, "; corrected p ", row["p_holm"].show(".2g"), ")")
        if not supported(row, "difference_low", "difference_high", 1 - LEVEL):
            rest.append(told)
        elif (row["difference"].raw > 0) == BETTER[metric]:
            good.append(told)
        else:
            bad.append(told)
    shown = head["tested"].show()
    clauses: list[Parts] = []
    if good:
        clauses.append((shown, " is better than ", *listed(good)))
    if bad:
        clauses.append((shown, " is worse than ", *listed(bad)))
    if rest:
        clauses.append(("a difference is not supported from ", *listed(rest)))
    if untested:
        reason = " (too few seeds in common, or no variation between them)"
        clauses.append(("no test was possible against ", *listed(untested), reason))
    for place, clause in enumerate(clauses):
        parts += ["; " if place else "", *clause]
    return (*parts, ".")


def _comparison(record: Record) -> list[Block]:
    head = record.place()
    alpha = record.loaded.alpha
    found: dict[str, list[Place]] = {"better": [], "worse": [], "changed": []}
    rest: dict[str, set[str]] = {}
    for place, effect in zip(head["effects"], record.loaded.effects, strict=True):
        verdict = _verdict(place, effect, alpha)
        if verdict is None:
            rest.setdefault(effect.family, set()).add(effect.metric)
        elif effect.family != "relation" or effect.metric == "logprob":
            found[verdict].append(place)
    title = (head["treated"]["name"].show(), " against ", head["control"]["name"].show(), " on ")
    blocks: list[Block] = [Heading((*title, head["task"].show(), ", by prompt"))]
    leads = {
        "better": "Better at the corrected level: ",
        "worse": "Worse at the corrected level: ",
        "changed": "Changed at the corrected level, neither direction being the better one: ",
    }
    items: list[Parts] = [
        (leads[verdict], *_first(sorted(places, key=importance), 12), ".")
        for verdict, places in found.items()
        if places
    ]
    if not items:
        items.append(("No difference is supported in any effect that was tested.",))
    if rest:
        names = "; ".join(
            f"{family} ({', '.join(sorted(UNITS.get(name, name) for name in metrics))})"
            for family, metrics in rest.items()
        )
        items.append((f"For some or all effects of these families it is not supported: {names}.",))
    items += _learning(head["adaptivity"])
    return [*blocks, Bullets(tuple(items))]


def _learning(place: Place) -> list[Parts]:
    """What a session of interactions with feedback brought, by its interval."""
    turns = list(place["turns"]) if place.there else []
    if not turns:
        return []
    last = max(turns, key=lambda row: row["turn"].raw)
    low, high = last["gain_ci_low"].raw, last["gain_ci_high"].raw
    verb = "a gain" if low > 0 else "a loss" if high < 0 else "no supported change"
    return [
        (
            "Interactions with feedback brought ",
            f"{verb} of log-probability against before the first: ",
            last["gain"].show("+.3g"),
            " nats after turn ",
            last["turn"].show(),
            " (",
            *between(last, "gain_ci_low", "gain_ci_high", "+.3g"),
            "; an interval over sessions, without a corrected test).",
        )
    ]


def _verdict(place: Place, effect: Effect, alpha: float) -> str | None:
    if not supported(place, "ci_low", "ci_high", alpha):
        return None
    better = HIGHER_IS_BETTER.get(effect.metric)
    if better is None:
        return "changed"
    return "better" if (effect.difference > 0) == better else "worse"


def effect_in_words(row: Place) -> Parts:
    """An effect with its numbers: name, metric, shots, difference, interval, corrected p."""
    shots: Parts = () if row["shots"].raw is None else (" at shot count ", row["shots"].show())
    return (
        row["name"].show(),
        ", ",
        row["metric"].show(),
        *shots,
        " (",
        row["difference"].show("+.3g"),
        ", ",
        *between(row, "ci_low", "ci_high", "+.3g"),
        "; corrected p ",
        row["p_holm"].show(".2g"),
        ")",
    )


def importance(row: Place) -> tuple[int, float]:
    """Order of effects: the task, neutral text, then relations; the largest first."""
    families = ("behaviour", "forgetting", "relation")
    family = row["family"].raw
    return families.index(family) if family in families else 9, -abs(row["difference"].raw)


def _first(places: Sequence[Place], most: int) -> Parts:
    """The first effects in words, and whether there are more."""
    told = [effect_in_words(place) for place in places[:most]]
    return (*listed(told), ", and more in appendix D" if len(places) > most else "")


def _curve(record: Record) -> list[Block]:
    head = record.place()
    rows = list(head["rows"])
    title = ("Emergence of ", head["model"].show(), " on ", head["task"].show())
    if not rows:
        return [Heading(title), paragraph("The record has no row.")]
    most, least = (end(row["shots"].raw for row in rows) for end in (max, min))
    last = max(chosen(head["rows"], shots=most), key=lambda row: row["emergence"].raw)
    first = next(iter(chosen(head["rows"], shots=least, layer=last["layer"].raw)), last)
    items = [_rise(first, last)]
    if last["untrained"].raw is not None:
        items.append(
            ("Against its baseline: the untrained twin has ", last["untrained"].show(".3g"),
             " bits there, without an interval, so no difference is claimed.")
        )  # fmt: skip
    behaviour = list(head["behaviour"])
    if len(behaviour) > 1:
        items.append(_gain(max(behaviour, key=lambda row: row["shots"].raw)))
    return [Heading(title), Bullets(tuple(items))]


def _rise(first: Place, last: Place) -> Parts:
    """E at the fewest and the most shots, of the block with the most at the end."""
    if last["ci_low"].raw > first["ci_high"].raw:
        verb = "rises over shots (the intervals do not overlap)"
    elif last["ci_high"].raw < first["ci_low"].raw:
        verb = "falls over shots (the intervals do not overlap)"
    else:
        verb = "has no supported change over shots (the intervals overlap)"
    return (
        "In block ",
        last["layer"].show(),
        f", which has the most at the most shots, E {verb}: ",
        first["emergence"].show(".3g"),
        " bits (",
        *between(first, "ci_low", "ci_high"),
        ") at shot count ",
        first["shots"].show(),
        ", ",
        last["emergence"].show(".3g"),
        " bits (",
        *between(last, "ci_low", "ci_high"),
        ") at shot count ",
        last["shots"].show(),
        ". A noiseless network would have ",
        last["limit"].show(".3g"),
        ", a constant of the data.",
    )


def _gain(row: Place) -> Parts:
    low, high = row["gain_ci_low"].raw, row["gain_ci_high"].raw
    verb = "rises" if low > 0 else "falls" if high < 0 else "has no supported change"
    return (
        f"Accuracy {verb} from the fewest shots to shot count ",
        row["shots"].show(),
        ": it is ",
        row["accuracy"].show(".3g"),
        ", a gain of ",
        row["gain"].show("+.3g"),
        " by prompt (",
        *between(row, "gain_ci_low", "gain_ci_high", "+.3g"),
        "); chance is ",
        row["chance"].show(".3g"),
        ".",
    )


def _sweep(record: Record) -> list[Block]:
    """Steering against its controls, on samples it was not tuned on."""
    head = record.place()
    alpha = 1 - LEVEL
    items: list[Parts] = []
    for row in head["comparisons"]:
        ok = supported(row, "ci_low", "ci_high", alpha)
        verb = ("better" if row["difference"].raw > 0 else "worse") if ok else "not supported"
        items.append(
            ("Against ", row["control"].show(), f": {verb} (", row["difference"].show("+.3g"),
             " nats, ", *between(row, "ci_low", "ci_high", "+.3g"), "; corrected p ",
             row["p_holm"].show(".2g"), ").")
        )  # fmt: skip
    if not items:
        items.append(("No strength kept within its budget, so nothing was compared.",))
    title = ("Steering of ", head["model"].show(), " by ", head["method"].show())
    return [Heading(title), Bullets(tuple(items))]
