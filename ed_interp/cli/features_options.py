"""Options that the verbs of ``ed-interp features`` share, and the text that they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ed_interp.cli import options
from ed_interp.errors import InvalidInputError

if TYPE_CHECKING:
    from ed_interp.probes.dictionaries.text import TextSource

TEXT = "Text"
TRAINING = "Training"
RUN = "Running"
OUT = "Output"

Sae = Annotated[str, typer.Argument(help="Folder of a dictionary, or a release of SAELens.")]
SaeId = Annotated[str | None, typer.Option("--id", help="Which one of a release of SAELens.")]
Model = Annotated[
    str | None,
    typer.Option(help="Bundled model, hub id or folder.", show_default="the one it is of"),
]
SiteName = Annotated[str | None, typer.Option(help="Hook point.", show_default="its own")]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace what is at --out.", metavar="", rich_help_panel=OUT),
]
Text = Annotated[
    Path | None,
    typer.Option(
        help="A .txt file, or a .json list of strings.",
        show_default="generated text, no file needed",
        rich_help_panel=TEXT,
    ),
]
Task = Annotated[
    str | None,
    typer.Option(help="Prompts of a built-in task (`ed-interp tasks`).", rich_help_panel=TEXT),
]
Dataset = Annotated[
    str | None,
    typer.Option(help="A Hugging Face data set or a folder of one.", rich_help_panel=TEXT),
]
Column = Annotated[
    str | None,
    typer.Option(help="Of --dataset.", show_default="text", rich_help_panel=TEXT),
]
Split = Annotated[
    str | None,
    typer.Option(help="Of --dataset.", show_default="train", rich_help_panel=TEXT),
]
Config = Annotated[
    str | None, typer.Option(help="Configuration of --dataset.", rich_help_panel=TEXT)
]
Window = Annotated[
    int | None,
    typer.Option(
        help="Longest window of text, in tokens.",
        callback=options.two_or_more,
        show_default="128",
        rich_help_panel=TEXT,
    ),
]
Seed = Annotated[int, typer.Option(callback=options.seed, rich_help_panel=RUN)]
Device = Annotated[
    str | None,
    typer.Option(help="cpu, cuda, cuda:1, mps.", show_default="the best", rich_help_panel=RUN),
]
Dtype = Annotated[
    options.Dtype,
    typer.Option(metavar="<name>", help="Of the model.", rich_help_panel=RUN),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object.", metavar="", rich_help_panel=OUT)
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="No progress on stderr.", metavar="", rich_help_panel=OUT),
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show tracebacks.", metavar="", rich_help_panel=OUT)
]


def calm_libraries() -> None:
    """Before anything is imported: no bars of libraries, and nothing logged anywhere."""
    import os

    from ed_interp.cli import running

    # Read when SAELens imports wandb.
    os.environ.setdefault("WANDB_MODE", "disabled")
    running.calm_libraries()


def source_of(
    text: Path | None,
    task: str | None,
    dataset: str | None,
    column: str | None,
    split: str | None,
    config: str | None,
) -> TextSource:
    """The one source of text that the options name.

    Raises:
        InvalidInputError: two of them, an option without effect, or a source that cannot be read.
    """
    for name, value in (("--column", column), ("--split", split), ("--config", config)):
        if value is not None and dataset is None:
            raise InvalidInputError(f"{name} applies to --dataset, which is not given")
    from ed_interp.probes.dictionaries.text import text_source

    return text_source(
        text,
        task=task,
        dataset=dataset,
        column=column or "text",
        split=split or "train",
        config=config,
    )
