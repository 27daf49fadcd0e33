"""Where prompts come from: a built-in task, a file, a data set or running text."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, ClassVar

from ed_interp.errors import InvalidInputError
from ed_interp.options import PROMPTS, Options, option
from ed_interp.prompts.tasks import DEFAULT_TASK

DEFAULT_WINDOW = 16

_APPLIES = {
    "input_column": ("data", "dataset"),
    "output_column": ("data", "dataset"),
    "split": ("dataset",),
    "config": ("dataset",),
    "window": ("text",),
    "template": ("task", "data", "dataset"),
}
"""Which sources each of the other settings belongs to."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptOptions(Options):
    """One source of prompts. Without any it is the default task."""

    default_task: ClassVar[str] = DEFAULT_TASK

    task: str | None = option(
        None, help="Built-in task (see `ed-interp tasks`).", panel=PROMPTS, shown=DEFAULT_TASK
    )
    data: Path | None = option(
        None, help="Pairs from a .jsonl, .json, .csv or .parquet file.", panel=PROMPTS
    )
    dataset: str | None = option(
        None, help="Pairs from a Hugging Face data set, or a folder with one.", panel=PROMPTS
    )
    text: Path | None = option(
        None, help="Running text from a .txt file or .json list; a shot is a token.", panel=PROMPTS
    )
    input_column: str | None = option(
        None, help="Column of inputs (with --data or --dataset).", panel=PROMPTS, shown="input"
    )
    output_column: str | None = option(
        None, help="Column of outputs (with --data or --dataset).", panel=PROMPTS, shown="output"
    )
    split: str | None = option(
        None, help="Split to read (with --dataset).", panel=PROMPTS, shown="train"
    )
    config: str | None = option(None, help="Configuration to read (with --dataset).", panel=PROMPTS)
    window: int | None = option(
        None,
        help="Prompt length in tokens (with --text).",
        panel=PROMPTS,
        shown=str(DEFAULT_WINDOW),
        min=1,
    )
    template: str | None = option(
        None,
        help=r"Text of a pair, with {input} and {output}; \n is a line break.",
        panel=PROMPTS,
        shown=r"'{input} -> {output}\n'",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        sources = [name for name in ("task", "data", "dataset", "text") if self._has(name)]
        if len(sources) > 1:
            raise InvalidInputError(
                f"the prompts must come from one source, got {' and '.join(sources)}; drop one"
            )
        source = sources[0] if sources else "task"
        # An option without effect is most often a mistake about what is being measured.
        for name, places in _APPLIES.items():
            if self._has(name) and source not in places:
                raise InvalidInputError(
                    f"{name} must come with {' or '.join(places)}, got prompts from {source}; "
                    f"drop {name}"
                )

    def _has(self, name: str) -> bool:
        return getattr(self, name) is not None

    @property
    def task_label(self) -> str:
        """A short name of the source, for run folders."""
        if self.data or self.text:
            return (self.data or self.text or Path()).stem
        return Path(self.dataset).name if self.dataset else self.task or self.default_task

    def make_task(self, task: Any = None) -> Any:
        """The task that the options name, or ``task`` if it is a live object.

        Raises:
            InvalidInputError: a source that cannot be used.
            UnknownNameError: no built-in task has the name; the nearest names are listed.
        """
        from ed_interp.prompts.files import from_dataset, from_file, text_from_file
        from ed_interp.prompts.tasks import builtin_task

        if task is not None and not isinstance(task, str):
            return task
        # A shell passes the two characters of \n as they are.
        template = self.template and self.template.replace("\\n", "\n").replace("\\t", "\t")
        given = {"input": self.input_column, "output": self.output_column}
        columns = {name: name if column is None else column for name, column in given.items()}
        if self.text is not None:
            return text_from_file(self.text, window=self.window or DEFAULT_WINDOW)
        if self.data is not None:
            return from_file(self.data, template=template, **columns)
        if self.dataset is not None:
            # Read when `datasets` is imported; its bars would be all over --json and --quiet.
            os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
            split = self.split or "train"
            return from_dataset(
                self.dataset, split=split, config=self.config, template=template, **columns
            )
        return builtin_task(self.task or self.default_task, template=template)
