"""What the verbs on a dictionary begin with: the dictionary, its model, a free place to write."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ed_interp.cli import features_options as common
from ed_interp.errors import InvalidInputError, RunFolderError

if TYPE_CHECKING:
    from ed_interp.models.hooked import HookedModel
    from ed_interp.probes.dictionaries.dictionary import Dictionary


def dictionary_and_model(
    sae: str,
    sae_id: str | None,
    model: str | None,
    site: str | None,
    device: str | None,
    dtype: str = "float32",
) -> tuple[Dictionary, HookedModel]:
    """A dictionary and the model it is read on, on one device.

    Raises:
        InvalidInputError: the dictionary names no model and none is given, or another width.
        UnknownNameError: no such site.
    """
    common.calm_libraries()
    from ed_interp.models.load import load as load_model
    from ed_interp.probes.dictionaries import load

    dictionary = load(sae, sae_id, site=site)
    name = dictionary.model_name if model is None else model
    if name is None:
        raise InvalidInputError(f"{sae} names no model; name one with --model")
    hooked = load_model(name, device=device, dtype=dtype)
    dictionary.check(hooked, at=site)
    if (reason := dictionary.fits(hooked)) is not None:
        print(f"note: the dictionary was not trained on this model: {reason}", file=sys.stderr)
    own = dictionary.sae.cfg.metadata.hook_name
    if site is not None and own is not None and own != site:
        print(f"note: the dictionary was trained at {own}, not at {site}", file=sys.stderr)
    if str(hooked.device) != "cpu":
        dictionary.sae.to(hooked.device)
    return dictionary, hooked


def refuse_existing(*paths: Path | None, overwrite: bool) -> None:
    """Before any work: nothing that exists is written over unless asked for.

    Raises:
        RunFolderError: one of them exists.
    """
    for path in paths:
        if path is not None and path.exists() and not overwrite:
            raise RunFolderError(f"{path} exists; pass another, or --overwrite")
