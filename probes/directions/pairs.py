"""Contrasts: two classes of texts whose difference in the residual stream is wanted.

In code, or from a file with a pair a row::

    Contrast.of([("I love it", "I hate it"), ...])
    Contrast.from_file("pairs.jsonl")        # columns: positive, negative and, optionally, read

Each text is read at one token: by default its last one, or at an index (negative from the end;
special tokens at the start count) or the last token of a part of the text. Imports nothing heavy;
cost: negligible.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ed_interp.errors import InvalidInputError
from ed_interp.prompts.files import cell, read_rows

Read = int | str
"""Which token of a text is read: an index, or a part of the text whose last token is meant."""


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """A text and the token of it that is read."""

    text: str
    read: Read = -1


Texts = Sequence[str | Text]


@dataclasses.dataclass(frozen=True)
class Contrast:
    """Texts of a positive and of a negative class; a direction points from the second to the first.

    Raises:
        InvalidInputError: an empty class, an empty text, a pair of two equal readings, or pairs
            with classes of different sizes.
    """

    positive: tuple[Text, ...]
    negative: tuple[Text, ...]
    paired: bool = True
    """Whether row k of one class is the counterpart of row k of the other."""
    name: str = "pairs"

    def __post_init__(self) -> None:
        sizes = f"got {len(self.positive)} positive and {len(self.negative)} negative"
        for side, texts in (("positive", self.positive), ("negative", self.negative)):
            if not texts:
                raise InvalidInputError(f"{self.name!r} must hold texts of both classes, {sizes}")
            for row, text in enumerate(texts, 1):
                if not text.text.strip():
                    raise InvalidInputError(f"{self.name!r}, row {row}: the {side} text is empty")
        # Two lists of different lengths are most often a mistake, not two classes.
        if self.paired and len(self.positive) != len(self.negative):
            equal = f"{self.name!r} must hold as many positive as negative texts to be pairs"
            raise InvalidInputError(f"{equal}, {sizes}; use Contrast.unpaired(...)")
        if same := [row for row, pair in enumerate(self.pairs) if pair[0] == pair[1]]:
            raise InvalidInputError(
                f"{self.name!r}, row {same[0] + 1}: both texts are "
                f"{self.positive[same[0]].text!r:.60}: no difference ({len(same)} of "
                f"{len(self.positive)} pairs are like that); remove such rows"
            )

    @property
    def pairs(self) -> list[tuple[Text, Text]]:
        """The pairs; empty if the classes are not paired."""
        return list(zip(self.positive, self.negative, strict=True)) if self.paired else []

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of all texts and reading positions."""
        sides = (self.positive, self.negative)
        # With the positions: the same texts read elsewhere are other data.
        rows = [[[item.text, item.read] for item in side] for side in sides]
        return hashlib.sha256(json.dumps([self.paired, rows]).encode()).hexdigest()[:16]

    @classmethod
    def of(
        cls, pairs: Iterable[tuple[str | Text, str | Text]], *, read: Read = -1, name: str = "pairs"
    ) -> Contrast:
        """From (positive, negative) pairs of strings, or of :class:`Text` to read each elsewhere.

        ``read`` is the token of strings that is read, ``name`` is for messages and records.
        """
        rows = [tuple(_text(side, read) for side in pair) for pair in pairs]
        for row, pair in enumerate(rows, 1):
            if len(pair) != 2:
                wanted = "a pair must be (positive, negative)"
                raise InvalidInputError(f"{name!r}, row {row}: {wanted}, got {len(pair)} texts")
        return cls(tuple(pair[0] for pair in rows), tuple(pair[1] for pair in rows), True, name)

    @classmethod
    def unpaired(
        cls, positive: Texts, negative: Texts, *, read: Read = -1, name: str = "classes"
    ) -> Contrast:
        """From two classes of texts without counterparts."""
        first, second = (tuple(_text(item, read) for item in side) for side in (positive, negative))
        return cls(first, second, False, name)

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        positive: str = "positive",
        negative: str = "negative",
        read: Read = -1,
    ) -> Contrast:
        """From a file with one pair per row: ``.jsonl``, ``.json``, ``.csv`` or ``.parquet``.

        Columns ``positive_read``, ``negative_read`` or, for both, ``read`` may give the token that
        is read: a whole number is an index, anything else a part of the text.

        Args:
            path: The file, in UTF-8.
            positive: Name of the column of positive texts.
            negative: Name of the column of negative texts.
            read: Which token is read in rows that do not say.

        Raises:
            InvalidInputError: also no such file, a damaged one, a column missing, an empty cell.
        """
        file = Path(path)
        sides: dict[str, list[Text]] = {positive: [], negative: []}
        for number, row in enumerate(read_rows(file), 1):
            where = f"{file}, row {number}"
            missing = [column for column in sides if column not in row]
            if missing:
                raise InvalidInputError(
                    f"{where}: no {' and no '.join(map(repr, missing))}; the columns are "
                    f"{', '.join(map(repr, row)) or 'none'}; pairs need a positive and a negative"
                )
            for column, texts in sides.items():
                place = _read_of(row, column, read, where)
                texts.append(Text(cell(row[column], column, where), place))
        return cls(tuple(sides[positive]), tuple(sides[negative]), True, file.stem)

    def subset(self, rows: Sequence[int]) -> Contrast:
        """The pairs of these rows."""
        if not self.paired:
            raise InvalidInputError("subset() must be of pairs, got classes that are not paired")
        first, second = (tuple(side[k] for k in rows) for side in (self.positive, self.negative))
        return Contrast(first, second, True, self.name)


def _text(item: Any, read: Read) -> Text:
    if isinstance(item, str):
        return Text(item, read)
    if not isinstance(item, Text):
        raise InvalidInputError(f"a text must be a string, got {item!r:.60}")
    return item


def _read_of(row: Mapping[str, Any], column: str, default: Read, where: str) -> Read:
    for name in (f"{column}_read", "read"):
        value = row.get(name)
        # An empty cell of a table is None, NaN (the one value unlike itself) or "".
        if value is None or value != value or value == "":
            continue
        # A column with empty cells holds its whole numbers as floats.
        if isinstance(value, bool) or (isinstance(value, float) and value != int(value)):
            raise InvalidInputError(f"{where}: {name!r} must be an index or text, got {value!r}")
        try:
            return int(value)
        except ValueError:
            return cell(value, name, where)
    return default
