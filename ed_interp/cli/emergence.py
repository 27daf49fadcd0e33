"""``ed-interp emergence``: emergence over in-context shot counts, into a run folder."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ed_interp.errors import InvalidInputError

if TYPE_CHECKING:
    from ed_interp.probes.emergence.curve import EmergenceCurve
    from ed_interp.prompts.tasks import Task

_WHAT = "What to measure"
_HOW = "How to estimate"
_RUN = "Running"
_OUT = "Output"


def command(
    model: Annotated[
        str,
        typer.Option(help="Bundled name, hub id or local folder.", rich_help_panel=_WHAT),
    ] = "icl-gpt2",
    task: Annotated[
        str | None,
        typer.Option(
            help="Built-in task (`ed-interp tasks`).",
            show_default="country-capital",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled pairs: .jsonl, .json, .csv, .parquet.", rich_help_panel=_WHAT),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Hugging Face data set of pairs.", rich_help_panel=_WHAT)
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            help="Running text, .txt or .json list; a shot is a token.", rich_help_panel=_WHAT
        ),
    ] = None,
    input_column: Annotated[str, typer.Option(rich_help_panel=_WHAT)] = "input",
    output_column: Annotated[str, typer.Option(rich_help_panel=_WHAT)] = "output",
    split: Annotated[str, typer.Option(help="Of --dataset.", rich_help_panel=_WHAT)] = "train",
    config: Annotated[
        str | None, typer.Option(help="Configuration of --dataset.", rich_help_panel=_WHAT)
    ] = None,
    window: Annotated[
        int, typer.Option(help="Tokens a window of --text.", rich_help_panel=_WHAT)
    ] = 16,
    template: Annotated[
        str | None,
        typer.Option(
            help=r"With {input} and {output}; \n is a line break.",
            show_default=r"'{input} -> {output}\n'",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    shots: Annotated[
        str | None,
        typer.Option(
            help="Such as 0-8 or 0,1,2,4,8.", show_default="0-8; lists 1-8", rich_help_panel=_WHAT
        ),
    ] = None,
    prompts: Annotated[int, typer.Option(help="Size of the sample.", rich_help_panel=_WHAT)] = 500,
    estimator: Annotated[str, typer.Option(rich_help_panel=_HOW)] = "smoothed",
    noise: Annotated[
        float | None,
        typer.Option(
            help="Noise per normalised coordinate.",
            show_default="by the rule",
            rich_help_panel=_HOW,
        ),
    ] = None,
    beta: Annotated[
        float | None,
        typer.Option(
            help="In the noise rule s = beta sqrt(d / ln n).",
            show_default="1/3",
            rich_help_panel=_HOW,
        ),
    ] = None,
    noise_profile: Annotated[
        bool,
        typer.Option("--noise-profile", help="Also over a range of noise.", rich_help_panel=_HOW),
    ] = False,
    normalisation: Annotated[
        str, typer.Option(help="auto, layernorm, rms or none.", rich_help_panel=_HOW)
    ] = "auto",
    lone_position: Annotated[
        str, typer.Option(help="Where lone tokens stand: zero or original.", rich_help_panel=_HOW)
    ] = "zero",
    untrained: Annotated[
        bool, typer.Option(help="The untrained twin as a control.", rich_help_panel=_HOW)
    ] = True,
    behaviour: Annotated[
        bool, typer.Option(help="Accuracy, log-probability and rank.", rich_help_panel=_HOW)
    ] = True,
    level: Annotated[float, typer.Option(help="Of the intervals.", rich_help_panel=_HOW)] = 0.95,
    resamples: Annotated[int, typer.Option(help="Of the bootstrap.", rich_help_panel=_HOW)] = 1000,
    seed: Annotated[int, typer.Option(rich_help_panel=_RUN)] = 0,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda, mps.", show_default="the best", rich_help_panel=_RUN),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16, float16 or auto.", rich_help_panel=_RUN)
    ] = "float32",
    path: Annotated[
        str, typer.Option(help="auto, packed, prefix or separate.", rich_help_panel=_RUN)
    ] = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(help="Prompts a batch.", show_default="by length", rich_help_panel=_RUN),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="If not the model's own.", rich_help_panel=_RUN)
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Of a hub id.", rich_help_panel=_RUN)] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code", help="Run code that a hub model ships.", rich_help_panel=_RUN
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
        bool, typer.Option("--overwrite", help="Replace --out if it exists.", rich_help_panel=_OUT)
    ] = False,
    keep_activations: Annotated[
        bool,
        typer.Option(
            "--keep-activations", help="Leave the shards in the run folder.", rich_help_panel=_OUT
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel=_OUT)
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress on stderr.", rich_help_panel=_OUT)
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks.", rich_help_panel=_OUT)
    ] = False,
) -> None:
    """Emergence per block over in-context shot counts, with the model's accuracy beside it.

    Writes run.json, Parquet tables, a PNG and one self-contained HTML page to a run folder.
    """
    asked = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in locals().items()
        if name not in ("out", "overwrite", "keep_activations", "as_json", "quiet", "debug")
    }
    counts = None if shots is None else parse_shots(shots)
    subject = _task(
        task, data, dataset, text, input_column, output_column, split, config, window, template
    )

    _calm_libraries()
    from ed_interp.models.load import load
    from ed_interp.probes.emergence.definition import emergence
    from ed_interp.processes import gather, process, wait_for_all

    hooked = load(
        model,
        tokenizer=tokenizer,
        device=device,
        dtype=dtype,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    first = process()[0] == 0
    from ed_interp.prompts.tasks import as_task
    from ed_interp.records import RunFolder, next_run_path

    name = as_task(subject).name
    target = out or next_run_path(Path("ed-interp-runs"), f"{hooked.name}-{name}", asked)
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
            template=None,
            estimator=estimator,
            noise=noise,
            beta=beta,
            noise_profile=noise_profile,
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
        curve.settings.update(command=_command_line(), asked=asked)
        from ed_interp.probes.emergence.files import write_curve

        write_curve(curve, run.folder)
        if not keep_activations:
            shutil.rmtree(shards, ignore_errors=True)
    if as_json:
        typer.echo(curve.to_json())
    else:
        from ed_interp.cli.tables import print_curve

        print_curve(curve)
    print(
        f"written to {_shown(run.path)}; open {_shown(run.path / 'report.html')}", file=sys.stderr
    )


def parse_shots(text: str) -> list[int]:
    """Shot counts from ``0-8``, ``0,1,2,4`` or a mixture.

    >>> parse_shots("0-2,8")
    [0, 1, 2, 8]

    Raises:
        InvalidInputError: anything else.
    """
    counts: list[int] = []
    for part in text.replace(" ", "").split(","):
        low, dash, high = part.partition("-")
        if not low.isdigit() or (dash and not high.isdigit()):
            raise InvalidInputError(
                f"--shots {text!r}: counts such as 0-8 or 0,1,2,4,8 are expected"
            )
        last = int(high) if dash else int(low)
        if last < int(low) or last > 10_000:
            raise InvalidInputError(f"--shots {text!r}: {part} is no ascending range up to 10,000")
        counts += range(int(low), last + 1)
    return counts


def _task(
    task: str | None,
    data: Path | None,
    dataset: str | None,
    text: Path | None,
    input_column: str,
    output_column: str,
    split: str,
    config: str | None,
    window: int,
    template: str | None,
) -> Task:
    from ed_interp.prompts.files import from_dataset, from_file, text_from_file
    from ed_interp.prompts.tasks import as_task, builtin_task

    sources = {"--task": task, "--data": data, "--dataset": dataset, "--text": text}
    given = [name for name, value in sources.items() if value is not None]
    if len(given) > 1:
        raise InvalidInputError(f"{' and '.join(given)} given; one source of prompts is expected")
    if template is not None:
        template = template.replace("\\n", "\n").replace("\\t", "\t")
    if data is not None:
        return from_file(data, input=input_column, output=output_column, template=template)
    if dataset is not None:
        return from_dataset(
            dataset,
            split=split,
            config=config,
            input=input_column,
            output=output_column,
            template=template,
        )
    if text is not None:
        return as_task(text_from_file(text, window=window), template=template)
    return builtin_task(task or "country-capital", template=template)


def _calm_libraries() -> None:
    """Progress bars and warnings of libraries would tear ours apart; errors still show."""
    import os
    import warnings

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.filterwarnings("ignore", category=FutureWarning)
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _command_line() -> str:
    return shlex.join(["ed-interp", *sys.argv[1:]])


def _shown(path: Path) -> str:
    """Relative where that is shorter and clear."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
