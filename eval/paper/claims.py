"""What a sentence may claim: the verdict on a difference, and what the template asks of records.

A difference is supported if its interval excludes 0 and its p-value, corrected by Holm over
everything tested in that record, is below the level. The template chooses its verbs by these
verdicts alone. Cost: none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ed_interp.errors import EdInterpError
from ed_interp.eval.compare.rows import HIGHER_IS_BETTER
from ed_interp.eval.paper.records import COMPARISON, CURVE, Place, Record
from ed_interp.eval.paper.values import Code, Picture, Quote, Work, key_of
from ed_interp.eval.study.summary import LEVEL

MOST_ITEMS = 64
"""Longest list that fits one cell."""
MOST_LINES = 40
"""Longest list of findings."""
Column: TypeAlias = tuple[str | Code, str, str, bool]
"""Head, field, number format (words have none), and whether it is an interval: ``{field}_low`` and
``{field}_high``."""
HIGHER: Mapping[str, bool | None] = {**HIGHER_IS_BETTER, "forgetting": False, "harmed": False}
"""Metric -> whether higher is better; None if neither direction is."""


def by_verdict(
    rows: Iterable[Place],
    interval: str,
    alpha: float,
    higher: Mapping[str, bool | None] | bool | None = None,
) -> dict[str, list[Place]]:
    """Rows sorted into ``better``, ``worse``, ``changed``, ``unsupported`` and ``untested``.

    Rows have ``difference``, ``p_holm`` and the ends ``{interval}_low`` and ``_high``; ``alpha`` is
    the level of the corrected test. ``higher``: whether a higher value is the better one, or that
    by metric; None if neither direction is, so that a difference is a change.
    """
    names = ("better", "worse", "changed", "unsupported", "untested")
    groups: dict[str, list[Place]] = {name: [] for name in names}
    for row in rows:
        low, high, p_value = (row[k].raw for k in (f"{interval}_low", f"{interval}_high", "p_holm"))
        up = higher.get(row["metric"].raw) if isinstance(higher, Mapping) else higher
        if p_value is None:
            verdict = "untested"
        # Both must agree: the test is corrected for their number, the intervals are not.
        elif None in (low, high) or p_value >= alpha or low <= 0 <= high:
            verdict = "unsupported"
        elif up is None:
            verdict = "changed"
        else:
            verdict = "better" if (row["difference"].raw > 0) == up else "worse"
        groups[verdict].append(row)
    return groups


def by_importance(rows: Iterable[Place]) -> list[Place]:
    """Effects: the task, neutral text, then relations; the largest first."""
    order = {"behaviour": 0, "forgetting": 1, "relation": 2}
    return sorted(rows, key=lambda r: (order.get(r["family"].raw, 3), -abs(r["difference"].raw)))


# Jinja's own selectattr would do, but needs a line for each of several fields.
def where(rows: Iterable[Place], **wanted: object) -> list[Place]:
    """The rows whose fields have these values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def pick(rows: Iterable[Place], **wanted: object) -> Place | None:
    """The first row whose fields have these values, or None."""
    return next(iter(where(rows, **wanted)), None)


def distinct(places: Iterable[Place], *keys: str) -> list[Place]:
    """Places that differ in a value at these keys (dots lead deeper)."""
    seen: dict[tuple[Place, ...], Place] = {}
    for place in places:
        values = (functools.reduce(operator.getitem, key.split("."), place) for key in keys)
        seen.setdefault(tuple(values), place)
    return list(seen.values())


def parsed(columns: Iterable[str | Column]) -> list[Column]:
    """Columns as the template writes them: ``HEAD: FIELD FORMAT``, with ``FIELD*`` an interval."""
    made: list[Column] = []
    for column in columns:
        if not isinstance(column, str):
            made.append(column)  # of a record of any kind, from `columns`
            continue
        match = re.fullmatch(r"(?:(.*): )?(\w+)(\*?) ?(\S*)", column)
        if match is None:
            raise ValueError(f"a column must be 'HEAD: FIELD FORMAT', got {column!r}")
        head, field, star, form = match.groups()
        made.append((head or field.replace("_", " "), field, form, bool(star)))
    return made


def entries(
    place: Place, but: Sequence[str] = (), lists: bool = True
) -> Iterator[tuple[Code, Place | None]]:
    """Every single value, and list of them, below a place, with its key.

    Keys in ``but`` are left out, and without ``lists`` what is inside lists of objects. A place is
    None for a list that no cell could hold.
    """
    for leaf in _leaves(place):
        inner = leaf.path[len(place.path) :]
        if inner and inner[0] not in but and (lists or not _is_rows(place[inner[0]])):
            long = isinstance(leaf.raw, list) and len(leaf.raw) > MOST_ITEMS
            yield Code(key_of(inner)), None if long else leaf


def _nested(raw: Any) -> bool:
    return isinstance(raw, list) and any(isinstance(item, (dict, list)) for item in raw)


def _leaves(place: Place) -> Iterator[Place]:
    if _nested(place.raw) or (isinstance(place.raw, dict) and place.raw):
        for inner in place:
            yield from _leaves(inner)
    else:
        yield place


def _is_rows(place: Place) -> bool:
    rows = place.raw
    return isinstance(rows, list) and bool(rows) and all(isinstance(row, dict) for row in rows)


def lists(place: Place) -> list[Place]:
    """What a record of any kind holds as rows."""
    return [inner for inner in place if _is_rows(inner)]


def columns(rows: Place) -> list[Column]:
    """Columns for rows of any kind: their first keys, without what is nested."""

    def flat(raw: Any) -> bool:
        inner = raw if isinstance(raw, list) else []
        return not (isinstance(raw, dict) or _nested(raw) or len(inner) > 8)

    names = [name for name, value in rows.raw[0].items() if flat(value)]
    # More columns fit neither a page nor a screen; the record has them.
    return [(Code(name), name, "", False) for name in names[:9]]


def code(place: Place) -> Code:
    """The last step to a place."""
    return Code(str(place.path[-1]))


def troubled(trials: Iterable[Place]) -> list[Place]:
    """Trials that failed or were repeated."""
    return [row for row in trials if row["status"] != "done" or row["attempt"] > 1]


def at_most(items: str) -> str:
    """The first items of a list in Markdown, and whether there are more; empty if there is none."""
    parts = re.split(r"^(?=- )", items.strip(), flags=re.M)
    more = ["- More of them are in the records.\n"] if len(parts) > MOST_LINES else []
    return "".join(parts[:MOST_LINES] + more)


def models(records: Sequence[Record]) -> list[Place]:
    """The models that the records were made with, each once."""
    known: dict[Place, Place] = {}
    for record in records:
        for path in (("model",), ("control", "model"), ("settings", "model")):
            place = record.place(*path)
            # Older records name the model there and describe it elsewhere.
            if isinstance(place.raw, dict):
                known[place["fingerprint"] or place["name"]] = place
                break
    return list(known.values())


def methods(records: Sequence[Record]) -> set[str]:
    """Methods that the records rely on: ``bias-injection``, ``lora``, ``emergence``, ..."""
    names = []
    for record in records:
        names += [record.adapter["peft_type"].raw, record.place("architecture").raw]
        names += [arm["method"].raw for arm in record.place("arms")]
        if record.kind == CURVE or _measures_emergence(record):
            names.append("emergence")
    return {str(name).lower().replace("_", "-") for name in names}


def works(records: Sequence[Record]) -> list[Work]:
    """The works behind the estimators of information that the records used, each once."""
    from ed_interp.probes.emergence.estimators.registry import get_estimator
    from ed_interp.probes.emergence.options import EstimatorOptions

    names = [record.place("estimator").raw for record in records]
    # Studies and comparisons measure emergence with the default estimator.
    names += [EstimatorOptions.estimator for record in records if _measures_emergence(record)]
    works = []
    for name in dict.fromkeys(name for name in names if isinstance(name, str)):
        # A record may name an estimator of a package that is not installed here.
        with contextlib.suppress(EdInterpError):
            if text := get_estimator(name).citation:
                works.append(Work(f"estimator-{name}", name, text, listed=True))
    return works


def _measures_emergence(record: Record) -> bool:
    rows: Iterable[Place] = record.place("effects") if record.kind == COMPARISON else ()
    return bool(
        pick(rows, family="emergence")
        or record.place("plan", "emergence")
        or record.place("settings", "options", "emergence")
    )


def flags(record: Place) -> list[tuple[Place, Quote | None, list[Place]]]:
    """Each flag once: its first place, its meaning, and the rows that carry it."""
    carried: dict[Place, list[Place]] = {}
    # At any depth and in any kind of record: curves, calibrations and parts of them carry flags.
    for place in _leaves(record):
        if place.path and place.path[-1] == "flags" and isinstance(place.raw, list):
            for flag in place:
                carried.setdefault(flag, []).append(flag)
    result = record.record.result
    meanings = {} if result is None else result.glossary()
    source = f"{type(result).__module__}:{type(result).__qualname__}.glossary"
    return [
        (
            flag,
            Quote(meanings[flag.raw], source) if flag.raw in meanings else None,
            # A flag stands at rows[3].flags[0]: two steps below its row.
            [record.record.place(*place.path[:-2]) for place in places],
        )
        for flag, places in carried.items()
    ]


def picture(record: Place, name: str) -> Picture | None:
    """A picture of the record's own report, by its name there; None without any."""
    result = record.record.result
    for chart in [] if result is None else result.charts():
        if chart.name == name:
            return Picture(dataclasses.replace(chart, name=f"{name}-{record.record.id.lower()}"))
    return None


def unfinished(records: Sequence[Record]) -> list[Code]:
    """Runs beside the given ones that were begun and not finished."""
    # A run works in a hidden sibling of its folder until it is complete.
    parents = {Path(record.folder).expanduser().resolve().parent for record in records}
    names = {path.name for parent in parents for path in parent.glob(".*.partial")}
    return [Code(name[1:].removesuffix(".partial")) for name in sorted(names)]


def verdicts(comparison: Place) -> dict[str, list[Place]]:
    """The effects of a comparison by verdict, at the level that it records."""
    alpha = getattr(comparison.record.result, "alpha", 1 - LEVEL)
    return by_verdict(comparison["effects"], "ci", alpha, HIGHER)


def main_effects(rows: Iterable[Place]) -> list[Place]:
    """Effects to tell in a sentence: of each relation its log-probability alone."""
    # Accuracy of a relation moves in steps of one prompt, so both would tell the same twice.
    rows = [row for row in rows if row["family"] != "relation" or row["metric"] == "logprob"]
    return by_importance(rows)


FILTERS = {
    filter.__name__: filter
    for filter in (
        at_most, by_importance, by_verdict, code, columns, distinct, entries, flags, lists,
        main_effects, parsed, pick, picture, troubled, verdicts, where,
    )
}  # fmt: skip
"""What the template can ask of places, by name."""
