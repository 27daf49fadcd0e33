"""Text that dictionaries are trained and measured on, as windows of token ids.

A source is a name and either fixed texts (a file, a data set, the prompts of a task) or the
bundled recipe's own generator, which needs no file and never ends. A document is cut into windows
of at most ``window`` tokens; a window begins where its document does, or where the last one ended,
with the special tokens that the tokenizer puts first.

Held-out text: every tenth window of fixed texts; an independent stream of draws from the generator
(the grammar is finite, so a short sentence may occur in both parts). Cost: fixed texts are
tokenized once and kept, 8 bytes per token; generated ones are made as they are read, 2 microseconds
per token.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.options import OptionError, takes_options
from ed_interp.probes.dictionaries.options import WINDOW, SourceOptions, TextOptions
from ed_interp.prompts.tasks import LabelledTask, ListTask, MixedTask, TextTask, builtin_task

Ids = tuple[int, ...]
Part = Literal["train", "held-out"]

HELD_OUT_EVERY = 10
"""One window of fixed texts in so many is kept for measuring."""

_GENERATED = "corpus"
_TASK_SHOTS = 8
_TASK_PROMPTS = 2000
_EMPTY = "{!r} holds no text; pass some, or drop it"


@dataclasses.dataclass(frozen=True)
class TextSource:
    """Where text comes from. Made by :func:`text_source`."""

    name: str
    texts: tuple[str, ...] | None
    """The documents; None for the generator."""

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's record; equal for equal text."""
        if self.texts is None:
            return {"name": self.name}
        # A separator keeps the texts ab, c and a, bc apart.
        digest = hashlib.sha256("\0".join(self.texts).encode("utf-8", errors="replace"))
        sha256 = digest.hexdigest()[:16]
        return {"name": self.name, "documents": len(self.texts), "sha256": sha256}


@takes_options(SourceOptions)
def text_source(
    text: Any = None, *, options: SourceOptions, limit: int | None = 20_000
) -> TextSource:
    """One source of text; by default the bundled models' own generated text.

    Args:
        text: A ``.txt`` file (an empty line ends a document), a ``.json`` list of strings, the
            texts themselves, or a source, which is returned as it is.
        limit: Most rows of a data set to take, evenly spaced; None is all.

    Raises:
        InvalidInputError: two sources, no text, or a file or data set that cannot be read.
        UnknownNameError: no such task.
    """
    if isinstance(text, TextSource):
        return text
    if isinstance(text, (str, Path)):
        from ed_interp.prompts.files import text_from_file

        text = text_from_file(text)
    if isinstance(text, TextTask):
        return _fixed(text.name, text.texts)
    if text is not None:
        return _fixed("texts", tuple(text))
    if options.task is not None:
        return _fixed(options.task, _prompts_of(builtin_task(options.task)))
    if options.dataset is not None:
        name = options.dataset.rstrip("/").rsplit("/", 1)[-1]
        return _fixed(name, _dataset_texts(options.dataset, options, limit))
    return TextSource(_GENERATED, None)


def windows_of(
    options: TextOptions, hooked: HookedModel, text: Any = None, *, window: int = WINDOW
) -> Windows:
    """Windows of the text that ``options`` name, or of ``text`` if it is given.

    They have ``window`` tokens or the model's context, unless the options say otherwise.
    """
    usual = min(window, hooked.context_window or window)
    source = text_source(text, options=options)
    return Windows(source, hooked, window=options.window or usual)


class Windows:
    """The windows of a source under a model's tokenizer."""

    def __init__(self, source: TextSource, hooked: HookedModel, *, window: int) -> None:
        """Tokenize fixed texts at once."""
        if hooked.tokenizer is None:
            raise InvalidInputError(
                f"{source.name!r} is text, and this model has no tokenizer; "
                "pass load(model, tokenizer=...)"
            )
        limit = hooked.context_window
        if window < 2 or (limit is not None and window > limit):
            most = f"to {limit}" if limit else "or more"
            raise OptionError("window", f"must be 2 {most} tokens with {hooked.name}, got {window}")
        self.source = source
        self.window = window
        self._tokenizer = hooked.tokenizer
        self.prefix: Ids = _prefix(hooked.tokenizer)
        self._room = window - len(self.prefix)
        self._fixed = None if source.texts is None else self._cut(source.texts)
        if self._fixed is not None and not self._fixed:
            raise InvalidInputError(_EMPTY.format(source.name))

    def settings(self) -> dict[str, Any]:
        """What was read, for the settings of a result."""
        return {"text": self.source.describe(), "window": self.window}

    def tokens(self, part: Part) -> int | None:
        """Tokens in a part, without special ones; None for the generator, which never ends."""
        if self._fixed is None:
            return None
        return sum(len(ids) - len(self.prefix) for ids in self._of(part))

    def once(self, part: Part, *, seed: int, tokens: int) -> list[Ids]:
        """The first windows of a part, of at least ``tokens`` tokens in all if it holds so many."""
        stream = self._of(part) if self._fixed is not None else self.endless(part, seed=seed)
        return self.first(stream, tokens)

    def first(self, windows: Iterable[Ids], tokens: int) -> list[Ids]:
        """The first of ``windows``, of at least ``tokens`` tokens in all if they hold so many."""
        taken: list[Ids] = []
        left = tokens
        for ids in windows:
            if left <= 0:
                break
            taken.append(ids)
            left -= len(ids) - len(self.prefix)
        return taken

    def endless(self, part: Part, *, seed: int) -> Iterator[Ids]:
        """Windows without end: fixed ones again and again, each time in another order."""
        if self._fixed is None:
            for texts in _generated(part, seed):
                yield from self._cut(texts)
        ordered = self._of(part)
        for epoch in itertools.count():
            # Seeded by text, which Python hashes alike in every process.
            rng = random.Random(f"windows {seed} {epoch}")
            yield from rng.sample(ordered, len(ordered))

    def _of(self, part: Part) -> list[Ids]:
        assert self._fixed is not None
        if len(self._fixed) < HELD_OUT_EVERY:
            return self._fixed  # too little to divide; the record says how much text it was
        tenth, kept = slice(HELD_OUT_EVERY - 1, None, HELD_OUT_EVERY), list(self._fixed)
        if part == "held-out":
            return kept[tenth]
        del kept[tenth]
        return kept

    def _cut(self, texts: Sequence[str]) -> list[Ids]:
        # verbose=False: documents longer than the context are cut here, no reason for a warning.
        encoded = self._tokenizer(list(texts), add_special_tokens=False, verbose=False)
        return [
            (*self.prefix, *ids[start : start + self._room])
            for ids in encoded["input_ids"]
            for start in range(0, len(ids), self._room)
        ]


def _prefix(tokenizer: Any) -> Ids:
    """The special tokens that a tokenizer puts before a text."""
    # Read off an encoding, as tokenizers disagree about which special tokens they add.
    whole = list(tokenizer("a")["input_ids"])
    (first, *_) = tokenizer("a", add_special_tokens=False)["input_ids"]
    return tuple(whole[: whole.index(first)])


def _fixed(name: str, texts: tuple[str, ...]) -> TextSource:
    kept = tuple(text for text in texts if text.strip())
    if not kept:
        raise InvalidInputError(_EMPTY.format(name))
    return TextSource(name, kept)


def _generated(part: Part, seed: int) -> Iterator[list[str]]:
    """Batches of documents of every kind in the bundled models' recipe."""
    from ed_interp.models.recipe.corpus import Corpus, join

    # The seed of the recipe divides facts into known and held-out ones, and the models were trained
    # with 0. What is drawn here depends on the name of the stream instead.
    corpus = Corpus(seed=0, stream=f"dictionaries {part} {seed}")
    rng = corpus.rng
    while True:
        documents = [
            *(corpus.icl(pairs=rng.randint(2, 16)) for _ in range(8)),
            *(corpus.plain(parts=rng.randint(2, 8)) for _ in range(6)),
            corpus.repeat(length=rng.randint(4, 16), copies=3),
            corpus.listing(),
        ]
        yield [join(document) for document in documents]


def _prompts_of(task: ListTask | LabelledTask | MixedTask) -> tuple[str, ...]:
    from ed_interp.prompts.population import draw
    from ed_interp.prompts.tasks import most_shots

    shots = min(_TASK_SHOTS, most_shots(task))
    drawn = draw(task, prompts=_TASK_PROMPTS, shots=[shots])
    return tuple(
        "".join(prompt.demonstrations) + (prompt.query or "") + (prompt.answer or "")
        for prompt in drawn.prompts
    )


def _dataset_texts(dataset: str, options: SourceOptions, limit: int | None) -> tuple[str, ...]:
    import datasets

    column, split = options.column or "text", options.split or "train"
    try:
        data = datasets.load_dataset(dataset, options.config, split=split)
    except Exception as error:  # its own errors, the hub's and the file systems' share no base
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise InvalidInputError(
            f"cannot load data set {dataset!r}, split {split!r}: {reason}; offline, use a local "
            "folder, or a .txt or .json file (--text FILE)"
        ) from error
    if column not in data.column_names:
        raise InvalidInputError(
            f"data set {dataset!r} has no column {column!r}; its columns are "
            f"{', '.join(data.column_names)}; name one by column (--column)"
        )
    if limit is not None and len(data) > limit:
        # Evenly spaced, as data sets are often sorted by class or source.
        data = data.select([place * len(data) // limit for place in range(limit)])
    return tuple(text for text in data[column] if isinstance(text, str))
