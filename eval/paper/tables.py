"""Tables of values: rows and columns of places in a record.

Cost: none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from ed_interp.eval.paper.document import Block, Code, Paragraph, Part, Parts, Table, key_of
from ed_interp.eval.paper.records import Place, Record

MOST_ROWS = 300
"""Of one table; the record has the rest."""
MOST_ITEMS = 64
"""Of a list in one cell."""
UNITS = {
    "accuracy": "accuracy",
    "accuracy_change": "accuracy, change by prompt",
    "accuracy_fewest_shots": "accuracy at the fewest shots",
    "logprob": "log-probability of the answer, nats",
    "logprob_change": "log-probability, change by prompt, nats",
    "reciprocal_rank": "reciprocal rank of the answer",
    "forgetting": "rise of the cross-entropy on neutral text, nats per token",
    "cross_entropy": "cross-entropy on neutral text, nats per token",
    "divergence": "divergence on neutral text, nats per token",
    "harmed": "relations and texts that became worse",
    "emergence": "emergence, bits",
    "emergence_change": "largest change of emergence, bits",
    "activation": "mean activation",
    "decode_ratio": "time of decoding against the frozen model",
    "seconds": "wall time of the training, seconds",
}
"""Metric -> what it is, with its unit; other metrics keep their name."""


@dataclasses.dataclass(frozen=True)
class Column:
    """A column: where its values stand in a row's place."""

    head: str
    path: tuple[str | int, ...]
    form: str = ""
    until: tuple[str | int, ...] = ()
    """The other end of an interval."""
    words: bool = False


def column(head: str, *path: str | int, form: str = "", words: bool = False) -> Column:
    """A column of single values."""
    return Column(head, path or (head.replace(" ", "_"),), form, words=words)


def interval_column(head: str, low: str, high: str, form: str = ".3g") -> Column:
    """A column of intervals."""
    return Column(head, (low,), form, until=(high,))


def table(
    caption: Sequence[Part], rows: Sequence[Place], columns: Sequence[Column]
) -> tuple[Block, ...]:
    """A table of one row per place; where it is too long, the page says so."""
    made = tuple(tuple(_cell(row, each) for each in columns) for row in rows[:MOST_ROWS])
    text = frozenset(index for index, each in enumerate(columns) if each.words)
    heads = tuple(each.head for each in columns)
    found: tuple[Block, ...] = (Table(tuple(caption), heads, made, text),)
    if len(rows) > MOST_ROWS:
        rest = ("The first rows are shown; all of them are in ", Code(rows[0].file), ".")
        found = (*found, Paragraph(rest))
    return found


def pairs(caption: Sequence[Part], *places: Place, but: Sequence[str] = ()) -> tuple[Block, ...]:
    """A table of everything below places, one line per setting; ``but`` names what is left out."""
    rows: list[tuple[Parts, ...]] = []
    for top in places:
        for place in leaves(top):
            inner = place.path[len(top.path) :]
            if not inner or inner[0] in but:
                continue
            shown: Parts = (place.show(),)
            if isinstance(place.raw, list) and len(place.raw) > MOST_ITEMS:
                shown = ("a list too long for a table; it is in ", Code(place.file))
            rows.append(((Code(key_of(inner)),), shown))
    if not rows:
        return ()
    kept = tuple(rows[:MOST_ROWS])
    found: tuple[Block, ...] = (Table(tuple(caption), ("setting", "value"), kept, frozenset({1})),)
    if len(rows) > MOST_ROWS:
        found = (*found, Paragraph(("The first entries are shown; the record has the rest.",)))
    return found


def leaves(place: Place) -> Iterator[Place]:
    """Single values, and lists of them, at or below a place."""
    nested = isinstance(place.raw, list) and any(isinstance(i, (dict, list)) for i in place.raw)
    if nested or (isinstance(place.raw, dict) and place.raw):
        for inner in place:
            yield from leaves(inner)
    else:
        yield place


def chosen(rows: Place, **wanted: object) -> list[Place]:
    """The rows of a list whose fields have these values."""
    return [row for row in rows if all(row[key].raw == value for key, value in wanted.items())]


def between(row: Place, low: str, high: str, form: str = ".3g") -> Parts:
    """An interval in words: ``0.1 to 0.3``."""
    return (row[low].show(form), " to ", row[high].show(form))


def named(record: Record, *path: str | int) -> Parts:
    """A name that a record holds, as parts of a sentence."""
    return (record.place(*path).show(),)


def _cell(row: Place, each: Column) -> Parts:
    place = row
    for step in each.path:
        place = place[step]
    if not each.until:
        return (place.show(each.form),)
    other = row
    for step in each.until:
        other = other[step]
    if not place.there and not other.there:
        return (place.show(),)
    return (place.show(each.form), " to ", other.show(each.form))
