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
- ``messages``, a list of objects with ``role`` and ``content``: a chat, whose turns end with each
  message of the assistant; the loss is on those messages;
- ``text``, or a ``.txt`` file (documents separated by an empty line): the loss is on everything.

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
from ed_interp.prompts.tokens import Encoder

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
    input_column: str = "input",
    output_column: str = "output",
    template: str | None = None,
    all_tokens: bool = False,
) -> list[Example]:
    """The examples of a file; the module's text says which rows make what.

    Args:
        path: ``.jsonl``, ``.json``, ``.csv``, ``.parquet`` or ``.txt``, in UTF-8.
        input_column: name of the input column.
        output_column: name of the output column.
        template: text of a pair; see :class:`~ed_interp.prompts.template.Template`.
        all_tokens: put loss on every token, not only on answers.

    Raises:
        InvalidInputError: no such file, damaged, empty, or rows of another shape; the row is named.
    """
    file = Path(path)
    if file.suffix.lower() == ".txt":
        task = text_from_file(file)
        examples = [Example(((Part(text, True),),)) for text in task.texts if text.strip()]
    else:
        shape = Template(template) if template else Template()
        examples = _examples(read_rows(file), file, (input_column, output_column), shape)
    if not all_tokens:
        return examples
    texts = [[[part.text for part in turn] for turn in each.turns] for each in examples]
    return [Example(tuple(tuple(Part(t, True) for t in turn) for turn in each)) for each in texts]


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
        raise InvalidInputError(f"the held-out share must be from 0 to below 1, got {share}")
    if share == 0:
        return list(examples), []
    if len(examples) < 2:
        raise InvalidInputError(
            f"examples must be 2 or more to hold one out, got {len(examples)}; pass more, or an "
            "eval_share of 0"
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
    examples: Sequence[Example],
    tokenizer: Any,
    *,
    separate: bool = False,
    max_tokens: int | None = None,
) -> list[list[Encoded]]:
    """Token ids and labels of each example: one sequence, or with ``separate`` one for every turn.

    Special tokens that the tokenizer puts first by itself come first in each sequence.

    Raises:
        InvalidInputError: no tokenizer, an example of which no token carries loss, or a sequence
            longer than ``max_tokens``.
    """
    if tokenizer is None:
        raise InvalidInputError(
            "the model must have a tokenizer, as the data is text; pass tokenizer=, or wrap a live "
            "model with ed_interp.load(model, tokenizer=...)"
        )
    encoder = Encoder(tokenizer)
    rows = []
    for example in examples:
        encoded = []
        for turns in [(turn,) for turn in example.turns] if separate else [example.turns]:
            ids, labels = list(encoder.prefix), [IGNORED] * len(encoder.prefix)
            for part in (part for turn in turns for part in turn):
                # Each part on its own, so that no token lies across the border of loss and no loss.
                new = encoder(part.text)
                ids += new
                labels += new if part.trained else [IGNORED] * len(new)
            if max_tokens is not None and len(ids) > max_tokens:
                raise InvalidInputError(
                    f"examples must have {max_tokens} tokens or less for this model, got "
                    f"{len(ids)} in {turns[0][0].text[:40]!r}...; shorten it"
                )
            encoded.append(Encoded(tuple(ids), tuple(labels)))
        # The first label of a sequence is never predicted: no token comes before it.
        if all(label == IGNORED for each in encoded for label in each.labels[1:]):
            raise InvalidInputError(
                f"the example {example.turns[0][0].text[:40]!r}... must have a token with loss, "
                "got none"
            )
        rows.append(encoded)
    return rows


def _examples(
    rows: Sequence[Mapping[str, Any]], file: Path, columns: tuple[str, str], shape: Template
) -> list[Example]:
    named = [(row, f"{file}, row {number}") for number, row in enumerate(rows, 1)]
    first = rows[0]
    if "messages" in first:
        return [_chat(row, where) for row, where in named]
    if "text" in first and columns[0] not in first:
        texts = [_column(row, "text", where) for row, where in named]
        return [Example(((Part(text, True),),)) for text in texts]
    sessions: dict[str, list[Turn]] = {}
    for number, (row, where) in enumerate(named):
        # Without a session a row is a session of its own.
        name = _column(row, "session", where) if "session" in first else str(number)
        input, output = (_column(row, column, where) for column in columns)
        sessions.setdefault(name, []).append(_pair(input, output, shape))
    return [Example(tuple(turns)) for turns in sessions.values()]


def _pair(input: str, output: str, shape: Template) -> Turn:
    # The query ends before the spaces that lead to the answer; they belong to its first token.
    question = shape.query(input)
    whole = shape.demonstration(input, output)
    return Part(question, False), Part(whole[len(question) :], True)


def _column(row: Mapping[str, Any], name: str, where: str) -> str:
    if name not in row:
        raise InvalidInputError(
            f"{where} must have a column {name!r}, got {', '.join(map(repr, row)) or 'none'}; give "
            "pairs (input and output), chats (messages) or texts (text), and name the columns of "
            "pairs with input_column and output_column (--input-column, --output-column)"
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
            raise InvalidInputError(f"{where}: a message must have 'role' and 'content'")
        role, content = cell(message["role"], "role", where), str(message["content"] or "").strip()
        # Everything up to a message of the assistant leads to it, without loss.
        if role != "assistant":
            parts.append(Part(f"{role}: {content}\n", False))
            continue
        parts += [Part("assistant:", False), Part(f" {content}\n", True)]
        turns.append(tuple(parts))
        parts = []
    if not turns:
        raise InvalidInputError(f"{where} must have a message of the assistant to learn from")
    return Example(tuple(turns))
