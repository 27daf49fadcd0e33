"""What the results about a dictionary share."""

from __future__ import annotations

import dataclasses

from ed_interp.results import Result


@dataclasses.dataclass(frozen=True)
class ReaderResult(Result):
    """A result made by a :class:`~ed_interp.probes.dictionaries.reader.Reader`."""

    def cautions(self) -> str:
        """Whether the dictionary was trained on another model, or at another site."""
        return " ".join(self._settings.get("cautions", ()))
