"""``ed-interp emergence``: emergence over in-context shot counts, into a run folder."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ed_interp.cli import options
from ed_interp.cli.running import calm_libraries, command_line, shown
from ed_interp.cli.source import DEFAULT_WINDOW, task_of
from ed_interp.prompts.tasks import DEFAULT_TASK

if TYPE_CHECKING:
    from ed_interp.probes.emergence.curve import EmergenceCurve

_WHAT = "What to measure"
_HOW = "How to estimate"
_RUN = "Running"
_OUT = "Output"

HELP = r"""Emergence per block over in-context shot counts, with the model's accuracy beside it.

Reads the residual stream before and after every block, with 0, 1, 2, ... demonstrations (shots)
before the query, and prints E = macro - micro in bits: how much information the block passes on
about the whole prompt, less what it passes on about each token alone.

Writes run.json, Parquet tables, a PNG and one self-contained HTML page to a run folder.

- ed-interp emergence
- ed-interp emergence --task sentiment --shots 0-16
- ed-interp emergence --model gpt2 --data pairs.csv --json > result.json
"""


def command(
    model: Annotated[
        str,
        typer.Option(
            help="Bundled model (`ed-interp models`), hub id or local folder.",
            rich_help_panel=_WHAT,
        ),
    ] = "icl-gpt2",
    task: Annotated[
        str | None,
        typer.Option(
            help="Built-in task (`ed-interp tasks`).",
            show_default=DEFAULT_TASK,
            rich_help_panel=_WHAT,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Instead of --task: pairs from a .jsonl, .json, .csv or .parquet file.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Instead of --task: pairs from a Hugging Face data set or a folder of one.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            help="Instead of --task: running text, .txt or a .json list; a shot is a token.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    input_column: Annotated[
        str | None,
        typer.Option(help="Of --data or --dataset.", show_default="input", rich_help_panel=_WHAT),
    ] = None,
    output_column: Annotated[
        str | None,
        typer.Option(help="Of --data or --dataset.", show_default="output", rich_help_panel=_WHAT),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Of --dataset.", show_default="train", rich_help_panel=_WHAT),
    ] = None,
    config: Annotated[
        str | None, typer.Option(help="Configuration of --dataset.", rich_help_panel=_WHAT)
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            help="Length of a prompt of --text, in tokens.",
            callback=options.one_or_more,
            show_default=str(DEFAULT_WINDOW),
            rich_help_panel=_WHAT,
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            help=r"A pair as text, with {input} and {output}; \n is a line break.",
            show_default=r"'{input} -> {output}\n'",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    shots: Annotated[
        str | None,
        typer.Option(
            help="Numbers of demonstrations, such as 0-8 or 0,1,2,4,8.",
            show_default="0-8; lists 1-8; text 1 to --window",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    prompts: Annotated[
        int,
        typer.Option(
            help="Size of the sample.", callback=options.two_or_more, rich_help_panel=_WHAT
        ),
    ] = 500,
    estimator: Annotated[
        str, typer.Option(help="Of mutual information.", rich_help_panel=_HOW)
    ] = "smoothed",
    noise: Annotated[
        float | None,
        typer.Option(
            help="Noise s per normalised coordinate.",
            callback=options.above_zero,
            show_default="s = beta sqrt(d / ln n)",
            rich_help_panel=_HOW,
        ),
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(
            help="In that rule, instead of --noise.",
            callback=options.above_zero,
            show_default="1/3",
            rich_help_panel=_HOW,
        ),
    ] = None,
    noise_profile: Annotated[
        bool,
        typer.Option(
            "--noise-profile",
            help="Also estimate over a range of noise.",
            metavar="",
            rich_help_panel=_HOW,
        ),
    ] = False,
    compare_estimators: Annotated[
        str | None,
        typer.Option(
            help="Further estimators, such as gaussian,mine-heldout, side by side.",
            rich_help_panel=_HOW,
        ),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Also run the estimator on populations of known information of this size.",
            metavar="",
            rich_help_panel=_HOW,
        ),
    ] = False,
    normalisation: Annotated[
        options.Normalisation,
        typer.Option(
            metavar="<name>",
            help="auto (the model's own), layernorm, rms or none.",
            rich_help_panel=_HOW,
        ),
    ] = "auto",
    lone_position: Annotated[
        options.LonePosition,
        typer.Option(
            metavar="<name>", help="Of tokens fed alone: zero or original.", rich_help_panel=_HOW
        ),
    ] = "zero",
    untrained: Annotated[
        bool,
        typer.Option(
            help="Also run the untrained twin, as a control.", metavar="", rich_help_panel=_HOW
        ),
    ] = True,
    behaviour: Annotated[
        bool,
        typer.Option(
            help="Also score the answers: accuracy, log-probability, rank.",
            metavar="",
            rich_help_panel=_HOW,
        ),
    ] = True,
    level: Annotated[
        float,
        typer.Option(help="Of the intervals.", callback=options.share, rich_help_panel=_HOW),
    ] = 0.95,
    resamples: Annotated[
        int,
        typer.Option(help="Of the bootstrap.", callback=options.one_or_more, rich_help_panel=_HOW),
    ] = 1000,
    seed: Annotated[
        int,
        typer.Option(
            help="Of the sample, the noise, the bootstrap and the twin.",
            callback=options.seed,
            rich_help_panel=_RUN,
        ),
    ] = 0,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda, cuda:1, mps.", show_default="the best", rich_help_panel=_RUN),
    ] = None,
    dtype: Annotated[
        options.Dtype,
        typer.Option(
            metavar="<name>",
            help="float32, bfloat16, float16 or auto (as saved).",
            rich_help_panel=_RUN,
        ),
    ] = "float32",
    path: Annotated[
        options.ReadingPath,
        typer.Option(
            metavar="<name>",
            help="auto (the fastest that is right), packed, prefix or separate.",
            rich_help_panel=_RUN,
        ),
    ] = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Prompts in a forward pass.",
            callback=options.one_or_more,
            show_default="by length",
            rich_help_panel=_RUN,
        ),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="If not the model's own.", rich_help_panel=_RUN)
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a hub id.", rich_help_panel=_RUN)
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code",
            help="Run code that a hub model ships.",
            metavar="",
            rich_help_panel=_RUN,
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder; an interrupted run in it is resumed.",
            show_default="ed-interp-runs/MODEL-TASK-001, ...",
            rich_help_panel=_OUT,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace the run in --out, once the new one is complete.",
            metavar="",
            rich_help_panel=_OUT,
        ),
    ] = False,
    keep_activations: Annotated[
        bool,
        typer.Option(
            "--keep-activations",
            help="Leave the states in the run folder, as safetensors.",
            metavar="",
            rich_help_panel=_OUT,
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON object on stdout, not tables.",
            metavar="",
            rich_help_panel=_OUT,
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="No progress on stderr.", metavar="", rich_help_panel=_OUT
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show tracebacks.", metavar="", rich_help_panel=_OUT),
    ] = False,
) -> None:
    """Run ``ed-interp emergence``; what it does is in :data:`HELP`."""
    asked = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in locals().items()
        if name not in ("out", "overwrite", "keep_activations", "as_json", "quiet", "debug")
    }
    counts = None if shots is None else options.parse_shots(shots)
    others = options.parse_names(compare_estimators)
    subject = task_of(
        task=task,
        data=data,
        dataset=dataset,
        text=text,
        input_column=input_column,
        output_column=output_column,
        split=split,
        config=config,
        window=window,
        template=template,
    )

    calm_libraries()
    from ed_interp.models.load import load
    from ed_interp.probes.emergence.emergence import emergence
    from ed_interp.processes import gather, process, wait_for_all
    from ed_interp.records import RunFolder, next_run_path

    hooked = load(
        model,
        tokenizer=tokenizer,
        device=device,
        dtype=dtype,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    first = process()[0] == 0
    name = f"{hooked.name}-{subject.name}"
    target = out or next_run_path(Path("ed-interp-runs"), name, asked)
    run = RunFolder.open(target, asked, overwrite=overwrite) if first else None
    working = gather(run.folder if run is not None else None)[0]
    assert working is not None
    shards = working / "activations"

    def compute() -> EmergenceCurve:
        return emergence(
            hooked,
            task=subject,
            shots=counts,
            prompts=prompts,
            seed=seed,
            estimator=estimator,
            noise=noise,
            beta=beta,
            noise_profile=noise_profile,
            compare=others,
            calibrate=calibrate,
            normalisation=normalisation,
            position=lone_position,
            untrained=untrained,
            behaviour=behaviour,
            level=level,
            resamples=resamples,
            path=path,
            batch_size=batch_size,
            folder=shards,
            progress=not quiet,
        )

    if run is None:
        compute()
        wait_for_all()
        return
    with run:
        if run.resumed and not quiet:
            print(f"resuming the interrupted run in {target}", file=sys.stderr)
        curve = compute()
        wait_for_all()
        curve.settings.update(command=command_line(), asked=asked)
        from ed_interp.probes.emergence.files import write_curve

        write_curve(curve, run.folder)
        if not keep_activations:
            shutil.rmtree(shards, ignore_errors=True)
    if as_json:
        typer.echo(curve.to_json())
    else:
        from ed_interp.cli.tables import print_curve

        print_curve(curve)
    print(f"written to {shown(run.path)}; open {shown(run.path / 'report.html')}", file=sys.stderr)
