"""The command line: one thin file per verb.

Results go to stdout, progress and diagnostics to stderr. Exit status: 0 done, 1 failed, 2 usage
error (a wrong option, name, file or value), 130 Ctrl-C. Every error is one line, unless ``--debug``
asks for the traceback.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Annotated, NoReturn

import typer

from ed_interp import __version__
from ed_interp.cli.app import app
from ed_interp.errors import EdInterpError, InvalidInputError, ModelLoadError, UnknownNameError


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit
    return wanted


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """When and where do abilities emerge in a language model."""


def main() -> NoReturn:
    """Run the command line and exit."""
    debug = "--debug" in sys.argv
    # On cores shared with other work, threads that spin at every barrier cost up to ten times the
    # time; read when torch is first imported, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets its code, rather than the run an error.
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        # Typer would print its own errors as a box, and nothing at all after Ctrl-C.
        status = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        if status == 130:
            raise KeyboardInterrupt
    except (KeyboardInterrupt, typer.Abort):
        # Not imported for this: without a run folder there is nothing to continue.
        folders = sys.modules.get("ed_interp.records.folders")
        left = folders is not None and folders.RunFolder.left is not None
        _fail("interrupted" + "; the same command resumes the run" * left, 130, debug)
    except (UnknownNameError, InvalidInputError, ModelLoadError) as error:
        _fail(str(error), 2, debug)
    except EdInterpError as error:
        _fail(str(error), 1, debug)
    except BrokenPipeError:
        # The reader of our stdout went away (`| head`): not an error worth a word.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        # The class of Typer's usage errors has moved between its versions; its method has not.
        if usage := getattr(error, "format_message", None):
            _fail(f"{usage().rstrip('.')} (--help lists the options)", 2, debug)
        _fail(f"{type(error).__name__}: {str(error)[:500]} (--debug shows where)", 1, debug)
    sys.exit(0)


def _fail(message: str, status: int, debug: bool) -> NoReturn:
    if debug:
        import traceback

        traceback.print_exc()
    print(f"ed-interp: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)
