r"""Examples to train on: pairs, chats, sessions and running text, as tokens with a loss mask.

Use::

    examples = read_examples("pairs.jsonl")
    training, held_out = split(examples, share=0.1, seed=0)
    rows = encode_all(training, tokenizer)

A file's rows say what it holds:

- ``input`` and ``output``: pairs, written by the template; the loss is on the output and what the
  template puts behind it, so that the model learns where an answer ends;
- the same with ``session``: the rows of one session, in the order of the file, are turns of one
  example;
- ``messages``, a list of objects with ``role`` and ``content``: a chat, a turn up to each message
  of the assistant, on which the loss is;
- ``text``, or a ``.txt`` file (documents apart by an empty line): the loss is on everything.

Cost: the file is held in memory, as text and then as tokens.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ed_interp.errors import InvalidInputError
from ed_interp.prompts.files import cell, read_rows, text_from_file
from ed_interp.prompts.template import Template
from ed_interp.prompts.tokens import _Encoder

IGNORED = -100
"""The label of a token without loss, as ``transformers`` has it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A piece of text, with or without loss."""

    text: str
    trained: bool


Turn = tuple[Part, ...]
"""What one call of the model would see."""


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One row, chat or session: turns in order."""

    turns: tuple[Turn, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids and labels of one turn; :data:`IGNORED` where there is no loss."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]


def read_examples(
    path: str | Path,
    *,
    input: str = "input",
    output: str = "output",
    template: str | None = None,
    answers_only: bool = True,
) -> list[Example]:
    """The examples of a file; the module's text says which rows make what.

    Args:
        path: ``.jsonl``, ``.json``, ``.csv``, ``.parquet`` or ``.txt``, in UTF-8.
        input: name of the input column.
        output: name of the output column.
        template: of pairs; see :class:`~ed_interp.prompts.template.Template`.
        answers_only: loss on the answers only; False puts it on every token.

    Raises:
        InvalidInputError: no such file, damaged, empty, or rows of another shape; the row is named.
    """
    file = Path(path)
    if file.suffix.lower() == ".txt":
        task = text_from_file(file)
        examples = [Example(((Part(text, True),),)) for text in task.texts if text.strip()]
    else:
        rows = read_rows(file)
        examples = _examples(rows, file, input, output, Template(template) if template else None)
    if not answers_only:
        examples = [Example(tuple(_all_trained(turn) for turn in each.turns)) for each in examples]
    return examples


def examples_of_pairs(
    pairs: Sequence[tuple[str, str]], *, template: str | None = None
) -> list[Example]:
    """An example per pair of input and output, with the loss on the output."""
    shape = Template(template) if template else Template()
    return [Example((_pair(input, output, shape),)) for input, output in pairs]


def split(
    examples: Sequence[Example], *, share: float, seed: int
) -> tuple[list[Example], list[Example]]:
    """(training, held out): a random share of the examples, at least one, is held out.

    Both keep the order of ``examples``; a share of 0 holds nothing out.

    Raises:
        InvalidInputError: a share outside 0 to 1, or too few examples to hold one out.
    """
    if not 0 <= share < 1:
        raise InvalidInputError(f"the held-out share must be at least 0 and below 1, found {share}")
    if share == 0:
        return list(examples), []
    if len(examples) < 2:
        raise InvalidInputError(
            f"{len(examples)} example(s): nothing can be held out; pass more, or a share of 0"
        )
    count = min(len(examples) - 1, max(1, round(share * len(examples))))
    held = set(random.Random(seed).sample(range(len(examples)), count))
    kept = [each for row, each in enumerate(examples) if row not in held]
    return kept, [each for row, each in enumerate(examples) if row in held]


def fingerprint(examples: Sequence[Example]) -> str:
    """SHA-256 of all texts and masks: the hash of the data in a model card."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr([[(p.text, p.trained) for p in t] for t in example.turns]).encode())
    return digest.hexdigest()


def encode_all(
    examples: Sequence[Example], tokenizer: Any, *, apart: bool = False, longest: int | None = None
) -> list[list[Encoded]]:
    """:func:`encode` for every example.

    Raises:
        InvalidInputError: no tokenizer, or an example that cannot be used.
    """
    if tokenizer is None:
        raise InvalidInputError("the data is text and this model has no tokenizer; pass tokenizer=")
    encoder = _Encoder(tokenizer)
    return [encode(example, encoder, apart=apart, longest=longest) for example in examples]


def encode(
    example: Example, encoder: _Encoder, *, apart: bool = False, longest: int | None = None
) -> list[Encoded]:
    """Token ids and labels: one sequence, or with ``apart`` one for every turn.

    Every part is tokenised on its own, so that no token straddles the border of loss and no loss.
    Special tokens that the tokenizer puts first by itself come first.

    Raises:
        InvalidInputError: a sequence without any token that carries loss, or one longer than
            ``longest``.
    """
    turns = [(turn,) for turn in example.turns] if apart else [example.turns]
    found = []
    for turn in turns:
        ids, labels = list(encoder.prefix), [IGNORED] * len(encoder.prefix)
        for part in (part for parts in turn for part in parts):
            new = encoder(part.text)
            ids += new
            labels += new if part.trained else [IGNORED] * len(new)
        if longest is not None and len(ids) > longest:
            start = "".join(part.text for parts in turn for part in parts)[:40]
            raise InvalidInputError(
                f"the example {start!r}... has {len(ids)} tokens and the model takes {longest}; "
                "cut it"
            )
        found.append(Encoded(tuple(ids), tuple(labels)))
    if all(label == IGNORED for each in found for label in each.labels[1:]):
        start = example.turns[0][0].text[:40]
        raise InvalidInputError(f"the example {start!r}... has no token with loss")
    return found


def _examples(
    rows: Sequence[Mapping[str, Any]], file: Path, input: str, output: str, shape: Template | None
) -> list[Example]:
    shape = shape or Template()
    first = rows[0]
    if "messages" in first:
        return [_chat(row, f"{file}, row {n}") for n, row in enumerate(rows, 1)]
    if "text" in first and input not in first:
        texts = [_column(row, "text", f"{file}, row {n}") for n, row in enumerate(rows, 1)]
        return [Example(((Part(text, True),),)) for text in texts]
    if "session" not in first:
        return [
            Example((_pair_of(row, input, output, shape, f"{file}, row {n}"),))
            for n, row in enumerate(rows, 1)
        ]
    sessions: dict[str, list[Turn]] = {}
    for n, row in enumerate(rows, 1):
        name = _column(row, "session", f"{file}, row {n}")
        turn = _pair_of(row, input, output, shape, f"{file}, row {n}")
        sessions.setdefault(name, []).append(turn)
    return [Example(tuple(turns)) for turns in sessions.values()]


def _pair_of(row: Mapping[str, Any], input: str, output: str, shape: Template, where: str) -> Turn:
    return _pair(_column(row, input, where), _column(row, output, where), shape)


def _pair(input: str, output: str, shape: Template) -> Turn:
    question = shape.query(input)
    whole = shape.demonstration(input, output)
    return Part(question, False), Part(whole[len(question) :], True)


def _column(row: Mapping[str, Any], name: str, where: str) -> str:
    if name not in row:
        raise InvalidInputError(
            f"{where}: no {name!r}; found columns {', '.join(map(repr, row)) or 'none'}; pairs "
            "(input and output), chats (messages) or texts (text) are expected; name the columns "
            "of pairs with input= and output= (--input-column, --output-column)"
        )
    return cell(row[name], name, where)


def _chat(row: Mapping[str, Any], where: str) -> Example:
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidInputError(f"{where}: 'messages' must be a list of role and content")
    turns: list[Turn] = []
    parts: list[Part] = []
    for message in messages:
        if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
            raise InvalidInputError(f"{where}: a message needs 'role' and 'content'")
        role, content = cell(message["role"], "role", where), str(message["content"] or "").strip()
        if role != "assistant":
            parts.append(Part(f"{role}: {content}\n", False))
            continue
        parts += [Part("assistant:", False), Part(f" {content}\n", True)]
        turns.append(tuple(parts))
        parts = []
    if not turns:
        raise InvalidInputError(f"{where}: no message of the assistant, so nothing to learn from")
    return Example(tuple(turns))


def _all_trained(turn: Turn) -> Turn:
    return tuple(Part(part.text, True) for part in turn)
