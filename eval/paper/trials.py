"""Appendix D: every number of the records, in tables.

Cost: none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ed_interp.eval.paper.discussion import STUDY
from ed_interp.eval.paper.document import Block, Heading, Parts, Section, gap, paragraph
from ed_interp.eval.paper.records import Place, Record
from ed_interp.eval.paper.tables import column, interval_column, leaves, pairs, table

_EMERGENCE = [
    column("block", "layer"), column("shots"), column("E, bits", "emergence", form=".3g"),
    interval_column("interval", "ci_low", "ci_high"), column("macro", form=".3g"),
    column("micro", form=".3g"), column("noiseless", "limit", form=".3g"),
    column("untrained", form=".3g"), column("flags", words=True),
]  # fmt: skip


def appendix_d(records: Sequence[Record]) -> Section:
    """All tables, record by record."""
    makers: dict[str, Callable[[Record], list[Block]]] = {
        "controlled study": _study,
        "comparison": _comparison,
        "emergence curve": _curve,
    }
    blocks: list[Block] = [
        paragraph("Every table is made from one record; a cell without a value was not measured.")
    ]
    if all(record.kind not in makers for record in records):
        blocks.append(gap("trials", STUDY))
    for record in records:
        if record.kind in ("trained adapter", "adapter"):
            continue  # configuration and training: appendices A and C
        made = makers.get(record.kind, _other)(record)
        blocks += [Heading(_title(record)), *made]
    return Section("trials", "Trial results in tables and figures", tuple(blocks), "D")


def _title(record: Record) -> Parts:
    head = record.place()
    names = {
        "controlled study": (("problem", "name"), ("model", "name")),
        "comparison": (("treated", "name"), ("control", "name"), ("task",)),
    }.get(record.kind, (("model",), ("task",), ("estimator",), ("architecture",)))
    found: list[Parts] = []
    for path in names:
        place = record.place(*path)
        if isinstance(place.raw, str):
            found.append((place.show(),))
    parts = [f"{record.kind.capitalize()}: ".removesuffix(": " if not found else "")]
    for index, part in enumerate(found):
        parts += [", " if index else "", *part]  # type: ignore[list-item]
    return tuple(parts) if head.raw else (record.kind,)


def _study(record: Record) -> list[Block]:
    head = record.place()
    means = [
        column("arm"), column("metric", words=True), column("mean", form=".4g"),
        interval_column("interval over seeds", "ci_low", "ci_high"), column("seeds"),
    ]  # fmt: skip
    against = [
        column("arm"), column("metric", words=True),
        column("tested minus arm", "difference", form="+.3g"),
        interval_column("interval", "difference_low", "difference_high", "+.3g"),
        column("p", "p_value", form=".2g"), column("corrected p", "p_holm", form=".2g"),
    ]  # fmt: skip
    trials = [
        column("arm"), column("rate", form="g"), column("seed"), column("status", words=True),
        column("accuracy by shots", "accuracy", form=".3g"),
        column("log-probability by shots", "logprob", form=".3g"),
        column("forgetting", form=".3g"), column("made worse", "harmed", words=True),
    ]  # fmt: skip
    compared = [row for row in head["summary"] if row["difference"].there]
    finals = [row for row in head["trials"] if row["sweep"].raw is False]
    shots: Parts = ("Trials, one per arm and seed; shot counts ", head["problem"]["shots"].show())
    found: list[Block] = [*table(("Means over seeds",), list(head["summary"]), means)]
    if compared:
        found += table(("The arm under test against each arm",), compared, against)
    return [*found, *table(shots, finals, trials)]


def _comparison(record: Record) -> list[Block]:
    head = record.place()
    columns = [
        column("name"), column("metric", words=True), column("shots"),
        column("control", form=".3g"), column("treated", form=".3g"),
        column("difference", form="+.3g"), interval_column("interval", "ci_low", "ci_high", "+.3g"),
        column("corrected p", "p_holm", form=".2g"), column("test", words=True), column("n"),
    ]  # fmt: skip
    found: list[Block] = [*table(("Every effect, treated minus control",),
                                 list(head["effects"]), columns)]  # fmt: skip
    contexts = list(head["forgetting"]["contexts"]) if head["forgetting"].there else []
    if contexts:
        places = [
            column("before"), column("next token", "token", words=True),
            column("divergence, nats", "divergence", form=".3g"),
            column("control expects", "control_top", words=True),
            column("treated expects", "treated_top", words=True),
        ]  # fmt: skip
        found += table(("Where in neutral text the two differ most",), contexts, places)
    if head["features"].there:
        features = [
            column("feature"), column("control", form=".3g"), column("treated", form=".3g"),
            column("difference", form="+.3g"),
            interval_column("interval", "ci_low", "ci_high", "+.3g"),
            column("standardised", form=".3g"),
        ]  # fmt: skip
        found += table(("Features that changed most",), list(head["features"]), features)
    else:
        found.append(gap("changed features in this comparison",
                         "ed_interp.eval.compare.compare(..., dictionary=...)"))  # fmt: skip
    if head["cost"].there:
        found += pairs(("Cost",), head["cost"])
    else:
        found.append(gap("the cost of this comparison", STUDY))
    return [*found, *_adaptivity(head["adaptivity"])]


def _adaptivity(place: Place) -> list[Block]:
    if not place.there:
        return [gap("a session with feedback in this comparison", STUDY)]
    turns = [
        column("turn"), column("log-probability", "logprob", form=".3g"),
        interval_column("interval", "ci_low", "ci_high"), column("accuracy", form=".3g"),
        column("without experience", "without", form=".3g"), column("gain", form="+.3g"),
        interval_column("interval of the gain", "gain_ci_low", "gain_ci_high", "+.3g"),
        column("sessions", "n"),
    ]  # fmt: skip
    decay = [column("elapsed", form="g"), column("effect", form=".3g")]
    return [
        *table(("Performance after each turn of a session",), list(place["turns"]), turns),
        *table(("What is left of an experience after a pause",), list(place["decay"]), decay),
        *pairs(("Adaptivity",), place, but=("turns", "decay")),
    ]


def _curve(record: Record) -> list[Block]:
    head = record.place()
    found = [*table(("Emergence by block and shot count",), list(head["rows"]), _EMERGENCE)]
    if head["behaviour"].there:
        columns = [
            column("shots"), column("accuracy", form=".3g"),
            interval_column("interval", "ci_low", "ci_high"),
            column("log-probability, nats", "logprob", form=".3g"),
            interval_column("interval, nats", "logprob_ci_low", "logprob_ci_high"),
            column("median rank", "rank", form=".3g"), column("chance", form=".3g"),
            column("prompts", "n"),
        ]  # fmt: skip
        found += table(("Behaviour by shot count",), list(head["behaviour"]), columns)
    return found


def _other(record: Record) -> list[Block]:
    """Any other kind: its lists as tables, the rest as settings."""
    head = record.place()
    lists = [place for place in head if _is_table(place.raw)]
    found: list[Block] = []
    for place in lists:
        rows = list(place)
        names = [name for name, value in place.raw[0].items() if not _is_nested(value)][:9]
        columns = [column(name.replace("_", " "), name, words=True) for name in names]
        found += table((f"{record.kind.capitalize()}: {_plain(place)}",), rows, columns)
    names_of_lists = {str(place.path[-1]) for place in lists}
    but = (*names_of_lists, "format", "version", "settings", "environment", "stamp")
    rest = [place for place in leaves(head) if place.path and place.path[0] not in but]
    if rest:
        found += pairs((f"{record.kind.capitalize()}: its other entries",), head, but=but)
    return found


def _plain(place: Place) -> str:
    """The name of a list of a record, without what could be a number."""
    return "".join(letter for letter in str(place.path[-1]) if not letter.isdigit())


def _is_table(raw: object) -> bool:
    return isinstance(raw, list) and bool(raw) and all(isinstance(row, dict) for row in raw)


def _is_nested(raw: object) -> bool:
    if isinstance(raw, dict):
        return True
    return isinstance(raw, list) and (
        len(raw) > 8 or any(isinstance(item, (dict, list)) for item in raw)
    )
