"""``python -m ed_interp.models.recipe NAME --out FOLDER --seed 0``: re-makes a bundled model.

Cost: about ten minutes on one free CPU core, and under 2 GB of memory.
"""

import argparse
import sys
from pathlib import Path

from ed_interp.errors import EdInterpError


def main(arguments: list[str] | None = None) -> int:
    """Run the recipe; 0 if the model passes its acceptance, 1 if not, 2 for wrong usage."""
    parser = argparse.ArgumentParser(
        prog="python -m ed_interp.models.recipe", description="Re-make a bundled model."
    )
    parser.add_argument("name", help="icl-gpt2 or icl-gemma2")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    devices = ("cpu", "cuda")
    parser.add_argument("--device", choices=devices, default="cpu", help="where to train")
    parser.add_argument("--steps", type=int, default=None, help="training steps")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads")
    options = parser.parse_args(arguments)

    # Imported late: --help and a usage error must not wait for torch.
    import torch
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ed_interp.models.recipe.make import STEPS, make

    steps = STEPS if options.steps is None else options.steps
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    title, losses_now = TextColumn("{task.description}"), TextColumn("{task.fields[losses]}")
    columns = (title, MofNCompleteColumn(), TimeRemainingColumn(), losses_now)
    try:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(options.name, total=steps, losses="")

            def on_step(step: int, losses: dict[str, float]) -> None:
                shown = " ".join(f"{kind} {loss:.2f}" for kind, loss in losses.items())
                progress.update(task, completed=step, losses=shown)

            given = {name: getattr(options, name) for name in ("seed", "device", "overwrite")}
            failures = make(options.name, options.out, steps=steps, on_step=on_step, **given)
    except EdInterpError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for failure in failures:
        print(f"not accepted: {failure}", file=sys.stderr)
    print(options.out)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
