"""What a sweep is measured on: prompts with a wanted continuation and, usually, an unwanted one.

The score of a sample is ``log p(wanted | prompt) - log p(unwanted | prompt)`` in nats (Tan et al.
2024, arXiv 2407.12404, call its change under steering steerability); without an unwanted
continuation, the first term. Steering that only makes everything unlikely does not raise it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ed_interp.errors import InvalidInputError, OptionError
from ed_interp.models.hooked import HookedModel
from ed_interp.prompts.files import read_rows
from ed_interp.prompts.population import Population, Prompt
from ed_interp.prompts.tokens import Ids, tokenize

FEWEST = 8
"""Samples below which two halves are too small."""


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """A prompt with its continuations, which carry their own leading space."""

    prompt: str
    wanted: str
    unwanted: str | None = None


def samples_from_file(path: str | Path) -> list[Sample]:
    """Samples from JSONL, JSON, CSV or Parquet: columns prompt, wanted and optionally unwanted."""
    samples = []
    for number, row in enumerate(read_rows(path), 1):
        where = f"{path}, row {number}"
        # Cells are taken with their leading spaces (unlike in files of pairs), which are part of
        # the word for most tokenizers.
        missing = [name for name in ("prompt", "wanted") if not isinstance(row.get(name), str)]
        if missing:
            raise InvalidInputError(
                f"{where}: no text in {' and '.join(missing)}; the columns must be prompt, wanted "
                f"and unwanted, got {', '.join(map(repr, row)) or 'none'}"
            )
        unwanted = row.get("unwanted")
        if unwanted is not None and not isinstance(unwanted, str):
            raise InvalidInputError(f"{where}: 'unwanted' must be text, got {unwanted!r:.40}")
        samples.append(Sample(row["prompt"], row["wanted"], unwanted or None))
    return samples


def check_samples(samples: Sequence[Sample]) -> None:
    """Refuse samples that nothing can be measured on: too few, empty, or equal continuations."""
    if len(samples) < FEWEST:
        raise OptionError("samples", f"must be {FEWEST} or more, got {len(samples)}")
    for row, sample in enumerate(samples, 1):
        if not sample.prompt.strip() or not sample.wanted.strip() or sample.unwanted == "":
            raise InvalidInputError(f"sample {row}: an empty prompt or continuation; remove it")
        if sample.wanted == sample.unwanted:
            twice = f"{sample.wanted!r:.40} twice"
            raise InvalidInputError(f"sample {row}: wanted and unwanted must differ, got {twice}")


@dataclasses.dataclass(frozen=True)
class Question:
    """Token ids of a prompt and of one continuation of it."""

    prompt: Ids
    answer: Ids


def questions(hooked: HookedModel, pairs: Sequence[tuple[str, str]]) -> list[Question]:
    """(prompt, continuation) texts as token ids."""
    texts = tuple(Prompt((), prompt, answer) for prompt, answer in pairs)
    population = Population("samples", "labelled", texts, (0,), None, None, None, {})
    tokens = tokenize(population, hooked.tokenizer).prompts
    return [Question(item.sequence(0), item.answer) for item in tokens]
