"""Subjects: anything that can be one side of a comparison.

Use: ``open_subject("icl-gpt2")``, ``open_subject("path/of/an/adapter")``, a live model of
``transformers``, PEFT or TransformerLens, a steered model, or ``PromptOnly(model, "Answer with a
capital:")``, which changes nothing but the text before the prompt. Cost: that of loading.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import HookedModel, tokenizer_fingerprint
from ed_interp.models.load import load
from ed_interp.prompts.tokens import Ids, TokenPopulation


@dataclasses.dataclass(frozen=True)
class PromptOnly:
    """A model that gets a text before every prompt and is otherwise left alone."""

    model: Any
    """Anything :func:`ed_interp.load` takes."""
    text: str
    """Put before the prompt; end it with a line break or a space if one is needed."""


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """One side of a comparison, ready to run."""

    name: str
    kind: str
    """``frozen``, ``adapter``, ``prompt`` or ``steered``."""
    hooked: HookedModel
    before: Ids = ()
    """Tokens put before every prompt (prompt-only), after the tokenizer's own first tokens."""
    # A function that makes a new scope each time: most context managers can be entered only once.
    scope: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    """Entered around every forward pass: what steers."""
    folder: Path | None = None
    """Folder the adapter was loaded from, with the record of its training."""
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    """More for the record: the adapter's configuration, the prompt, the direction."""

    @property
    def model(self) -> Any:
        """The live model."""
        return self.hooked.model

    @property
    def is_adapter(self) -> bool:
        """Whether the live model carries PEFT adapters."""
        return bool(getattr(self.model, "peft_config", None))

    def describe(self) -> dict[str, Any]:
        """Plain data for the record."""
        data = {"name": self.name, "kind": self.kind, "model": self.hooked.describe()}
        return {**data, **self.details}

    def prefixed(self, population: TokenPopulation) -> TokenPopulation:
        """The population with this subject's text before every prompt."""
        if not self.before:
            return population
        texts = [dataclasses.replace(p, prefix=p.prefix + self.before) for p in population.prompts]
        return dataclasses.replace(population, prompts=tuple(texts))


def open_subject(model: Any, *, name: str | None = None, **options: Any) -> Subject:
    """Anything that can be compared, as a :class:`Subject`.

    Args:
        model: A :class:`Subject` (returned as it is), :class:`PromptOnly`, a steered model, or
            anything :func:`ed_interp.load` takes.
        name: Name to use instead of the model's.
        **options: Passed to ``load`` for models given by name (tokenizer, device, dtype, ...).

    Raises:
        ModelLoadError: it cannot be loaded.
        InvalidInputError: a prompt without text, or options that do not apply.
    """
    if isinstance(model, Subject):
        return model
    # The two below hold a model that `load` would not take.
    if isinstance(model, PromptOnly):
        return _prompted(model, name, options)
    # By name, so that steering is not imported for models that are not steered.
    if type(model).__name__ == "SteeredModel" and hasattr(model, "applied"):
        return _steered(model, name)
    folder = Path(os.fspath(model)) if isinstance(model, (str, os.PathLike)) else None
    if folder is None:
        # A live model is on its device and in its precision already.
        options = {key: value for key, value in options.items() if key == "tokenizer"}
    hooked = load(model, **options)
    subject = Subject(name or hooked.name, "frozen", hooked)
    if not subject.is_adapter:
        return subject
    # PEFT keeps sets (target modules) and enums, which JSON has no form for.
    plain = json.loads(json.dumps(active_config(subject.model).to_dict(), default=_listed))
    config = {key: value for key, value in sorted(plain.items()) if value is not None}
    return dataclasses.replace(subject, kind="adapter", folder=folder, details={"adapter": config})


def check_alike(control: Subject, treated: Subject) -> None:
    """Refuse two models that cannot be given the same tokens.

    Raises:
        InvalidInputError: tokenizers, vocabularies or precisions differ.
    """
    sides = (control.hooked, treated.hooked)
    # In this order: models of different vocabularies most often differ in their tokenizer first.
    known: list[tuple[str, Callable[[HookedModel], Any], str]] = [
        ("tokenizer", lambda side: tokenizer_fingerprint(side.tokenizer),
         "no prompt would be the same for both"),
        ("number of output tokens", vocabulary_size,
         "next-token distributions of different length cannot be compared"),
        ("dtype", lambda side: side.dtype, "the difference would be that of the precision"),
    ]  # fmt: skip
    for what, read, why in known:
        first, second = map(read, sides)
        if None not in (first, second) and first != second:
            raise InvalidInputError(
                f"{control.name} and {treated.name} must have the same {what}, got {first} and "
                f"{second}: {why}"
            )


def vocabulary_size(hooked: HookedModel) -> int:
    """Number of tokens the model predicts."""
    for name in ("vocab_size", "d_vocab"):
        if value := getattr(hooked.config, name, None):
            return int(value)
    raise InvalidInputError(f"the configuration of {hooked.name} must have vocab_size, got none")


def adapter_off(subject: Subject) -> contextlib.AbstractContextManager[Any]:
    """The subject without its adapters, if it has any, for a while."""
    off: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    return subject.model.disable_adapter() if subject.is_adapter else off


def _prompted(model: PromptOnly, name: str | None, options: dict[str, Any]) -> Subject:
    base = open_subject(model.model, **options)
    if base.hooked.tokenizer is None:
        raise InvalidInputError(f"a prompt needs a tokenizer, and {base.name} has none")
    ids = tuple(base.hooked.tokenizer(model.text, add_special_tokens=False)["input_ids"])
    if not ids:
        raise InvalidInputError(
            "a prompt-only subject needs a text, got none; pass PromptOnly(model, 'text')"
        )
    details = {**base.details, "prompt": model.text, "prompt_tokens": len(ids)}
    title = name or f"{base.name} + prompt"
    return dataclasses.replace(base, name=title, kind="prompt", before=ids, details=details)


def _steered(model: Any, name: str | None) -> Subject:
    hooked: HookedModel = model.hooked
    written = [
        {"kind": type(each).__name__, "sites": [site.name for site in each.sites(hooked)],
         "coefficient": str(getattr(each, "coefficient", ""))}
        for each in model.interventions
    ]  # fmt: skip
    title, details = name or f"{hooked.name} + steering", {"interventions": written}
    return Subject(title, "steered", hooked, scope=model.applied, details=details)


def active_config(model: Any) -> Any:
    """The configuration of the active adapter of a model with adapters."""
    active = model.active_adapters[0] if hasattr(model, "active_adapters") else "default"
    return model.peft_config.get(active) or next(iter(model.peft_config.values()))


def _listed(value: Any) -> Any:
    return sorted(map(str, value)) if isinstance(value, (set, frozenset)) else str(value)
