"""``ed-interp emergence``: emergence over in-context shot counts, into a run folder."""

from __future__ import annotations

from pathlib import Path

from ed_interp.cli.app import app
from ed_interp.cli.command import RUN_FOLDER, Output, command
from ed_interp.probes.emergence.options import EmergenceOptions


@command(app, "emergence", EmergenceOptions, out=RUN_FOLDER)
def emergence(options: EmergenceOptions, output: Output) -> None:
    """Emergence per block over in-context shot counts, with the model's accuracy.

    Reads the residual stream before and after every block, with 0, 1, 2, ... demonstrations (shots)
    before the query, and prints E = macro - micro in bits: how much information the block passes on
    about the whole prompt, minus what it passes on about each token alone.

    Writes run.json, Parquet tables, a PNG and one self-contained HTML page to a run folder.

    - ed-interp emergence
    - ed-interp emergence --task sentiment --shots 0-16
    - ed-interp emergence --model gpt2 --data pairs.csv --json > result.json
    """
    from ed_interp.probes.emergence.emergence import emergence

    path = output.folder(f"{Path(options.model).name}-{options.task_label}", options)
    output.show(emergence(options=options, **output.where(path)), path)
