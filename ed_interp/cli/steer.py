"""``ed-interp steer``: find a direction, apply it, sweep it against controls, look at it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ed_interp.cli import options, steer_options
from ed_interp.cli.running import calm_libraries, command_line, shown

app = typer.Typer(
    help="Steering: directions in the residual stream.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Model = Annotated[str, typer.Option(help="Bundled model, hub id or local folder.")]
DirectionFile = Annotated[Path, typer.Option("--direction", help="File that `steer find` wrote.")]
Sites = Annotated[list[str] | None, typer.Option("--site", help="Hook point; repeatable.")]
Seed = Annotated[int, typer.Option(help="Of every draw.", callback=options.seed)]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps.", show_default="the best")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.", metavar="")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.", metavar="")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.", metavar="")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace --out.", metavar="")]
WhereOption = Annotated[
    steer_options.Tokens,
    typer.Option(
        "--where", metavar="<name>", help="Tokens: all, prompt, last (of the prompt), generation."
    ),
]


@app.command("find")
def find(
    out: Annotated[Path, typer.Option(help="File to write, such as D.safetensors.")],
    pairs: Annotated[
        Path | None,
        typer.Option(help="Columns positive, negative and, if wanted, read: JSONL, CSV, Parquet."),
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="Instead, for function_vector: built-in labelled task.")
    ] = None,
    model: Model = "icl-gpt2",
    method: Annotated[
        str,
        typer.Option(help="mean_difference, pca, logistic, lda, whitened or function_vector."),
    ] = "mean_difference",
    site: Sites = None,
    read: Annotated[
        str | None,
        typer.Option(help="Token read: an index or a part of the text.", show_default="the last"),
    ] = None,
    heads: Annotated[
        int | None,
        typer.Option(
            help="Of a function vector.",
            callback=options.one_or_more,
            show_default="those with a tenth of the greatest effect",
        ),
    ] = None,
    shots: Annotated[
        int | None,
        typer.Option(help="Of a function vector.", callback=options.one_or_more, show_default="8"),
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find a direction and say how likely it is to steer.

    - ed-interp steer find --pairs pairs.jsonl --out D.safetensors
    - ed-interp steer find --method function_vector --task country-capital --out FV.safetensors
    """
    steer_options.check_source(method, pairs, task, heads=heads, shots=shots, site=site, read=read)
    steer_options.check_out(out, overwrite=overwrite)
    calm_libraries()
    from ed_interp.models.load import load

    hooked = load(model, device=device)
    if method == "function_vector":
        from ed_interp.probes.directions.function_vector import function_vector

        assert task is not None
        direction = function_vector(
            hooked, task, heads=heads, shots=shots or 8, seed=seed, progress=not quiet
        )
        looked, said = None, ""
    else:
        from ed_interp.probes.directions.find import find_direction
        from ed_interp.probes.directions.pairs import Contrast
        from ed_interp.probes.directions.preflight import FEWEST, preflight
        from ed_interp.probes.directions.states import read_states

        assert pairs is not None
        contrast = Contrast.from_file(pairs, read=steer_options.parse_read(read))
        states = read_states(hooked, contrast, sites=site, progress=not quiet)
        direction = find_direction(hooked, states, method=method)
        enough = len(contrast.positive) >= FEWEST
        looked = preflight(hooked, states, seed=seed) if enough else None
        said = f"too few pairs to say whether it will steer: at least {FEWEST} are needed"
    written = direction.save(out, overwrite=overwrite)
    if as_json:
        found = {"file": str(written), **steer_options.described(direction)}
        typer.echo(json.dumps(found | {"preflight": looked and looked.to_dict()}))
    else:
        steer_options.print_direction(direction)
        if looked is not None:
            typer.echo(looked.verdict)
        elif said:  # a contrast of too few
            typer.echo(said)
        if len(direction.vectors) > 1:
            typer.echo(
                f"it holds vectors at {len(direction.vectors)} sites, and apply adds at all of "
                "them; --site chooses"
            )
    print(f"written to {shown(Path(written))}", file=sys.stderr)


@app.command("apply")
def apply(
    direction: DirectionFile,
    prompt: Annotated[list[str], typer.Option(help="Text to continue; repeatable.")],
    coefficient: Annotated[float, typer.Option(help="How strongly.")] = 1.0,
    model: Model = "icl-gpt2",
    site: Sites = None,
    where: WhereOption = "all",
    tokens: Annotated[
        int, typer.Option(help="New tokens at most.", callback=options.one_or_more)
    ] = 20,
    temperature: Annotated[float, typer.Option(help="0 is greedy.", min=0.0)] = 0.0,
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    r"""Continue prompts with and without a direction, side by side.

    - ed-interp steer apply --direction D.safetensors --coefficient 4 --prompt "France -&gt;"

    ``\n`` in a prompt is a line break. With --json also the log-probability of every token.
    """
    calm_libraries()
    from ed_interp.eval.steering.generation import side_by_side
    from ed_interp.models.load import load
    from ed_interp.streams.direction import Direction
    from ed_interp.streams.injection import Add

    loaded = Direction.load(direction)
    chosen = loaded.restricted(*site) if site else loaded
    hooked = load(model, device=device)
    added = Add(chosen, coefficient=coefficient, where=steer_options.selector(where))
    texts = [text.replace("\\n", "\n") for text in prompt]
    found = [
        side_by_side(
            hooked, text, [added], max_new_tokens=tokens, temperature=temperature, seed=seed
        )
        for text in texts
    ]
    if as_json:
        settings = {"coefficient": coefficient, "where": where, "seed": seed}
        head = {"model": hooked.name, "sites": list(chosen.vectors), **settings}
        typer.echo(json.dumps({**head, "prompts": [item.to_dict() for item in found]}))
        return
    sites = ", ".join(chosen.vectors)
    typer.echo(f"{coefficient:g} times {loaded.provenance.method} at {sites}; tokens: {where}")
    steer_options.print_side_by_side(found)


@app.command("sweep")
def sweep(
    direction: DirectionFile,
    samples: Annotated[
        Path, typer.Option(help="Columns prompt, wanted, unwanted: JSONL, CSV, Parquet.")
    ],
    neutral: Annotated[
        Path, typer.Option(help="Text that should stay as likely: .txt, or a .json list.")
    ],
    instruction: Annotated[
        str, typer.Option(help="Put before prompts in the prompt-only control.")
    ],
    out: Annotated[Path, typer.Option(help="Run folder; an interrupted sweep is resumed.")],
    coefficients: Annotated[str, typer.Option(help="Comma-separated.")] = "-2,-1,0.5,1,2,4",
    model: Model = "icl-gpt2",
    site: Sites = None,
    together: Annotated[
        bool, typer.Option("--together", help="Write at all sites at once.", metavar="")
    ] = False,
    where: WhereOption = "all",
    budget: Annotated[
        float, typer.Option(help="Perplexity on --neutral, over unsteered, at most.", min=1.0)
    ] = 1.1,
    randoms: Annotated[
        int, typer.Option(help="Random directions.", callback=options.one_or_more)
    ] = 5,
    seed: Seed = 0,
    device: Device = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Sweep strength and place on half of the samples; compare with controls on the other half.

    - ed-interp steer sweep --direction D.safetensors --samples S.jsonl --neutral text.txt
      --instruction "Be happy. " --out RUN
    """
    asked = {name: str(value) if isinstance(value, Path) else value
             for name, value in locals().items()
             if name not in ("out", "overwrite", "as_json", "quiet", "debug")}  # fmt: skip
    strengths = steer_options.parse_numbers(coefficients, "--coefficients")
    calm_libraries()
    from ed_interp.eval.steering.files import write_sweep
    from ed_interp.eval.steering.samples import samples_from_file
    from ed_interp.eval.steering.sweep import sweep as run_sweep
    from ed_interp.models.load import load
    from ed_interp.prompts.files import text_from_file
    from ed_interp.records import RunFolder
    from ed_interp.streams.direction import Direction

    loaded = Direction.load(direction)
    chosen = loaded.restricted(*site) if site else loaded
    asked_samples = samples_from_file(samples)
    texts = text_from_file(neutral).texts
    hooked = load(model, device=device)
    with RunFolder.open(out, asked, overwrite=overwrite) as run:
        if run.resumed and not quiet:
            print(f"resuming the interrupted sweep in {shown(out)}", file=sys.stderr)
        result = run_sweep(
            hooked,
            chosen,
            asked_samples,
            neutral=texts,
            instruction=instruction.replace("\\n", "\n"),
            coefficients=strengths,
            together=together,
            where=steer_options.selector(where),
            budget=budget,
            random_directions=randoms,
            seed=seed,
            folder=run.folder,
            progress=not quiet,
        )
        result.settings["command"] = command_line()
        write_sweep(result, run.folder)
    if as_json:
        typer.echo(result.to_json())
    else:
        steer_options.print_sweep(result)
    print(f"written to {shown(run.path)}", file=sys.stderr)


@app.command("show")
def show(
    file: Annotated[Path, typer.Argument(help="A direction, or the run folder of a sweep.")],
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what a direction is (sites, lengths, how it was found), or how a sweep went."""
    calm_libraries()
    if file.is_dir():
        from ed_interp.eval.steering.result import SweepResult

        result = SweepResult.load(file)
        typer.echo(result.to_json()) if as_json else steer_options.print_sweep(result)
        return
    from ed_interp.streams.direction import Direction

    direction: Any = Direction.load(file)
    if as_json:
        typer.echo(json.dumps(steer_options.described(direction)))
    else:
        steer_options.print_direction(direction)
