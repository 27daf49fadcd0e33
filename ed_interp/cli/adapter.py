"""``ed-interp adapter``: train an adapter, look at one, export and merge it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ed_interp.cli import options
from ed_interp.cli.running import calm_libraries, shown

app = typer.Typer(
    help="Train an adapter, look at one, export its static part, merge it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

_WHAT, _ADAPTER, _HOW, _RATES = "What to train", "The adapter", "Training", "Learning rates"
_OUT, _CARD = "Output", "Model card"

TRAIN_HELP = r"""Train an adapter on examples; the base model is checked to stay as it is.

A file holds pairs (columns input and output; with a column session, its rows are turns), chats
(messages), or text (column text, or .txt). The loss is on the answers. An interrupted run is
resumed by the same command and ends with the same weights.

- ed-interp adapter train --model icl-gpt2 --data pairs.jsonl --out CKPT
- ed-interp adapter train --data chats.jsonl --out CKPT --method lora --r 16 --epochs 5
- ed-interp adapter train --data sessions.csv --out CKPT --carry --nodes 16 --tau 100
"""

Folder = Annotated[Path, typer.Argument(help="A folder with an adapter, as training left it.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object.", metavar="", rich_help_panel=_OUT)
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Show tracebacks.", metavar="", rich_help_panel=_OUT)
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace the run in --out, once the new one is complete.",
        metavar="",
        rich_help_panel=_OUT,
    ),
]


def _rate(value: float) -> float:
    import math

    if not (math.isfinite(value) and value >= 0):
        raise typer.BadParameter(f"{value} is no learning rate; use 0 or above")
    return value


def _option(help: str, panel: str, **settings: Any) -> Any:
    return typer.Option(help=help, rich_help_panel=panel, **settings)


@app.command("train", help=TRAIN_HELP)
def train(
    data: Annotated[Path, _option(".jsonl, .json, .csv, .parquet or .txt.", _WHAT)],
    out: Annotated[Path, _option("Folder to make; an interrupted run in it is resumed.", _OUT)],
    model: Annotated[str, _option("Bundled model, hub id or local folder.", _WHAT)] = "icl-gpt2",
    input_column: Annotated[str, _option("Of pairs.", _WHAT)] = "input",
    output_column: Annotated[str, _option("Of pairs.", _WHAT)] = "output",
    template: Annotated[
        str | None,
        _option(
            r"A pair as text, with {input} and {output}; \n is a line break.",
            _WHAT,
            show_default=r"'{input} -> {output}\n'",
        ),
    ] = None,
    all_tokens: Annotated[
        bool, _option("Loss on every token, not on answers only.", _WHAT, metavar="")
    ] = False,
    tokenizer: Annotated[str | None, _option("If not the model's own.", _WHAT)] = None,
    method: Annotated[
        str, _option("bias-injection, lora, dora, vera, ia3, loha or lokr.", _ADAPTER)
    ] = "bias-injection",
    r: Annotated[int, _option("Rank of the low-rank update.", _ADAPTER)] = 8,
    alpha: Annotated[
        float | None, _option("Its scale is alpha / r.", _ADAPTER, show_default="2 r")
    ] = None,
    dropout: Annotated[float, _option("On its input, in training.", _ADAPTER)] = 0.0,
    targets: Annotated[
        str | None,
        _option("Layers by name, such as c_attn,c_proj.", _ADAPTER, show_default="by architecture"),
    ] = None,
    layers: Annotated[
        str | None, _option("Blocks, such as 0-3 or 2,5.", _ADAPTER, show_default="all")
    ] = None,
    nodes: Annotated[
        int | None, _option("Feedback nodes of every layer.", _ADAPTER, show_default="the method's")
    ] = None,
    tau: Annotated[
        float | None,
        _option(
            "Initial time constant of the nodes, in tokens.",
            _ADAPTER,
            callback=options.above_zero,
            show_default="the method's",
        ),
    ] = None,
    fixed_tau: Annotated[
        bool, _option("The time constants do not train.", _ADAPTER, metavar="")
    ] = False,
    feedback: Annotated[
        str | None,
        _option("What the nodes read: input or output.", _ADAPTER, show_default="the method's"),
    ] = None,
    bias: Annotated[
        bool | None, _option("A bias of the adapter's own.", _ADAPTER, metavar="")
    ] = None,
    neutral: Annotated[
        bool, _option("Keep the neutral relation in training.", _ADAPTER, metavar="")
    ] = False,
    epochs: Annotated[float, _option("Passes over the examples.", _HOW)] = 3.0,
    max_steps: Annotated[
        int | None, _option("Optimizer steps, instead.", _HOW, callback=options.one_or_more)
    ] = None,
    batch_size: Annotated[int, _option("Examples a step.", _HOW, callback=options.one_or_more)] = 8,
    accumulate: Annotated[
        int, _option("Batches summed for a step.", _HOW, callback=options.one_or_more)
    ] = 1,
    lr_lora: Annotated[float, _option("Of the low-rank matrices.", _RATES, callback=_rate)] = 1e-3,
    lr_nodes: Annotated[float, _option("Of nodes and bias.", _RATES, callback=_rate)] = 1e-3,
    lr_tau: Annotated[float, _option("Of the time constants.", _RATES, callback=_rate)] = 1e-2,
    weight_decay: Annotated[float, _option("Of matrices.", _HOW, callback=_rate)] = 0.0,
    schedule: Annotated[
        Literal["linear", "cosine", "constant"],
        _option("linear, cosine or constant.", _HOW, metavar="<name>"),
    ] = "cosine",
    eval_share: Annotated[float, _option("Of the examples, held out.", _HOW)] = 0.1,
    eval_steps: Annotated[
        int | None,
        _option(
            "Steps between evaluations.",
            _HOW,
            callback=options.one_or_more,
            show_default="a tenth of the run",
        ),
    ] = None,
    patience: Annotated[
        int | None,
        _option(
            "Stop early after so many evaluations without gain.",
            _HOW,
            callback=options.one_or_more,
            show_default="never",
        ),
    ] = None,
    carry: Annotated[
        bool,
        _option("Turns are separate calls, the nodes' state is carried.", _HOW, metavar=""),
    ] = False,
    carry_tau: Annotated[
        float,
        _option("Of forgetting between the turns, in turns.", _HOW, callback=options.above_zero),
    ] = 8.0,
    precision: Annotated[
        Literal["float32", "bfloat16"],
        _option("float32, or bfloat16 for mixed precision.", _HOW, metavar="<name>"),
    ] = "float32",
    checkpointing: Annotated[
        Literal["off", "reentrant", "non-reentrant"],
        _option("Gradient checkpointing, to save memory.", _HOW, metavar="<name>"),
    ] = "off",
    seed: Annotated[int, _option("Of all that is random.", _HOW, callback=options.seed)] = 0,
    device: Annotated[
        str | None, _option("cpu, cuda, cuda:1, mps.", _HOW, show_default="the best")
    ] = None,
    licence: Annotated[str | None, _option("Of the adapter, such as mit.", _CARD)] = None,
    data_licence: Annotated[str | None, _option("Of the data.", _CARD)] = None,
    base_licence: Annotated[str | None, _option("Of the base model.", _CARD)] = None,
    description: Annotated[str | None, _option("What the adapter is for.", _CARD)] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress.", metavar="", rich_help_panel=_OUT)
    ] = False,
    debug: Debug = False,
) -> None:
    """Run ``ed-interp adapter train``; what it does is in :data:`TRAIN_HELP`."""
    blocks = None if layers is None else tuple(_blocks(layers))
    names = None if targets is None else tuple(name.strip() for name in targets.split(","))
    if template is not None:
        template = template.replace("\\n", "\n").replace("\\t", "\t")
    calm_libraries()
    from ed_interp.adapters import training as t

    given = t.AdapterOptions(
        r=r, alpha=alpha, dropout=dropout, targets=names, layers=blocks, nodes=nodes, tau=tau,
        fixed_tau=fixed_tau, feedback=feedback, bias=bias, neutral=neutral,
    )  # fmt: skip
    how = t.TrainingOptions(
        epochs=epochs, max_steps=max_steps, batch_size=batch_size, accumulate=accumulate,
        lr_lora=lr_lora, lr_nodes=lr_nodes, lr_tau=lr_tau, weight_decay=weight_decay,
        schedule=schedule, eval_share=eval_share, eval_steps=eval_steps, patience=patience,
        answers_only=not all_tokens, carry=carry, carry_tau=carry_tau, precision=precision,
        checkpointing=checkpointing, seed=seed,
    )  # fmt: skip
    trained = t.train(
        model,
        data,
        out=out,
        method=method,
        adapter=given,
        options=how,
        tokenizer=tokenizer,
        input=input_column,
        output=output_column,
        template=template,
        card=t.CardFields(licence, data_licence, base_licence, description),
        device=device,
        overwrite=overwrite,
        progress=not quiet,
    )
    if as_json:
        typer.echo(json.dumps({"folder": str(trained.folder), **trained.record}))
    else:
        _table({
            "method": trained.method,
            "base model": trained.record["model"]["name"],
            "trained parameters": f"{trained.record['parameters']['trained']:,}",
            "steps": f"{trained.steps}, {trained.record['stopped']}",
            "training loss": f"{trained.record['loss']:.4f} nats a token",
            "held-out loss": "-" if trained.eval_loss is None else f"{trained.eval_loss:.4f}",
            "base weights": "bit for bit as before",
        })  # fmt: skip
    print(f"written to {shown(trained.folder)}", file=sys.stderr)


@app.command("show")
def show(folder: Folder, as_json: AsJson = False, debug: Debug = False) -> None:
    """Configuration, parameters, time constants, norms and fingerprint of an adapter."""
    calm_libraries()
    from ed_interp.adapters.training.describe import describe

    found = describe(folder)
    if as_json:
        typer.echo(json.dumps(found))
        return
    groups = found.pop("groups")
    taus = found.pop("taus")
    config = found.pop("config")
    found["tensors"] = len(found.pop("layers"))  # --json has the norm of each
    _table({key: value for key, value in found.items() if value is not None})
    _table({f"{name}": f"{g['parameters']:,} parameters, norm {g['norm']:.4g}"
            for name, g in groups.items()})  # fmt: skip
    if taus is not None:
        _table({"time constants": f"{taus['count']}, in tokens",
                "least, median, greatest": ", ".join(f"{taus[k]:.4g}" for k in
                                                     ("least", "median", "greatest"))})  # fmt: skip
    _table({key: json.dumps(value) for key, value in config.items()})


Base = Annotated[
    str | None, typer.Option("--model", help="Base model.", show_default="the adapter's")
]
NewFolder = Annotated[Path, typer.Option("--out", help="Folder to make.", rich_help_panel=_OUT)]


@app.command("export")
def export(
    folder: Folder,
    out: NewFolder,
    model: Base = None,
    drop_feedback: Annotated[
        bool, typer.Option("--drop-feedback", help="Leave live feedback nodes out.", metavar="")
    ] = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write the static part of a bias-injection adapter as a plain LoRA that PEFT loads alone."""
    calm_libraries()
    from ed_interp.adapters.training.convert import export_static

    made = export_static(folder, out, base=model, drop_feedback=drop_feedback, overwrite=overwrite)
    _done(made, as_json)


@app.command("merge")
def merge(
    folder: Folder,
    out: NewFolder,
    model: Base = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write base model and adapter as one model; live feedback cannot be merged and is refused."""
    calm_libraries()
    from ed_interp.adapters.training.convert import merge_adapter

    _done(merge_adapter(folder, out, base=model, overwrite=overwrite), as_json)


def _done(record: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(record))
    print(f"written to {shown(Path(record['folder']))}", file=sys.stderr)


def _blocks(text: str) -> list[int]:
    from ed_interp.errors import InvalidInputError

    try:
        return options.parse_shots(text)
    except InvalidInputError:
        raise InvalidInputError(f"--layers {text!r}: blocks such as 0-3 or 2,5 are expected") from (
            None
        )


def _table(rows: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(f"[dim]{escape(str(name))}[/]", escape(str(value)))
    Console().print(table)
