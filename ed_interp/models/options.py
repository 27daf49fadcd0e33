"""Which model an operation runs, and how it is loaded: the same options in every verb."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any, Literal

from ed_interp.options import MODEL, RUNNING, Options, option

if TYPE_CHECKING:
    from ed_interp.models.hooked import HookedModel

DEFAULT_MODEL = "icl-gpt2"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelOptions(Options):
    """A model by name, and how to load it."""

    model: str = option(
        DEFAULT_MODEL,
        "Bundled model (see `ed-interp models`), hub id, local folder or adapter folder.",
        MODEL,
    )
    tokenizer: str | None = option(None, "Tokenizer to use instead of the model's.", MODEL)
    revision: str | None = option(None, "Branch, tag or commit of a hub id.", MODEL)
    trust_remote_code: bool = option(False, "Run the code that a hub model ships.", MODEL)
    device: str | None = option(
        None, "Device: cpu, cuda, cuda:1 or mps.", RUNNING, shown="the best available"
    )
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = option(
        "float32", "Precision of the model; auto keeps that of its files.", RUNNING
    )

    def load(self, model: Any = None, tokenizer: Any = None) -> HookedModel:
        """The model that the options name, or ``model`` if it is a live object.

        ``tokenizer`` is an object, where the options hold no more than its name. ModelLoadError if
        it cannot be loaded; InvalidInputError for loading options given for a live object.
        """
        from ed_interp.models.load import load

        tokenizer = self.tokenizer if tokenizer is None else tokenizer
        if model is None or isinstance(model, (str, os.PathLike)):
            names = ("device", "dtype", "revision", "trust_remote_code")
            settings = {name: getattr(self, name) for name in names}
            return load(self.model, tokenizer=tokenizer, **settings)
        # A live object is where and what it is; options that say otherwise are refused by load.
        other = None if self.dtype == "float32" else self.dtype
        return load(model, tokenizer=tokenizer, device=self.device, dtype=other)
