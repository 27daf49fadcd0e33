"""How the product reads: plain words, small functions, comments where they are needed."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ed_interp

ROOT = Path(ed_interp.__file__).parents[1]
ROOMS = ("ed_interp", "probes", "adapters", "eval")
VAGUE = {"found", "asked", "there", "told"}

pytestmark = pytest.mark.skipif(
    not (ROOT / "pyproject.toml").exists(), reason="needs the source checkout"
)


@functools.cache
def product() -> tuple[tuple[str, str, ast.Module], ...]:
    """Path, text and syntax tree of every file of the product, each once."""
    return tuple(_files())


def _files() -> Iterator[tuple[str, str, ast.Module]]:
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            # The links inside ed_interp/ lead to the other rooms.
            if file.resolve().is_relative_to(ROOT / room):
                text = file.read_text("utf-8")
                yield str(file.relative_to(ROOT)), text, ast.parse(text)


def texts(node: ast.AST) -> list[str]:
    """Every string inside a node, those of f-strings in parts."""
    return [
        child.value
        for child in ast.walk(node)
        if isinstance(child, ast.Constant) and isinstance(child.value, str)
    ]


def names(node: ast.AST) -> list[str]:
    """What a node gives a name to."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return [node.id]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.alias):
        return [node.asname or ""]
    if isinstance(node, ast.ExceptHandler):
        return [node.name or ""]
    return []


def help_of(node: ast.AST) -> list[ast.expr]:
    """The help text in a node, by name or as the second argument of ``option``."""
    if isinstance(node, ast.keyword) and node.arg == "help":
        return [node.value]
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "option":
        return node.args[1:2]
    return []


def problems(text: str) -> list[str]:
    """What the house does not write, with its line."""
    listed = []
    for node in ast.walk(ast.parse(text)):
        listed += [f"{getattr(node, 'lineno', 0)}: {n}" for n in names(node) if n in VAGUE]
        for words in help_of(node):
            listed += [t for t in texts(words)[:1] if re.match(r"(Of|If not|As)\b", t)]
        if isinstance(node, ast.Raise):
            listed += [t for t in texts(node) if re.search(r"\b(is|are) no\b", t)]
    return listed


@pytest.mark.parametrize(
    "text",
    [
        "found = 1",
        "def f(asked): pass",
        "for there in x: pass",
        "import a as told",
        "option(help='Of the data.')",
        "x: int = option(3, 'Of the data.', MODEL)",
        "raise ValueError(f'{x} is no seed; use 0')",
    ],
)
def test_the_checks_can_fail(text: str):
    assert problems(text)


def test_plain_words():
    listed = {path: problems(text) for path, text, _ in product()}
    assert {path: found for path, found in listed.items() if found} == {}


def test_functions_are_small():
    long, wide = [], []
    for path, _, tree in product():
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                arguments = node.args
                count = len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs)
                where = f"{path}:{node.lineno} {node.name}"
                if (node.end_lineno or 0) - node.lineno >= 119:
                    long.append(where)
                if count > 15:
                    wide.append(where)
    assert long == []
    assert wide == []


def test_files_are_rooms_not_halls():
    assert [path for path, text, _ in product() if len(text.splitlines()) > 400] == []


def test_reasons_are_written_down():
    lines = [line.strip() for _, text, _ in product() for line in text.splitlines()]
    comments = sum(line.startswith("#") for line in lines)
    assert comments >= 0.03 * len(lines), f"{comments} comments in {len(lines)} lines"


def test_the_product_stays_small():
    """A feature that needs more should say so here, in the commit that raises it."""
    lines = sum(len(text.splitlines()) for _, text, _ in product())
    pages = sum(
        len(file.read_text("utf-8").splitlines())
        for file in (ROOT / "ed_interp" / "templates").iterdir()
    )
    assert lines + pages <= 37_500


def test_no_locals_no_changed_results():
    for path, _, tree in product():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name != "locals", path
                assert not name.endswith(".settings.update"), path
