"""The command-line application, to which every verb adds itself."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup


class _Untyped:
    """Help without the Python types (<bool>, <list[str]>) that Typer prints."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if isinstance(param, TyperArgument) or param.metavar is None:
                vars(param)["display_type_rich"] = lambda ctx: ""
        return params


class Verb(_Untyped, TyperCommand):
    """A command whose usage line writes arguments as FILE and [RUNS]..., not as {FILE}."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]


class _Group(_Untyped, TyperGroup):
    pass


app = typer.Typer(
    name="ed-interp",
    cls=_Group,
    help="When and where do abilities emerge in a language model?",
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def group(name: str, help: str) -> typer.Typer:
    """A group of verbs: ``ed-interp NAME VERB``."""
    made = typer.Typer(cls=_Group, help=help, no_args_is_help=True, rich_markup_mode="markdown")
    app.add_typer(made, name=name)
    return made
