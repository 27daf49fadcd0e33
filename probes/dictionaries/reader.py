"""`Reader`: a dictionary at one site of one model, which every measurement works on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel
from ed_interp.models.sites import Site
from ed_interp.probes.dictionaries.dictionary import Dictionary
from ed_interp.probes.dictionaries.loading import load
from ed_interp.probes.dictionaries.options import DictionaryOptions
from ed_interp.probes.dictionaries.states import TokenStates, stream_states
from ed_interp.probes.dictionaries.text import Ids


@dataclasses.dataclass(frozen=True)
class Reader:
    """Made by :meth:`of` and :meth:`open`, which check that the dictionary fits."""

    dictionary: Dictionary
    hooked: HookedModel
    site: Site
    skip: int = 0
    """Tokens to leave out at the beginning of every window (special ones)."""

    @classmethod
    def of(
        cls, dictionary: Dictionary, hooked: HookedModel, *, site: str | Site | None = None
    ) -> Reader:
        """A reader of ``hooked`` at ``site``, or at the dictionary's own."""
        return cls(dictionary, hooked, dictionary.check(hooked, at=site))

    @classmethod
    def open(cls, options: DictionaryOptions, dictionary: Any = None, model: Any = None) -> Reader:
        """What ``options`` name; dictionary and model are loaded unless they are live objects.

        Raises:
            ModelLoadError: the dictionary or the model cannot be loaded.
            InvalidInputError: the dictionary does not fit the model, or names none.
            UnknownNameError: no such site.
        """
        opened = load(dictionary or options.dictionary, options.sae_id, site=options.site)
        if not model:
            if opened.model_name is None:
                raise InvalidInputError(
                    f"{opened.source or 'this dictionary'} names no model; pass model (--model)"
                )
            # By way of the options, so that device, precision and the like hold for it too.
            options, model = dataclasses.replace(options, model=opened.model_name), None
        reader = cls.of(opened, options.load(model), site=options.site)
        if opened is not dictionary:  # a live object stays where it is
            opened.sae.to(reader.hooked.device)
        return reader

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
