"""The command-line application: its verbs, each imported when it is named."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

VERBS = {
    "emergence": "Emergence per block over in-context shot counts, with the model's accuracy.",
    "calibrate": "Test an estimator of mutual information at your number of rows and width.",
    "features": "Feature dictionaries (sparse autoencoders) of the residual stream.",
    "steer": "Steering: directions in the residual stream.",
    "adapter": "Train an adapter, look at one, export its static part, merge it.",
    "compare": "Compare an adapter with the frozen model and with controls.",
    "paper": "Write a paper from the records of runs, and from nothing else.",
    "models": "List the bundled models and their training checkpoints.",
    "tasks": "List the built-in tasks. For a file of your own use --data FILE.",
}
"""Every verb, which is the module ``ed_interp.cli.VERB``, and its line in ``ed-interp --help``."""


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


class _Verbs(_Group):
    """The whole: ``--help`` needs the names of the verbs, and not the options of them all."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(dict.fromkeys((*VERBS, *self.commands)))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        known, about = self.commands.get(cmd_name), VERBS.get(cmd_name)
        return known or (TyperCommand(cmd_name, help=about) if about else None)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        # A name that is not known is compared with all of them.
        for name in [args[0]] if args[0] in VERBS else VERBS:
            import_module(f"ed_interp.cli.{name}")
        self.commands.update(typer.main.get_group(app).commands)
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="ed-interp",
    cls=_Verbs,
    help="When and where do abilities emerge in a language model?",
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def group(name: str) -> typer.Typer:
    """A group of verbs: ``ed-interp NAME VERB``."""
    made = typer.Typer(
        cls=_Group, help=VERBS[name], no_args_is_help=True, rich_markup_mode="markdown"
    )
    app.add_typer(made, name=name)
    return made
