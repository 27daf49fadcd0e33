"""How a pair of input and output becomes a demonstration, a query and an answer."""

from __future__ import annotations

import dataclasses

from ed_interp.errors import InvalidInputError

DEFAULT_TEMPLATE = "{input} -> {output}\n"


@dataclasses.dataclass(frozen=True, slots=True)
class Template:
    r"""One line of text with ``{input}`` before ``{output}``, each once.

    The query is the text before the answer, without the spaces at its end, which become part of
    the answer: GPT-like tokenizers split words that way.

    >>> template = Template("{input} -> {output}\n")
    >>> template.demonstration("France", "Paris")
    'France -> Paris\n'
    >>> template.query("France"), template.answer("Paris")
    ('France ->', ' Paris')
    """

    text: str = DEFAULT_TEMPLATE

    def __post_init__(self) -> None:
        counts = [self.text.count(part) for part in ("{input}", "{output}")]
        if counts != [1, 1] or self.text.index("{input}") > self.text.index("{output}"):
            raise InvalidInputError(
                f"the template must have {{input}} once and then {{output}} once, got template "
                f"{self.text!r}; for instance {DEFAULT_TEMPLATE!r}"
            )

    @classmethod
    def of(cls, text: str | None) -> Template:
        """The template of a text; the default one for None."""
        return cls() if text is None else cls(text)

    @property
    def _head(self) -> str:
        return self.text[: self.text.index("{output}")]

    def demonstration(self, input: str, output: str) -> str:
        """The whole text of one pair."""
        # Not str.format, as inputs may contain braces.
        before, after = self._head, self.text[self.text.index("{output}") + len("{output}") :]
        return before.replace("{input}", input) + output + after

    def query(self, input: str) -> str:
        """The text before the answer."""
        return self._head.rstrip(" ").replace("{input}", input)

    def answer(self, output: str) -> str:
        """The right continuation of the query."""
        return " " * (len(self._head) - len(self._head.rstrip(" "))) + output
