"""What the verbs that make runs share: quiet libraries, the command line, short paths."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def calm_libraries() -> None:
    """Progress bars and warnings of libraries would tear ours apart; errors still show."""
    import os
    import warnings

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.filterwarnings("ignore", category=FutureWarning)
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def command_line() -> str:
    """The command as it can be typed again."""
    return shlex.join(["ed-interp", *sys.argv[1:]])


def shown(path: Path) -> str:
    """Relative where that is shorter and clear."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
