"""What the results about a dictionary share."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ed_interp.records.environment import environment
from ed_interp.records.files import write_json
from ed_interp.results import Result


@dataclasses.dataclass(frozen=True)
class ReaderResult(Result):
    """A result made by a :class:`~ed_interp.probes.dictionaries.reader.Reader`."""

    def cautions(self) -> str:
        """Whether the dictionary was trained on another model, or at another site."""
        return " ".join(self.settings.get("cautions", ()))


def write_record(result: Result, folder: Path) -> None:
    """Write only the JSON file of a result, for a folder without the common page."""
    settings = dict(result.settings)
    # What it was made on, which is not always what it is copied on.
    made_on = settings.pop("environment", None) or environment()
    header = {"format": f"ed-interp/{result.KIND}", "version": result.VERSION}
    data = {**header, **result.to_dict(), "settings": settings, "environment": made_on}
    write_json(folder / result.FILE, data)
