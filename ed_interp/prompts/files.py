"""Tasks from a user's file or a Hugging Face data set; reads JSON, JSONL, CSV and Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ed_interp.errors import InvalidInputError
from ed_interp.prompts.tasks import LabelledTask, Template, TextTask

_OFFLINE = (
    "; offline, use a local folder, or a file with --data FILE (JSONL, CSV or Parquet with input "
    "and output columns)"
)


def from_file(
    path: str | Path,
    *,
    input: str = "input",
    output: str = "output",
    template: str | None = None,
    name: str | None = None,
) -> LabelledTask:
    """A labelled task from a file with one pair per row.

    Args:
        path: ``.jsonl`` (one object per line), ``.json`` (a list of objects), ``.csv`` (with a
            header) or ``.parquet``, in UTF-8.
        input, output: Names of the two columns.
        template: See :class:`~ed_interp.prompts.tasks.Template`.
        name: Name of the task; default that of the file.

    Raises:
        InvalidInputError: no such file, unknown ending, not UTF-8, damaged, a missing column (the
            columns are listed), an empty cell, or fewer than two rows.
    """
    file = Path(path)
    pairs = []
    for number, row in enumerate(read_rows(file, least=2), 1):
        where = f"{file}, row {number}"
        if input not in row or output not in row:
            raise InvalidInputError(
                f"{where} must have the columns {input!r} and {output!r}, got "
                f"{', '.join(map(repr, row)) or 'none'}; name them with input= and output= "
                "(--input-column, --output-column)"
            )
        pairs.append((cell(row[input], input, where), cell(row[output], output, where)))
    about = f"{len(pairs)} pairs of {file.name}"
    return LabelledTask(name or file.stem, tuple(pairs), about, Template.of(template))


def from_dataset(
    dataset: str,
    *,
    split: str = "train",
    config: str | None = None,
    input: str = "input",
    output: str = "output",
    template: str | None = None,
    limit: int | None = 10_000,
    revision: str | None = None,
) -> LabelledTask:
    """A labelled task from a Hugging Face data set.

    Class labels (integers with names in the data set) become their names. Rows without an input or
    a label are left out.

    Args:
        dataset: Hub id (``stanfordnlp/sst2``) or local folder that ``datasets`` can read.
        split: For instance ``train``.
        config: Name of the configuration, if the data set has several.
        input, output, template: As for :func:`from_file`.
        limit: Largest number of rows, evenly spaced over the data set; None is all.
        revision: Branch, tag or commit.

    Raises:
        InvalidInputError: not reachable, no such split or column, or fewer than two rows.
    """
    import datasets

    try:
        data = datasets.load_dataset(dataset, config, split=split, revision=revision)
    except Exception as error:  # its own errors, the hub's and the file systems' alike
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        advice = "" if Path(dataset).exists() else _OFFLINE
        raise InvalidInputError(
            f"cannot load data set {dataset!r}, split {split!r}: {reason}{advice}"
        ) from error
    missing = [column for column in (input, output) if column not in data.column_names]
    if missing:
        raise InvalidInputError(
            f"data set {dataset!r} must have the column {', '.join(map(repr, missing))}, got: "
            f"{', '.join(data.column_names)}"
        )
    if limit is not None and len(data) > limit:
        # Not the first rows, as many data sets are sorted by label.
        data = data.select([place * len(data) // limit for place in range(limit)])
    texts = [_shown(data, column) for column in (input, output)]
    pairs = tuple(pair for pair in zip(*texts, strict=True) if None not in pair)
    name = dataset.rstrip("/").rsplit("/", 1)[-1]
    return LabelledTask(name, pairs, f"{len(pairs)} pairs of {dataset}", Template.of(template))


def text_from_file(path: str | Path, *, window: int = 16, name: str | None = None) -> TextTask:
    """Windows of running text from ``.txt``, or from ``.json`` holding a list of strings.

    A missing or empty file, one not in UTF-8 or JSON of another shape is an InvalidInputError.
    """
    file = Path(path)
    text = _text(file)
    if file.suffix == ".json":
        data = _json(text, file)
        if not isinstance(data, list) or not all(isinstance(item, str) for item in data):
            raise InvalidInputError(f"{file} must hold a JSON list of strings, got something else")
        texts = tuple(data)
    else:
        texts = tuple(part for part in text.split("\n\n") if part.strip())
    return TextTask(name or file.stem, texts, window, f"windows of {window} tokens of {file.name}")


def read_rows(path: str | Path, *, least: int = 1) -> list[Mapping[str, Any]]:
    """The rows of a JSONL, JSON, CSV or Parquet file by column, unchanged.

    InvalidInputError if it is missing, of unknown ending, not UTF-8, damaged, without rows
    (``least`` are needed), or has more cells in a row than the header has columns.
    """
    file = Path(path)
    rows = list(_rows(file))
    if not rows:
        raise InvalidInputError(f"{file} is empty; it must have at least {least} rows")
    for number, row in enumerate(rows, 1):
        # The csv module puts cells beyond the header under None.
        if None in row:
            raise InvalidInputError(
                f"{file}, row {number}: more cells than the header has columns; quote text that "
                "holds commas"
            )
    return rows


def cell(value: Any, column: str, where: str) -> str:
    """A cell as stripped text; InvalidInputError if it is empty, or neither text nor a number."""
    if isinstance(value, (Mapping, list, tuple, bytes)):
        raise InvalidInputError(
            f"{where}: {column!r} must be text or a number, got a {type(value).__name__}"
        )
    if _is_empty(value):
        raise InvalidInputError(f"{where}: {column!r} is empty; remove the row")
    return str(value).strip()


def _is_empty(value: Any) -> bool:
    return value is None or value != value or not str(value).strip()  # NaN is not itself


def _shown(data: Any, column: str) -> list[str | None]:
    """A column of a data set as text, labels by name; None for an empty cell."""
    import datasets

    kind, values = data.features[column], list(data[column])
    if isinstance(kind, datasets.ClassLabel):
        # By convention -1 is a missing label, as in the test splits of the hub.
        return [None if value in (None, -1) else str(kind.int2str(value)) for value in values]
    return [
        None if _is_empty(value) else cell(value, column, f"row {row}")
        for row, value in enumerate(values, 1)
    ]


def _rows(file: Path) -> Iterable[Mapping[str, Any]]:
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        return _parquet(file)
    if suffix == ".csv":
        # strict, as a quote that is never closed would swallow the rest of the file.
        reader = csv.DictReader(io.StringIO(_text(file), newline=""), strict=True)
        try:
            return list(reader)
        except csv.Error as error:
            where = f"{file}, after line {reader.line_num}"
            raise InvalidInputError(f"{where}: not valid CSV ({error})") from error
    if suffix == ".json":
        data = _json(_text(file), file)
        if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
            raise InvalidInputError(f"{file} must hold a JSON list of objects, got something else")
        return data
    if suffix in {".jsonl", ".ndjson"}:
        # Not splitlines(), which also splits at characters that JSON strings may contain.
        lines = enumerate(_text(file).split("\n"), 1)
        rows = [_json(line, file, number) for number, line in lines if line.strip()]
        if not all(isinstance(row, dict) for row in rows):
            raise InvalidInputError(f"{file} must hold one JSON object per line, got others")
        return rows
    raise InvalidInputError(
        f"{file}: cannot tell the format from {suffix or 'no ending'!r}; "
        "use .jsonl, .json, .csv or .parquet"
    )


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except FileNotFoundError:
        raise InvalidInputError(f"{file} does not exist; check the path") from None
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"{file} is not UTF-8 (byte {error.start}: {error.reason}); convert it first"
        ) from error
    except OSError as error:
        raise InvalidInputError(f"cannot read {file}: {error.strerror}") from error


def _json(text: str, file: Path, line: int | None = None) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {line or error.lineno}"
        raise InvalidInputError(f"{file}, {where}: not valid JSON ({error.msg})") from error
    except (ValueError, RecursionError) as error:  # numbers or nesting beyond Python's limits
        raise InvalidInputError(f"{file}: cannot be read as JSON ({error})") from error


def _parquet(file: Path) -> list[Mapping[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    if file.is_dir():
        raise InvalidInputError(f"cannot read {file}: Is a directory; --dataset takes folders")
    try:
        return list(pyarrow.parquet.read_table(file).to_pylist())
    except FileNotFoundError:
        raise InvalidInputError(f"{file} does not exist; check the path") from None
    except (pyarrow.ArrowException, OSError) as error:
        raise InvalidInputError(f"cannot read {file} as Parquet: {error}") from error
