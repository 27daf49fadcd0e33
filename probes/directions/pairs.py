"""Contrasts: two classes of texts whose difference in the residual stream is wanted.

In code, or from a file with a pair a row::

    Contrast.of([("I love it", "I hate it"), ...])
    Contrast.from_file("pairs.jsonl")        # columns: positive, negative and, optionally, read

Each text is read at one token: by default its last one, or at an index (negative from the end;
special tokens at the start count) or the last token of a part of the text. In a causal model the
state there depends only on the tokens up to it, so every text is cut after it and
:func:`ed_interp.capture` reads the last one: batches of similar length, no logits, nothing computed
after the last site, every site in the same pass. Cost: the forward passes; memory 4 bytes per text,
site and channel.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ed_interp.errors import InvalidInputError, OptionError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load
from ed_interp.models.sites import Site, resid_post
from ed_interp.progress import Progress
from ed_interp.prompts.files import cell, read_rows
from ed_interp.prompts.population import Population, Prompt
from ed_interp.prompts.tokens import Ids, ShotTokens, TokenPopulation, tokenize
from ed_interp.streams.capture import capture

_CPU_TOKENS = 256
"""Tokens in a batch on a CPU: enough for matrix products at full speed, and little padding."""
_ZERO = 1e-6
"""Relative to the root mean square of the states: a smaller gap is rounding."""

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


@dataclasses.dataclass(frozen=True)
class ContrastStates:
    """The states of both classes, float32, on the CPU. Made by :func:`read_states`."""

    sites: tuple[Site, ...]
    positive: Float[Tensor, "positive site d_model"]
    negative: Float[Tensor, "negative site d_model"]
    paired: bool
    model: HookedModel = dataclasses.field(repr=False)
    data: str
    """Fingerprint of the texts and reading positions."""
    name: str = "pairs"

    @cached_property
    def differences(self) -> Float[Tensor, "pair site d_model"]:
        """Positive minus negative, float64; classes without pairs are refused."""
        if not self.paired:
            raise InvalidInputError(
                f"{self.name!r} must be pairs for this, got two classes without pairs; use "
                "Contrast.of([(positive, negative), ...]) or method='mean_difference'"
            )
        return self.positive.double() - self.negative.double()

    @cached_property
    def gap(self) -> Float[Tensor, "site d_model"]:
        """Mean of the positive class minus mean of the negative one, float64."""
        # In float64: the gap is a small difference of large sums.
        return self.positive.double().mean(0) - self.negative.double().mean(0)


def read_states(
    model: Any,
    contrast: Contrast,
    *,
    sites: Sequence[str | Site] | None = None,
    batch_size: int | None = None,
    progress: Progress = None,
) -> ContrastStates:
    """Read both classes at ``sites``.

    Args:
        model: Anything :func:`ed_interp.load` takes.
        contrast: The texts.
        sites: Hook points; by default the output of every block (``blocks.0.hook_resid_post`` ...).
        batch_size: Texts per batch; by default chosen by number of tokens.
        progress: See :mod:`ed_interp.progress`.

    Raises:
        InvalidInputError: a position outside a text, or a text longer than the context window.
        CaptureError: NaN or infinite states.
    """
    hooked = load(model)
    chosen = sites_of(hooked, sites)
    rows = cut_texts(hooked, [*contrast.positive, *contrast.negative])
    # Whole texts in the form that capture reads: one demonstration each, read where it ends.
    tokens = tuple(ShotTokens((), (ids,)) for ids in rows)
    population = TokenPopulation(_as_population(contrast.name, [""] * len(rows)), tokens, "whole")
    if batch_size is None and hooked.device.type == "cpu":
        # A large batch gains nothing on a CPU, and its padding costs. Batches are of similar
        # length already, so the median length stands for all.
        lengths = sorted(map(len, rows))
        batch_size = max(1, _CPU_TOKENS // lengths[len(lengths) // 2])
    activations = capture(
        hooked, population, sites=chosen, answers=False, batch_size=batch_size, progress=progress
    )
    # Each text is one demonstration, so it ends at shot count 1.
    states, count = activations.at(1), len(contrast.positive)
    rest = (contrast.paired, hooked, contrast.fingerprint, contrast.name)
    return ContrastStates(tuple(chosen), states[:count], states[count:], *rest)


def check_gap(states: ContrastStates) -> None:
    """Refuse classes that have the same mean at some site."""
    size = torch.cat([states.positive, states.negative]).double().pow(2).mean((0, 2)).sqrt()
    gap = states.gap.pow(2).mean(-1).sqrt()
    for site, low in zip(states.sites, (gap <= _ZERO * size).tolist(), strict=True):
        if low:
            raise InvalidInputError(
                f"the classes of {states.name!r} have the same mean at {site.name}, which leaves "
                "no direction; do their texts differ before the token that is read (read=)?"
            )


def sites_of(hooked: HookedModel, sites: Sequence[str | Site] | None) -> list[Site]:
    """The sites of these names in order of depth; by default the output of every block."""
    if sites is None:
        sites = [resid_post(layer) for layer in range(hooked.n_layers)]
    chosen = [hooked.site(site) for site in ([sites] if isinstance(sites, str) else sites)]
    if not chosen or len(set(chosen)) < len(chosen):
        names = ", ".join(site.name for site in chosen) or "none"
        raise OptionError("sites", f"must be one or more, each once, got {names}")
    return sorted(chosen)


def cut_texts(hooked: HookedModel, texts: Sequence[Text]) -> list[Ids]:
    """Token ids of each text up to and including the token that is read."""
    population = _as_population("texts", [item.text for item in texts])
    cut = []
    for item, prompt in zip(texts, tokenize(population, hooked.tokenizer).prompts, strict=True):
        ids = prompt.sequence(1)
        if isinstance(item.read, str):
            # Offsets count from the text's own first token; special tokens come before it.
            place = len(prompt.prefix) + _token_of(hooked.tokenizer, item)
        else:
            place = item.read + len(ids) if item.read < 0 else item.read
        if not 0 <= place < len(ids):
            indices = f"-{len(ids)} to {len(ids) - 1}, the tokens of {item.text!r:.60}"
            raise OptionError("read", f"must be {indices}, got {item.read}")
        cut.append(ids[: place + 1])
    return cut


def _token_of(tokenizer: Any, item: Text) -> int:
    """Index, without special tokens, of the last token of the last occurrence of the part."""
    assert isinstance(item.read, str)
    start = item.text.rfind(item.read)
    if start < 0 or not item.read:
        raise OptionError("read", f"must be a part of {item.text!r:.80}, got {item.read!r}")
    if not getattr(tokenizer, "is_fast", False):
        why = f"{type(tokenizer).__name__} does not report where its tokens begin"
        raise OptionError("read", f"must be an index, as {why}, got {item.read!r}")
    last = start + len(item.read) - 1
    spans = tokenizer(item.text, add_special_tokens=False, return_offsets_mapping=True)
    inside = [n for n, (low, high) in enumerate(spans["offset_mapping"]) if low <= last < high]
    if not inside:
        raise InvalidInputError(f"read={item.read!r}: no token of {item.text!r:.60} covers its end")
    # Bytes of one character may be split over several tokens with the same offsets.
    return inside[-1]


def _as_population(name: str, texts: Sequence[str]) -> Population:
    prompts = tuple(Prompt((text,)) for text in texts)
    return Population(name, "text", prompts, (1,), None, None, None, {})
