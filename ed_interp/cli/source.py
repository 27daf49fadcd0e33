"""Where the prompts come from: a built-in task, a file, a data set or running text."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ed_interp.errors import InvalidInputError
from ed_interp.prompts.tasks import DEFAULT_TASK

if TYPE_CHECKING:
    from ed_interp.prompts.tasks import Task

DEFAULT_WINDOW = 16


def task_of(
    *,
    task: str | None,
    data: Path | None,
    dataset: str | None,
    text: Path | None,
    input_column: str | None,
    output_column: str | None,
    split: str | None,
    config: str | None,
    window: int | None,
    template: str | None,
) -> Task:
    """The one task that the options name.

    Raises:
        InvalidInputError: two sources, an option that does not apply to the source, or a source
            that cannot be used.
        UnknownNameError: no such built-in task.
    """
    from ed_interp.prompts.files import from_dataset, from_file, text_from_file
    from ed_interp.prompts.tasks import builtin_task

    sources = {"--task": task, "--data": data, "--dataset": dataset, "--text": text}
    given = [name for name, value in sources.items() if value is not None]
    if len(given) > 1:
        raise InvalidInputError(f"{' and '.join(given)} given; one source of prompts is expected")
    source = given[0] if given else "--task"
    # An option without effect is most often a mistake about what is being measured.
    applies = {
        "--input-column": (input_column, ("--data", "--dataset")),
        "--output-column": (output_column, ("--data", "--dataset")),
        "--split": (split, ("--dataset",)),
        "--config": (config, ("--dataset",)),
        "--window": (window, ("--text",)),
        "--template": (template, ("--task", "--data", "--dataset")),
    }
    for name, (value, places) in applies.items():
        if value is not None and source not in places:
            raise InvalidInputError(
                f"{name} applies to {' or '.join(places)}, and the prompts come from {source}"
            )
    if template is not None:
        template = template.replace("\\n", "\n").replace("\\t", "\t")
    if text is not None:
        return text_from_file(text, window=DEFAULT_WINDOW if window is None else window)
    asked = "input" if input_column is None else input_column
    answer = "output" if output_column is None else output_column
    if data is not None:
        return from_file(data, input=asked, output=answer, template=template)
    if dataset is not None:
        # Read when `datasets` is imported; its bars would be all over --json and --quiet.
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
        return from_dataset(
            dataset,
            split="train" if split is None else split,
            config=config,
            input=asked,
            output=answer,
            template=template,
        )
    return builtin_task(DEFAULT_TASK if task is None else task, template=template)
