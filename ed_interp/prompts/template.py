"""How a pair of input and output becomes a demonstration, a query and an answer."""

from __future__ import annotations

import dataclasses

from ed_interp.errors import InvalidInputError

DEFAULT_TEMPLATE = "{input} -> {output}\n"


@dataclasses.dataclass(frozen=True, slots=True)
class Template:
    r"""One line of text with ``{input}`` before ``{output}``, each once.

    The query is the text up to the answer, without the spaces before it, which become part of the
    answer: that is how GPT-like tokenizers cut words.

    >>> template = Template("{input} -> {output}\n")
    >>> template.demonstration("France", "Paris")
    'France -> Paris\n'
    >>> template.query("France"), template.answer("Paris")
    ('France ->', ' Paris')
    """

    text: str = DEFAULT_TEMPLATE

    def __post_init__(self) -> None:
        found = {part: self.text.count(part) for part in ("{input}", "{output}")}
        if set(found.values()) != {1} or self.text.index("{input}") > self.text.index("{output}"):
            raise InvalidInputError(
                f"template {self.text!r} needs {{input}} once and then {{output}} once, "
                f"found {found['{input}']} and {found['{output}']}; "
                f"for instance {DEFAULT_TEMPLATE!r}"
            )

    @property
    def _head(self) -> str:
        return self.text[: self.text.index("{output}")]

    def demonstration(self, input: str, output: str) -> str:
        """The whole text of one pair."""
        # Not str.format: inputs may hold braces of their own.
        before, after = self._head, self.text[self.text.index("{output}") + len("{output}") :]
        return before.replace("{input}", input) + output + after

    def query(self, input: str) -> str:
        """The text up to the answer."""
        return self._head.rstrip(" ").replace("{input}", input)

    def answer(self, output: str) -> str:
        """What should follow the query."""
        return " " * (len(self._head) - len(self._head.rstrip(" "))) + output
