"""``ed-interp features emergence`` and ``explain``: over shots, and explanations with scores."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ed_interp.cli import features_options as common
from ed_interp.cli import options
from ed_interp.cli.features_model import dictionary_and_model, refuse_existing
from ed_interp.prompts.tasks import DEFAULT_TASK


def emergence(
    sae: common.Sae,
    sae_id: common.SaeId = None,
    model: common.Model = None,
    site: common.SiteName = None,
    task: Annotated[str, typer.Option(help="Built-in labelled or mixed task.")] = DEFAULT_TASK,
    shots: Annotated[
        str | None,
        typer.Option(help="Such as 0-8 or 0,1,2,4,8.", show_default="0-8"),
    ] = None,
    prompts: Annotated[
        int, typer.Option(help="Size of the sample.", callback=options.two_or_more)
    ] = 500,
    about: Annotated[
        str,
        typer.Option(help="What features tell about: answer, relation, or auto."),
    ] = "auto",
    checkpoints: Annotated[
        str | None,
        typer.Option(help="Training steps of a bundled model, such as 300,949, or all."),
    ] = None,
    permutations: Annotated[
        int, typer.Option(help="Of the labels.", callback=options.one_or_more)
    ] = 200,
    seed: common.Seed = 0,
    device: common.Device = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for run.json, PNG and page.", rich_help_panel=common.OUT),
    ] = None,
    overwrite: common.Overwrite = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """Follow which features become active and informative, over shots and training.

    - ed-interp features emergence SAE --out RUN
    - ed-interp features emergence SAE --checkpoints all --out RUN
    """
    counts = None if shots is None else options.parse_shots(shots)
    steps = _steps(checkpoints)
    refuse_existing(out, overwrite=overwrite)
    dictionary, hooked = dictionary_and_model(sae, sae_id, model, site, device)
    from ed_interp.probes.dictionaries.emergence import feature_emergence

    found = feature_emergence(
        dictionary,
        hooked,
        task=task,
        shots=counts,
        prompts=prompts,
        about=about,
        checkpoints=steps,
        permutations=permutations,
        seed=seed,
        progress=not quiet,
    )
    if out is not None:
        found.save(out, overwrite=overwrite)
        print(f"written to {out}; open {out / 'report.html'}", file=sys.stderr)
    if as_json:
        typer.echo(found.to_json())
        return
    from ed_interp.probes.dictionaries.emergence.figure import headline

    typer.echo(headline(found))
    frame = found.to_frame().drop(columns=["top", "new"])
    frame["step"] = ["trained" if row.step is None else str(row.step) for row in found.rows]
    typer.echo(frame.to_string(index=False, float_format=lambda value: f"{value:.3f}"))


def explain(
    sae: common.Sae,
    sae_id: common.SaeId = None,
    model: common.Model = None,
    site: common.SiteName = None,
    feature: Annotated[
        list[int] | None,
        typer.Option(help="Number of a feature; repeatable.", show_default="all", min=0),
    ] = None,
    tokens: Annotated[
        int,
        typer.Option(
            help="Of held-out text to read.",
            callback=options.two_or_more,
            rich_help_panel=common.TEXT,
        ),
    ] = 100_000,
    contexts: Annotated[
        int,
        typer.Option(
            help="Active, and as many silent, contexts per feature.", callback=options.one_or_more
        ),
    ] = 50,
    text: common.Text = None,
    task: common.Task = None,
    dataset: common.Dataset = None,
    column: common.Column = None,
    split: common.Split = None,
    config: common.Config = None,
    seed: common.Seed = 0,
    device: common.Device = None,
    out: Annotated[
        Path | None, typer.Option(help="JSON file to write.", rich_help_panel=common.OUT)
    ] = None,
    overwrite: common.Overwrite = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """Name features by tokens and categories, and score the names on held-out text."""
    refuse_existing(out, overwrite=overwrite)
    source = common.source_of(text, task, dataset, column, split, config)
    dictionary, hooked = dictionary_and_model(sae, sae_id, model, site, device)
    from ed_interp.probes.dictionaries.interpretation import score_explanations

    found = score_explanations(
        dictionary,
        hooked,
        features=feature or None,
        text=source,
        tokens=tokens,
        contexts=contexts,
        seed=seed,
        progress=not quiet,
    )
    if out is not None:
        found.save(out)
        print(f"written to {out}", file=sys.stderr)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), allow_nan=False))
        return
    means = found.means()
    typer.echo(
        f"{len(found.rows)} features scored, {found.skipped} active too rarely; detection "
        f"{means['detection']:.3f} (another's explanation {means['detection_control']:.3f}), "
        f"fuzzing {means['fuzzing']:.3f} ({means['fuzzing_control']:.3f}); 0.5 is chance"
    )
    typer.echo("feature  detection  fuzzing  explanation")
    best = sorted(found.rows, key=lambda row: -row.detection)[: 20 if not feature else None]
    for row in best:
        scores = f"{row.detection:9.2f}  {row.fuzzing:7.2f}"
        typer.echo(f"{row.feature:7d}  {scores}  {row.text}")


def _steps(asked: str | None) -> list[int] | str:
    from ed_interp.errors import InvalidInputError

    if asked is None:
        return []
    if asked == "all":
        return asked
    try:
        return [int(step) for step in asked.split(",")]
    except ValueError:
        raise InvalidInputError(
            f"--checkpoints {asked!r}: training steps apart by commas are expected, or all"
        ) from None
