"""Prompts as token ids with the spans of demonstrations, query and answer."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any

from ed_interp.errors import InvalidInputError, OptionError
from ed_interp.prompts.population import Population, Prompt, check_shots, draw
from ed_interp.prompts.tasks import ListTask, TextTask, as_task, most_shots

Ids = tuple[int, ...]
Span = tuple[int, int]


@dataclasses.dataclass(frozen=True, slots=True)
class ShotTokens:
    """Token ids of one prompt at all its shot counts.

    The k-shot sequence is ``prefix + demonstrations[:k] + queries[k]``.
    """

    prefix: Ids
    """Special tokens that the tokenizer puts first (``<bos>``); may be empty."""
    demonstrations: tuple[Ids, ...]
    queries: tuple[tuple[int, Ids], ...] = ()
    """(shot count, tokens of the query after so many demonstrations), ascending; () for lists."""
    answer: Ids = ()
    """Tokens of the right answer; () without one."""

    @property
    def trunk(self) -> Ids:
        """Prefix and all demonstrations."""
        return self.prefix + tuple(token for demo in self.demonstrations for token in demo)

    @property
    def ends(self) -> tuple[int, ...]:
        """Number of trunk tokens before demonstration k, for k = 0 to K."""
        lengths = (len(demo) for demo in self.demonstrations)
        return tuple(accumulate(lengths, initial=len(self.prefix)))

    def span(self, demonstration: int) -> Span:
        """Positions ``[start, stop)`` of a demonstration, from 0, in any sequence that shows it."""
        ends = self.ends
        return ends[demonstration], ends[demonstration + 1]

    def query(self, shots: int) -> Ids:
        """Tokens of the query at a shot count; () for lists."""
        return dict(self.queries).get(shots, ())

    def sequence(self, shots: int) -> Ids:
        """The whole ``shots``-shot sequence, without the answer."""
        return self.trunk[: self.ends[shots]] + self.query(shots)

    def slots(self, shots: int) -> Iterator[tuple[tuple[str, int, int], int]]:
        """(slot, token) of the ``shots``-shot sequence, without the prefix.

        A slot is a place by structure, (part, number, offset), so that places correspond between
        prompts whose parts differ in length.
        """
        for number, demo in enumerate(self.demonstrations[:shots]):
            for offset, token in enumerate(demo):
                yield ("demonstration", number, offset), token
        for offset, token in enumerate(self.query(shots)):
            yield ("query", shots, offset), token


@dataclasses.dataclass(frozen=True)
class TokenPopulation:
    """A population under a tokenizer."""

    population: Population
    prompts: tuple[ShotTokens, ...]
    tokenization: str
    """``whole``, or ``parts`` if a prompt could not be tokenized as a whole with nested shots."""

    @property
    def shots(self) -> tuple[int, ...]:
        """Shot counts that will be read."""
        return self.population.shots

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence, with its answer."""
        return max(
            len(prompt.sequence(self.shots[-1])) + max(0, len(prompt.answer) - 1)
            for prompt in self.prompts
        )

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of all token ids and shot counts."""
        digest = hashlib.sha256(repr(self.shots).encode())
        for prompt in self.prompts:
            parts = (prompt.prefix, prompt.demonstrations, prompt.queries, prompt.answer)
            digest.update(repr(parts).encode())
        return digest.hexdigest()[:16]


def tokenize(population: Population, tokenizer: Any) -> TokenPopulation:
    """Token ids and spans of every prompt, special tokens first if the tokenizer adds them.

    No tokenizer, or a demonstration, query or answer without any token, is an InvalidInputError.
    """
    if tokenizer is None:
        raise InvalidInputError(
            f"a tokenizer must be given for task {population.task!r}, as this model has no "
            "tokenizer; pass load(model, tokenizer=...)"
        )
    # Tokenizers may split a text differently when more text follows, but the shot counts of a
    # prompt must be nested. So prompts are tokenized as a whole if the splits agree, as they do for
    # templates that end in a line break or a comma, and part by part if not.
    encode = Encoder(tokenizer)
    encode.preload({t for prompt in population.prompts for t in _texts(prompt, population.shots)})
    whole = [_whole(prompt, population.shots, encode) for prompt in population.prompts]
    done = [item for item in whole if item is not None]
    tokenization = "whole"
    # All or none: prompts of one population must be split by the same rule.
    if len(done) < len(whole):
        tokenization = "parts"
        done = [_parts(prompt, population.shots, encode) for prompt in population.prompts]
    for prompt, item in zip(population.prompts, done, strict=True):
        shown = zip(prompt.demonstrations, item.demonstrations, strict=True)
        parts: list[tuple[str, str | None, Ids]] = [("demonstration", *part) for part in shown]
        parts += [("query", prompt.query, ids) for _, ids in item.queries]
        parts += [("answer", prompt.answer, item.answer)] if prompt.answer is not None else []
        for what, text, ids in parts:
            if not ids:
                raise InvalidInputError(f"{what} {text!r} has no tokens; change or remove it")
    return TokenPopulation(population, tuple(done), tokenization)


def sample(
    source: Any,
    tokenizer: Any,
    *,
    prompts: int,
    shots: Iterable[int] | None = None,
    seed: int = 0,
    template: str | None = None,
) -> TokenPopulation:
    """Prompts of any task as tokens, at 0 to 8 shots by default, as far as the task goes.

    Args:
        source: A task or its name; or a population, which is taken as it is.
        tokenizer: The model's tokenizer.
        prompts: Sample size.
        shots: Shot counts. Lists begin at 1, and a shot of running text is a token.
        seed: Random seed.
        template: Template instead of the task's.

    Raises:
        InvalidInputError: as :func:`~ed_interp.prompts.population.draw` and :func:`tokenize`, or
            shots or a template with a population, which has its own.
    """
    if isinstance(source, (Population, TokenPopulation)):
        if shots is not None or template is not None:
            message = "shots and template must be left out with a population, which has its own"
            raise InvalidInputError(message)
        return source if isinstance(source, TokenPopulation) else tokenize(source, tokenizer)
    task = as_task(source, template=template)
    if isinstance(task, TextTask):
        return draw_windows(task, tokenizer, prompts=prompts, shots=shots, seed=seed)
    if shots is None:
        # A list without entities is an empty prompt.
        shots = range(1 if isinstance(task, ListTask) else 0, min(8, most_shots(task)) + 1)
    return tokenize(draw(task, prompts=prompts, shots=shots, seed=seed), tokenizer)


def draw_windows(
    task: TextTask, tokenizer: Any, *, prompts: int, shots: Iterable[int] | None, seed: int
) -> TokenPopulation:
    """Windows of ``task.window`` tokens at random places of its texts; a shot is one token.

    Windows do not cross texts. If the texts have at most ``prompts`` windows, all are taken. No
    tokenizer, shots beyond the window or texts shorter than it are an InvalidInputError.
    """
    if tokenizer is None:
        raise InvalidInputError(f"task {task.name!r} must have a tokenizer; pass tokenizer=")
    counts = check_shots(range(1, task.window + 1) if shots is None else shots)
    if counts[0] < 1 or counts[-1] > task.window:
        limit = f"1 to {task.window} for task {task.name!r}, whose shots are tokens of a window"
        raise OptionError("shots", f"must be {limit}, got {counts[0]} to {counts[-1]}")
    encode = Encoder(tokenizer)
    texts = [ids for text in task.texts if len(ids := encode(text)) >= task.window]
    stops = [len(ids) - task.window + 1 for ids in texts]
    places = [(row, start) for row, stop in enumerate(stops) for start in range(stop)]
    if len(places) < 2:
        raise InvalidInputError(
            f"task {task.name!r} must have at least 2 windows, got {len(places)} window(s) of "
            f"{task.window} tokens in {len(task.texts)} text(s); give more text or a shorter window"
        )
    rng = random.Random(seed)
    chosen = places if len(places) <= prompts else rng.sample(places, prompts)
    cuts = (texts[row][start : start + task.window] for row, start in chosen)
    items = tuple(ShotTokens(encode.prefix, tuple((token,) for token in ids)) for ids in cuts)
    settings = {"prompts": len(items), "seed": seed, "kind": "text", "window": task.window}
    texts_shown = tuple(Prompt(("",) * task.window) for _ in items)
    sizes = (len(places), None, None)
    population = Population(task.name, "text", texts_shown, counts, *sizes, settings)
    return TokenPopulation(population, items, "whole")


class Encoder:
    """Encoding with a cache, and the special tokens that come first."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, Ids] = {}
        probe = tuple(tokenizer("a", add_special_tokens=True)["input_ids"])
        plain = tuple(tokenizer("a", add_special_tokens=False)["input_ids"])
        # Only what comes before the text: special tokens after it (BERT) do not fit causal prompts.
        long = len(plain)
        starts = [n for n in range(len(probe) - long + 1) if probe[n : n + long] == plain]
        self.prefix: Ids = probe[: starts[0]] if starts and plain else ()

    def preload(self, texts: Collection[str]) -> None:
        """Encode many texts at once."""
        # Fast tokenizers are ten times faster in one call; sorted, so that calls are repeatable.
        ordered = sorted(texts)
        if ordered:
            encoded = self._tokenizer(ordered, add_special_tokens=False)["input_ids"]
            self._known |= {text: tuple(ids) for text, ids in zip(ordered, encoded, strict=True)}

    def __call__(self, text: str) -> Ids:
        if not text:
            return ()
        if text not in self._known:
            self.preload([text])
        return self._known[text]


def _texts(prompt: Prompt, shots: Sequence[int]) -> Iterator[str]:
    """Every text that :func:`_whole` encodes."""
    shown = list(accumulate(prompt.demonstrations, initial=""))
    yield from shown[1:]
    if prompt.query is not None:
        for count in shots:
            yield shown[count] + prompt.query
            yield shown[count] + prompt.query + (prompt.answer or "")


def _whole(prompt: Prompt, shots: Sequence[int], encode: Encoder) -> ShotTokens | None:
    """Split where the text of every prefix ends; None if a longer text changes earlier tokens."""
    shown = list(accumulate(prompt.demonstrations, initial=""))
    known = [encode(text) for text in shown]
    if any(longer[: len(ids)] != ids for ids, longer in pairwise(known)):
        return None
    demos = tuple(longer[len(ids) :] for ids, longer in pairwise(known))
    if prompt.query is None:
        return ShotTokens(encode.prefix, demos)
    queries = []
    answers: set[Ids] = set()
    for count in shots:
        before, upto = known[count], encode(shown[count] + prompt.query)
        full = encode(shown[count] + prompt.query + (prompt.answer or ""))
        if upto[: len(before)] != before or full[: len(upto)] != upto:
            return None
        queries.append((count, upto[len(before) :]))
        answers.add(full[len(upto) :])
    # The answer must have the same tokens at every shot count.
    return None if len(answers) > 1 else ShotTokens(encode.prefix, demos, tuple(queries), *answers)


def _parts(prompt: Prompt, shots: Sequence[int], encode: Encoder) -> ShotTokens:
    demos = tuple(encode(demo) for demo in prompt.demonstrations)
    if prompt.query is None:
        return ShotTokens(encode.prefix, demos)
    query, answer = encode(prompt.query), encode(prompt.answer or "")
    return ShotTokens(encode.prefix, demos, tuple((count, query) for count in shots), answer)
