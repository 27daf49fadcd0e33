"""What a sentence may claim: the verdict on a difference, and what the template asks of records.

A difference is supported if its interval excludes 0 and its p-value, corrected by Holm over
everything tested in that record, is below the level. The template chooses its verbs by these
verdicts alone. Cost: none.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from ed_interp.errors import EdInterpError
from ed_interp.eval.compare.rows import HIGHER_IS_BETTER
from ed_interp.eval.paper.records import COMPARISON, CURVE, Place, Record
from ed_interp.eval.paper.values import Code, Quote, Work, key_of
from ed_interp.eval.study.summary import LEVEL

MOST_ITEMS = 64
"""Longest list that fits one cell."""
MOST_LINES = 40
"""Longest list of findings."""
DEFAULT_ESTIMATOR = "smoothed"
Column: TypeAlias = tuple[str | Code, str, str, bool]
"""Head, field, number format (words have none), and whether it is an interval: ``{field}_low`` and
``{field}_high``."""
HIGHER: Mapping[str, bool | None] = {**HIGHER_IS_BETTER, "forgetting": False, "harmed": False}
"""Metric -> whether higher is better; None if neither direction is."""


def verdict(row: Place, interval: str, alpha: float, higher: bool | None = None) -> str:
    """``better`` or ``worse``, ``changed`` if neither direction is the better one; else why not.

    Args:
        row: Has ``difference``, ``p_holm``, and the interval's ends ``{interval}_low``, ``_high``.
        interval: Name of the interval.
        alpha: Level of the corrected test.
        higher: Whether a higher value is the better one; None if neither is.

    Returns:
        Also ``untested`` without a test, and ``unsupported`` if test or interval do not agree.
    """
    low, high = row[f"{interval}_low"].raw, row[f"{interval}_high"].raw
    if row["p_holm"].raw is None:
        return "untested"
    if None in (low, high) or row["p_holm"].raw >= alpha or low <= 0 <= high:
        return "unsupported"
    if higher is None:
        return "changed"
    return "better" if (row["difference"].raw > 0) == higher else "worse"


def by_verdict(
    rows: Iterable[Place],
    interval: str,
    alpha: float,
    higher: Mapping[str, bool | None] | bool | None = None,
) -> dict[str, list[Place]]:
    """Rows by :func:`verdict`; ``higher`` may depend on the row's metric."""
    groups: dict[str, list[Place]] = {
        name: [] for name in ("better", "worse", "changed", "unsupported", "untested")
    }
    for row in rows:
        own = higher.get(row["metric"].raw) if isinstance(higher, Mapping) else higher
        groups[verdict(row, interval, alpha, own)].append(row)
    return groups


def by_importance(rows: Iterable[Place]) -> list[Place]:
    """Effects: the task, neutral text, then relations; the largest first."""

    def order(row: Place) -> tuple[int, float]:
        families = ("behaviour", "forgetting", "relation")
        family = row["family"].raw
        place = families.index(family) if family in families else len(families)
        return place, -abs(row["difference"].raw)

    return sorted(rows, key=order)


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


def parsed(columns: Iterable[str]) -> list[Column]:
    """Columns as the template writes them: ``HEAD: FIELD FORMAT``, with ``FIELD*`` an interval."""
    made: list[Column] = []
    for column in columns:
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

    Args:
        place: Where to look.
        but: Keys to leave out.
        lists: Also what is inside lists of objects.

    Returns:
        Pairs of key and place, which is None for a list that no cell could hold.
    """
    for leaf in _leaves(place):
        inner = leaf.path[len(place.path) :]
        if inner and inner[0] not in but and (lists or not _is_rows(place[inner[0]])):
            long = isinstance(leaf.raw, list) and len(leaf.raw) > MOST_ITEMS
            yield Code(key_of(inner)), None if long else leaf


def _leaves(place: Place) -> Iterator[Place]:
    nested = isinstance(place.raw, list) and any(isinstance(i, (dict, list)) for i in place.raw)
    if nested or (isinstance(place.raw, dict) and place.raw):
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
        deep = any(isinstance(item, (dict, list)) for item in inner)
        return not (isinstance(raw, dict) or deep or len(inner) > 8)

    names = [name for name, value in rows.raw[0].items() if flat(value)]
    return [(Code(name), name, "", False) for name in names[:9]]


def code(item: Place | str) -> Code:
    """A name of ours, or the last step to a place."""
    return Code(" ".join(item.split()) if isinstance(item, str) else str(item.path[-1]))


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
    paths = (("model",), ("control", "model"), ("settings", "model"))
    known: dict[Place, Place] = {}
    for record in records:
        places = (record.place(*path) for path in paths)
        for place in [place for place in places if isinstance(place.raw, dict)][:1]:
            known[place["fingerprint"] if place["fingerprint"] else place["name"]] = place
    return list(known.values())


def methods(records: Sequence[Record]) -> set[str]:
    """Methods that the records rely on: ``bias-injection``, ``lora``, ``emergence``, ..."""
    names = [record.adapter["peft_type"].raw for record in records]
    names += [record.place("architecture").raw for record in records]
    for record in records:
        names += [arm["method"].raw for arm in record.place("arms")]
        if record.kind == CURVE or _measures_emergence(record):
            names.append("emergence")
    return {str(name).lower().replace("_", "-") for name in names}


def works(records: Sequence[Record]) -> list[Work]:
    """The works behind the estimators of information that the records used, each once."""
    from ed_interp.probes.emergence.estimators import get_estimator

    names = [record.place("estimator").raw for record in records]
    # Studies and comparisons measure emergence with the default estimator.
    names += [DEFAULT_ESTIMATOR for record in records if _measures_emergence(record)]
    works = []
    for name in dict.fromkeys(name for name in names if isinstance(name, str)):
        # A record may name an estimator of a package that is not installed here.
        with contextlib.suppress(EdInterpError):
            if text := getattr(get_estimator(name), "citation", ""):
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


def unfinished(records: Sequence[Record]) -> list[Code]:
    """Runs beside the given ones that were begun and not finished."""
    parents = {Path(record.folder).expanduser().resolve().parent for record in records}
    names = {path.name for parent in parents for path in parent.glob(".*.partial")}
    return [Code(name[1:].removesuffix(".partial")) for name in sorted(names)]


def verdicts(comparison: Place) -> dict[str, list[Place]]:
    """The effects of a comparison by verdict, at the level that it records."""
    alpha = getattr(comparison.record.result, "alpha", 1 - LEVEL)
    return by_verdict(comparison["effects"], "ci", alpha, HIGHER)


def main_effects(rows: Iterable[Place]) -> list[Place]:
    """Effects to tell in a sentence: of each relation its log-probability, the finer metric."""
    rows = [row for row in rows if row["family"] != "relation" or row["metric"] == "logprob"]
    return by_importance(rows)


FILTERS = {
    filter.__name__: filter
    for filter in (
        at_most, by_importance, by_verdict, code, columns, distinct, entries, flags, lists,
        main_effects, parsed, pick, troubled, where,
    )
}  # fmt: skip
"""What the template can ask of places, by name."""
