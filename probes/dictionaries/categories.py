"""Categories of tokens, known without a judge: by what is written, and from the built-in tables.

Orthographic ones (digits, punctuation, capitalised, ...) exist for every tokenizer. The others are
the words of the built-in relations (countries, capitals, animals, ...), as far as the tokenizer
has them as single tokens. Cost: one decoding of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_LEAST = 3
"""A category of fewer tokens says nothing that a token would not."""

_WRITTEN: dict[str, Callable[[str], bool]] = {
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


def token_categories(texts: list[str]) -> dict[str, tuple[int, ...]]:
    """Token ids by category.

    Args:
        texts: From :func:`token_texts`.
    """
    found = {
        name: [token for token, text in enumerate(texts) if is_one(text)]
        for name, is_one in _WRITTEN.items()
    }
    ids: dict[str, list[int]] = {}
    for token, text in enumerate(texts):
        ids.setdefault(text.strip(), []).append(token)
    for name, words in _words().items():
        found[name] = [token for word in sorted(words) for token in ids.get(word, ())]
    return {name: tuple(tokens) for name, tokens in found.items() if len(tokens) >= _LEAST}


def _words() -> dict[str, set[str]]:
    """The words of every group of inputs and of every relation's outputs."""
    from ed_interp.models.recipe.tables import relations
    from ed_interp.models.recipe.text import LABELS

    words: dict[str, set[str]] = {}
    for name, relation in relations().items():
        if any(" " in source for source, _ in relation.pairs):
            continue  # phrases: no token is one
        words.setdefault(f"{relation.group} (input)", set()).update(i for i, _ in relation.pairs)
        words.setdefault(LABELS[name], set()).update(o for _, o in relation.pairs)
    return words
