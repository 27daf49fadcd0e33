"""`Reader`: a dictionary at one site of one model, which is what every measurement works on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from ed_interp.models.hooked import HookedModel
from ed_interp.models.sites import Site
from ed_interp.probes.dictionaries.dictionary import Dictionary
from ed_interp.probes.dictionaries.states import TokenStates, stream_states
from ed_interp.probes.dictionaries.text import Ids


@dataclasses.dataclass(frozen=True)
class Reader:
    """Made by :meth:`of`, which checks that the dictionary fits."""

    dictionary: Dictionary
    hooked: HookedModel
    site: Site
    skip: int = 0
    """Tokens to leave out at the beginning of every window (special ones)."""

    @classmethod
    def of(
        cls, dictionary: Dictionary, hooked: HookedModel, *, site: str | Site | None = None
    ) -> Reader:
        """A reader of ``hooked`` at ``site``, or at the dictionary's own.

        Raises:
            InvalidInputError: another width, or no site known.
            UnknownNameError: no such site.
        """
        return cls(dictionary, hooked, dictionary.check(hooked, at=site))

    def states(self, windows: Iterable[Ids]) -> Iterator[TokenStates]:
        """States at every token of ``windows`` that is not skipped, in order."""
        return stream_states(self.hooked, self.site, windows, skip=self.skip)

    def settings(self) -> dict[str, Any]:
        """What was read, for the settings of a result."""
        dictionary, cautions = self.dictionary, []
        if (reason := dictionary.fits(self.hooked)) is not None:
            cautions.append(f"The dictionary was not trained on this model: {reason}.")
        own = dictionary.sae.cfg.metadata.hook_name
        if own is not None and own != self.site.name and dictionary.site != self.site:
            cautions.append(f"The dictionary was trained at {own}, not at {self.site.name}.")
        return {
            "dictionary": {**dictionary.describe(), "source": dictionary.source},
            "model": self.hooked.describe(),
            "cautions": cautions,
        }
