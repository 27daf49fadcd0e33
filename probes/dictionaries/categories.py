"""Categories of tokens without a judge model: by spelling, and from the built-in tables.

Those by spelling (digits, punctuation, capitalised, ...) exist for every tokenizer. The others are
the words of the built-in relations (countries, capitals, animals, ...) that are single tokens in
the tokenizer. Cost: one decoding of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Categories = dict[str, tuple[int, ...]]
"""Token ids by name."""

_FEWEST = 3
"""A category of fewer tokens says no more than its tokens do."""

_SPELLING: dict[str, Callable[[str], bool]] = {
    "digits": lambda text: text.strip().isdigit(),
    "punctuation": lambda text: bool(text.strip()) and not any(map(str.isalnum, text.strip())),
    "line end": lambda text: "\n" in text,
    "capitalised": lambda text: text.strip()[:1].isupper(),
    "begins a word": lambda text: text[:1] == " " and text[1:2].isalpha(),
    "continues a word": lambda text: text[:1].islower(),
    "one letter": lambda text: len(text.strip()) == 1 and text.strip().isalpha(),
}


def token_texts(tokenizer: Any) -> list[str]:
    """The text of every token, by id."""
    decoded: list[str] = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return decoded


def token_categories(texts: list[str]) -> Categories:
    """The categories of a vocabulary, from its :func:`token_texts`."""
    categories = {
        name: [token for token, text in enumerate(texts) if belongs(text)]
        for name, belongs in _SPELLING.items()
    }
    # The same word with and without the space before it is two tokens.
    ids: dict[str, list[int]] = {}
    for token, text in enumerate(texts):
        ids.setdefault(text.strip(), []).append(token)
    for name, words in _words().items():
        categories[name] = [token for word in sorted(words) for token in ids.get(word, ())]
    return {name: tuple(tokens) for name, tokens in categories.items() if len(tokens) >= _FEWEST}


def _words() -> dict[str, set[str]]:
    """The words of every group of inputs and of every relation's outputs."""
    from ed_interp.models.recipe.corpus import LABELS
    from ed_interp.models.recipe.tables import relations

    words: dict[str, set[str]] = {}
    for name, relation in relations().items():
        if any(" " in source for source, _ in relation.pairs):
            continue  # phrases: none is a single token
        # Relations of a group share their inputs: one category for these, one for each output.
        words.setdefault(f"{relation.group} (input)", set()).update(i for i, _ in relation.pairs)
        words.setdefault(LABELS[name], set()).update(o for _, o in relation.pairs)
    return words
