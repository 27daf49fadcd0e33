"""The template of a paper: Markdown with Jinja, in which no number stands for itself.

What an expression prints is kept apart from the Markdown: the rendered text holds a mark for each
value, and the value is put in its place only when the page is written. So nothing that a record
holds is ever read as Markdown or HTML, and every number leads to its source.

A digit in the template's own words is refused when the template is loaded, unless it is

- in a code span (`` `gpt2` ``) or part of a name that begins with a capital letter (GPT-2, E5),
- in an entry of the list of references, a line ``[@key Author, 2021]: Title. Place.``,
- a number format in an expression (``{{ row.mean(".3g") }}``), or a number that only chooses
  (``rows[:12]``): an expression that prints a number or a text with a digit is refused as well.

Cost: 0.1 s to compile the template, and a second for a paper of 10,000 values.
"""

from __future__ import annotations

import dataclasses
import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ed_interp.errors import InvalidInputError
from ed_interp.eval.paper.records import Place, Record
from ed_interp.eval.paper.values import Code, Part, Picture, Value, Work

# A mark is a number between private-use characters, which have no meaning in Markdown or HTML: to
# the parser it is a letter, so that **bold** closes after it and a table cell may hold it.
MARK = re.compile("\ue000(\\d+)\ue001")
ENTRY = re.compile(r"^\[@([\w-]*) ?([^\]]*)\]: (.*)\n?", re.M)
CITATION = re.compile(r"\[@([\w-]+)\]")
# A code span ends with its paragraph at the latest, so that a stray ` cannot hide a page of digits.
_NAMES = re.compile(r"`(?:[^`\n]|\n(?!\s*\n))*`|\b[A-Z]\w*(?:-\w+)*")
# A number format is the last word of a string, or all of it: "+.3g", "gain* +.3g".
_FORMAT = re.compile(r"(?:^|(?<=\s))[+,]?(?:\.\d)?[defg]?$")
_EXPRESSION = "\ue002"
TABLE = re.compile(r"((?:^\|.*\n)+)", re.M)
MOST_ROWS = 300
"""Of one table; the record has the rest."""


@dataclasses.dataclass(frozen=True)
class Draft:
    """The rendered text: Markdown with a mark for every part."""

    text: str
    parts: tuple[Part, ...]

    def values(self, text: str | None = None) -> list[Value]:
        """Every value of a text, by default of all of it, in its order."""
        return [part for part in self._parts(text) if isinstance(part, Value)]

    def pictures(self) -> list[Picture]:
        """Every picture, in the order of the page."""
        return [part for part in self._parts() if isinstance(part, Picture)]

    def _parts(self, text: str | None = None) -> Iterator[Part]:
        return (self.parts[int(m[1])] for m in MARK.finditer(self.text if text is None else text))

    def filled(self, text: str, write: Callable[[Part], str]) -> str:
        """Text with its marks replaced by what ``write`` makes of the parts."""
        return MARK.sub(lambda mark: write(self.parts[int(mark[1])]), text)


class Template:
    """A checked template, which can be rendered over records.

    ``name`` is its file, for messages; ``filters`` are what it can ask of places, besides what
    Jinja has.

    Raises:
        InvalidInputError: it is no valid template, it holds a number that comes from no record, or
            it cites a work that it does not list; says in which line.
    """

    def __init__(
        self, source: str, name: str, filters: Mapping[str, Callable[..., Any]] | None = None
    ) -> None:
        self.name, self.source = name, source
        self._environment = _Environment()
        self._environment.filters.update(filters or {})
        works = self.works = {entry[0]: Work(*entry) for entry in ENTRY.findall(source)}
        try:
            tree = self._environment.parse(source)
            self._compiled = self._environment.from_string(source)
        except jinja2.TemplateSyntaxError as error:
            raise self._refused(error.lineno, str(error.message)) from error
        words = self._own_words(source)
        for citation in CITATION.finditer(words):
            if citation[1] not in works:
                reason = f"{citation[0]} must be in the list of references"
                line = 1 + words.count("\n", 0, citation.start())
                raise self._refused(line, f"{reason}; add a line `[@{citation[1]} Label]: ...`")
        if (place := _own_digit(words)) is not None:
            self._refuse_digit(1 + words.count("\n", 0, place), words, place)
        for constant in tree.find_all(nodes.Const):
            text = _FORMAT.sub("", constant.value) if isinstance(constant.value, str) else ""
            if (place := _own_digit(text)) is not None:
                self._refuse_digit(constant.lineno, text, place)

    def _own_words(self, source: str) -> str:
        """The template without its expressions and its list of references, line by line."""
        text, lines = "", 1
        for line, kind, token in self._environment.lex(source):
            # Whitespace control drops text before a block, so lines are counted by the lexer. All
            # words stay in one text: a code span may go on behind an expression.
            piece = "\n" * (line - lines) + (token if kind == "data" else _EXPRESSION)
            text, lines = text + piece, lines + piece.count("\n")
        return ENTRY.sub("\n", text)

    def _refused(self, line: int, reason: str) -> InvalidInputError:
        return InvalidInputError(f"{self.name}, line {line}: {' '.join(reason.split())}")

    def _refuse_digit(self, line: int, text: str, place: int) -> None:
        around = text[max(0, place - 30) : place + 20].replace(_EXPRESSION, " ")
        around = " ".join(around.split())
        reason = f"the text must take its numbers from a record, got {around!r}; print a value"
        raise self._refused(line, f"{reason}, or put a name in `code` marks")

    def render(self, names: Mapping[str, Any]) -> Draft:
        """The text with these variables and functions.

        Raises:
            InvalidInputError: an expression prints a number that no record holds, or fails.
        """
        parts: list[Part] = []
        try:
            text = self._compiled.render(names, _parts=parts)
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise self._refused(_line_of(error), str(error)) from error
        return _cited(_tidy(text), parts, self.works)


@jinja2.pass_context
def _marked(context: jinja2.runtime.Context, item: Any) -> str:
    """What an expression puts into the text: a mark for a part, and no number of its own."""
    if isinstance(item, Place):
        item = item()
    if isinstance(item, jinja2.Undefined):
        str(item)  # which raises, with the name
    if isinstance(item, Part):
        return _mark(context["_parts"], item)
    if not isinstance(item, str) or _own_digit(MARK.sub("", item)) is not None:
        raise TypeError(f"printed text must come from a record, got {item!r:.60}")
    return item


def _mark(parts: list[Part], part: Part) -> str:
    parts.append(part)
    return f"\ue000{len(parts) - 1}\ue001"


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja in its sandbox, with steps into records as attributes: ``study.problem.name``."""

    def __init__(self) -> None:
        super().__init__(
            finalize=_marked, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self.tests.update(known=lambda p: p.known, measured=lambda p: p.raw is not None)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Place):
            # A record may hold a key such as "path", which is an attribute of Place as well.
            return obj[attribute]
        value = super().getattr(obj, attribute)
        # Folder and command are a user's text, which must not be read as Markdown.
        plain = not isinstance(obj, Record) or attribute == "kind"
        return Code(value) if isinstance(value, str) and value and not plain else value


def _own_digit(text: str) -> int | None:
    """Where the text has a digit outside code spans and names; None if it has none."""
    # Blanked, and not removed, so that the place is right.
    match = re.search(r"\d", _NAMES.sub(lambda name: " " * len(name[0]), text))
    return None if match is None else match.start()


def _line_of(error: BaseException) -> int:
    """The line of the template that was being rendered; Jinja puts its name into the traceback."""
    steps = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in steps if frame.f_code.co_filename == "<template>"]
    return int([getattr(error, "lineno", None) or 1, *lines][-1])


def _tidy(text: str) -> str:
    """Blank lines as Markdown needs them, wherever conditions and loops have left them."""
    # Headings, captions, pictures, gaps and tables are blocks, a list is one block: with blank
    # lines between its items, each of them would be a paragraph.
    text = re.sub(r"^(#+ .*|> .*|\*.*\*)$", r"\n\1\n", TABLE.sub(r"\n\1\n", text), flags=re.M)
    text = re.sub(r"^(- .*\n)\n+(?=- )", r"\1", text, flags=re.M)
    return re.sub(r"\n{3,}", "\n\n", text)


def _cited(text: str, parts: list[Part], works: Mapping[str, Work]) -> Draft:
    """Citations as parts, and the list of references without what is not cited."""
    cited = set(CITATION.findall(ENTRY.sub("", text)))

    def entry(match: re.Match[str]) -> str:
        if not match[1]:  # the line without a key is for a paper that cites nothing
            return "" if cited else f"{match[3]}\n"
        work = dataclasses.replace(works[match[1]], listed=True)
        return f"- {_mark(parts, work)}\n" if match[1] in cited else ""

    text = TABLE.sub(_shortened, ENTRY.sub(entry, text))
    text = CITATION.sub(lambda match: _mark(parts, works[match[1]]), text)
    return Draft(text, tuple(parts))


def _shortened(table: re.Match[str]) -> str:
    lines = table[0].splitlines(keepends=True)
    more = "\nThe first rows are shown; the record has all of them.\n"
    return "".join(lines[: MOST_ROWS + 2]) + (more if len(lines) > MOST_ROWS + 2 else "")
