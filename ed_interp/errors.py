"""The exceptions of ed-interp.

Each inherits the built-in it refines, so that ``except ValueError`` still catches a bad value,
and :class:`EdInterpError`, which is what the command line turns into one clear line.
"""

import re


class EdInterpError(Exception):
    """Base of every error that ed-interp raises on purpose: the message is meant for a person."""


class UnknownNameError(EdInterpError, KeyError):
    """A name (model, task, estimator, hook point) that matches nothing; names the nearest ones."""

    def __str__(self) -> str:
        # KeyError prints the repr of its argument, which would quote the whole sentence.
        return str(self.args[0]) if self.args else ""


class InvalidInputError(EdInterpError, ValueError):
    """A value, file or prompt that cannot be used."""


class OptionError(InvalidInputError):
    """A setting that cannot be used, and ``others`` in the text of its problem.

    The command line shows flags in place of their names.
    """

    def __init__(self, name: str, problem: str, *others: str) -> None:
        super().__init__(f"{name} {problem}")
        self.name, self.problem, self.others = name, problem, others

    def spelled(self, flags: dict[str, str]) -> str:
        """The message as the command line writes it."""
        # Not within quotes, where it is a value that somebody gave.
        names = rf"(?<![-\w'\"])({'|'.join(self.others) or '$^'})(?![\w'\"])"
        problem = re.sub(names, lambda match: flags.get(match[0], match[0]), self.problem)
        return f"{flags[self.name]} {problem}"


class ModelLoadError(EdInterpError, OSError):
    """A model that cannot be loaded: missing, offline, or in a format that is not read."""


class CaptureError(EdInterpError, RuntimeError):
    """Hooks that did not fire, or activations that were not read or are not finite."""


class RunFolderError(EdInterpError, OSError):
    """A run folder that exists, cannot be written, or is damaged."""


class NoRunError(RunFolderError, InvalidInputError):
    """A path that holds no run."""


def unknown(kind: str, name: str, known: "list[str] | tuple[str, ...]") -> UnknownNameError:
    """The error for a name that is not among ``known``, with the nearest names in it."""
    import difflib

    near = [other for other in known if name and name in other][:3]
    near = near or difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    most = 40
    some = ", ".join(known[:most]) + (f", ... ({len(known):,} in all)" if len(known) > most else "")
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose from: {some}"
    return UnknownNameError(f"unknown {kind} {name!r}; {hint}")
