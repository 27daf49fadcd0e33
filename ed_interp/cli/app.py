"""The command-line application, to which every verb adds itself."""

from __future__ import annotations

import typer

app = typer.Typer(
    name="ed-interp",
    help="When and where do abilities emerge in a language model?",
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def group(name: str, help: str) -> typer.Typer:
    """A group of verbs: ``ed-interp NAME VERB``."""
    made = typer.Typer(help=help, no_args_is_help=True, rich_markup_mode="markdown")
    app.add_typer(made, name=name)
    return made
