"""Progress bars on stderr, or calls to the caller's own function."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

Progress = bool | Callable[[int, int, str], None] | None
"""True for a bar on stderr; a callable gets (done, total, what); None or False is silent."""


@contextlib.contextmanager
def track(progress: Progress, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield ``advance(steps)``; the bar goes away or stays complete when the block ends."""
    if callable(progress):
        report, done = progress, 0

        def advance(steps: int) -> None:
            nonlocal done
            done += steps
            report(done, total, what)

        yield advance
    elif progress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Bar(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
            task = bar.add_task(what, total=total)
            yield lambda steps: bar.advance(task, steps)
    else:
        yield lambda steps: None
