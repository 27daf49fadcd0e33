"""``ed-interp adapter``: train an adapter, look at one, export and merge it."""

from __future__ import annotations

from ed_interp.adapters.training.options import (
    ExportOptions,
    FolderOptions,
    MergeOptions,
    TrainOptions,
)
from ed_interp.cli.app import group
from ed_interp.cli.command import NEW_FOLDER, WHOLE_FOLDER, Output, command

app = group("adapter")


@command(app, "train", TrainOptions, out=NEW_FOLDER)
def train(options: TrainOptions, output: Output) -> None:
    """Train an adapter on examples; the base model is checked to stay as it is.

    A file holds pairs (columns input and output; with a column session, its rows are turns), chats
    (messages), or text (column text, or .txt). The loss is on the answers. An interrupted run is
    resumed by the same command and ends with the same weights.

    - ed-interp adapter train --model icl-gpt2 --data pairs.jsonl --out CKPT
    - ed-interp adapter train --data chats.jsonl --out CKPT --method lora --r 16 --epochs 5
    - ed-interp adapter train --data sessions.csv --out CKPT --carry --nodes 16 --tau 100
    """
    from ed_interp.adapters.training.run import train

    output.show(train(options=options, **output.where()), output.path)


@command(app, "show", FolderOptions)
def show(options: FolderOptions, output: Output) -> None:
    """Configuration, parameters, time constants, norms and fingerprint of an adapter.

    - ed-interp adapter show CKPT
    """
    from ed_interp.adapters.training.describe import describe

    output.show(describe(options.folder))


@command(app, "export", ExportOptions, out=WHOLE_FOLDER)
def export(options: ExportOptions, output: Output) -> None:
    """Write the static part of a bias-injection adapter as a plain LoRA that PEFT loads alone.

    - ed-interp adapter export CKPT --out LORA
    """
    from ed_interp.adapters.training.convert import export_static

    made = export_static(out=output.path, options=options, overwrite=output.overwrite)
    output.show(made, output.path)


@command(app, "merge", MergeOptions, out=WHOLE_FOLDER)
def merge(options: MergeOptions, output: Output) -> None:
    """Write base model and adapter as one model; live feedback cannot be merged and is refused.

    - ed-interp adapter merge CKPT --out MODEL
    """
    from ed_interp.adapters.training.convert import merge_adapter

    made = merge_adapter(out=output.path, options=options, overwrite=output.overwrite)
    output.show(made, output.path)
