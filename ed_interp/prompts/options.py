"""Where prompts come from: a built-in task, a file, a data set or running text."""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any, ClassVar

from ed_interp.options import PROMPTS, OptionError, Options, option
from ed_interp.prompts.tasks import DEFAULT_TASK

DEFAULT_WINDOW = 16
SHOTS = "Numbers of demonstrations, such as 0-8 or 0,1,2,4,8."

_APPLIES = {
    **dict.fromkeys(("input_column", "output_column"), ("data", "dataset")),
    **dict.fromkeys(("split", "config"), ("dataset",)),
    "window": ("text",),
    "template": ("task", "data", "dataset"),
}
"""Which sources each of the other settings belongs to."""

_setting = functools.partial(option, None, panel=PROMPTS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptOptions(Options):
    """One source of prompts. Without any it is the default task."""

    default_task: ClassVar[str] = DEFAULT_TASK

    task: str | None = _setting(help="Built-in task (see `ed-interp tasks`).", shown=DEFAULT_TASK)
    data: Path | None = option(None, "Pairs from a .jsonl, .json, .csv or .parquet file.", PROMPTS)
    dataset: str | None = _setting(help="Pairs from a Hugging Face data set, or a folder with one.")
    text: Path | None = option(
        None, "Running text from a .txt file or .json list; a shot is a token.", PROMPTS
    )
    input_column: str | None = _setting(
        help="Column of inputs (with --data or --dataset).", shown="input"
    )
    output_column: str | None = _setting(
        help="Column of outputs (with --data or --dataset).", shown="output"
    )
    split: str | None = _setting(help="Split to read (with --dataset).", shown="train")
    config: str | None = _setting(help="Configuration to read (with --dataset).")
    window: int | None = _setting(
        help="Prompt length in tokens (with --text).", shown=str(DEFAULT_WINDOW), min=1
    )
    template: str | None = _setting(
        help=r"Text of a pair, with {input} and {output}; \n is a line break.",
        shown=r"'{input} -> {output}\n'",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        given = {name for name, value in vars(self).items() if value is not None}
        sources = [name for name in ("task", "data", "dataset", "text") if name in given]
        if len(sources) > 1:
            problem = f"must be left out: prompts are from one source, got {' and '.join(sources)}"
            raise OptionError(sources[-1], problem, *sources)
        source = sources[0] if sources else "task"
        # An option without effect is most often a mistake about what is being measured.
        for name, places in _APPLIES.items():
            if name in given and source not in places:
                problem = f"must come with {' or '.join(places)}, got prompts from {source}"
                raise OptionError(name, f"{problem}; drop {name}", *places, source, name)

    @property
    def task_label(self) -> str:
        """A short name of the source, for run folders."""
        if self.data or self.text:
            return (self.data or self.text or Path()).stem
        return Path(self.dataset).name if self.dataset else self.task or self.default_task

    def make_task(self, task: Any = None) -> Any:
        """The task that the options name, or ``task`` if it is a live object.

        InvalidInputError for a source that cannot be used; UnknownNameError, with the nearest
        names, if no built-in task has the name.
        """
        from ed_interp.prompts.files import from_dataset, from_file, text_from_file
        from ed_interp.prompts.tasks import builtin_task

        if task is not None and not isinstance(task, str):
            return task
        # A shell passes the two characters of \n as they are.
        template = self.template and self.template.replace("\\n", "\n").replace("\\t", "\t")
        given = {"input": self.input_column, "output": self.output_column}
        columns: dict[str, Any] = {n: n if c is None else c for n, c in given.items()}
        if self.text is not None:
            return text_from_file(self.text, window=self.window or DEFAULT_WINDOW)
        if self.data is not None:
            return from_file(self.data, template=template, **columns)
        if self.dataset is not None:
            # Read when `datasets` is imported; its bars would be all over --json and --quiet.
            os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
            columns |= {"split": self.split or "train", "config": self.config}
            return from_dataset(self.dataset, template=template, **columns)
        name = self.default_task if self.task is None else self.task
        return builtin_task(name, template=template)
