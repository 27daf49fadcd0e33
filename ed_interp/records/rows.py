"""Rows as dataclasses: which fields of a result hold them, and their columns in a table."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, get_args, get_origin

from ed_interp.options import hints_of, without_none

if TYPE_CHECKING:
    import pyarrow as pa


def row_fields(kind: Any) -> dict[str, type]:
    """Fields that are a tuple of dataclass rows, and the class of the rows."""
    return _row_fields(kind)


@functools.cache
def _row_fields(kind: type) -> dict[str, type]:
    rows = {}
    for name, hint in hints_of(kind).items():
        hint = without_none(hint)
        element = get_args(hint)[0] if get_origin(hint) is tuple else None
        if isinstance(element, type) and dataclasses.is_dataclass(element):
            rows[name] = element
    return rows


def plain_row(row: Any) -> dict[str, Any]:
    """The fields of a row, as a table takes them."""
    data = dataclasses.asdict(row)
    return {name: list(v) if isinstance(v, tuple) else v for name, v in data.items()}


def arrow_schema(row: type) -> pa.Schema | None:
    """Column types from the fields, so that they do not depend on the values of one run."""
    import pyarrow as pa

    simple = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}
    columns = []
    for field in dataclasses.fields(row):
        hint = without_none(hints_of(row)[field.name])
        if get_origin(hint) is tuple and get_args(hint)[-1] is Ellipsis:
            kind = simple.get(get_args(hint)[0])
            kind = kind and pa.list_(kind)
        else:
            kind = simple.get(hint) or (pa.string() if isinstance(hint, type) is False else None)
        if kind is None:
            return None  # nested rows: Arrow finds their type from the values
        columns.append((field.name, kind))
    return pa.schema(columns)
