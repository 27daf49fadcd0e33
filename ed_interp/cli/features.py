"""``ed-interp features``: train and measure feature dictionaries."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ed_interp.cli import features_follow, features_show, options
from ed_interp.cli import features_options as common
from ed_interp.cli.features_model import dictionary_and_model
from ed_interp.errors import InvalidInputError

app = typer.Typer(
    help="Feature dictionaries (sparse autoencoders) of the residual stream.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

app.command("show")(features_show.show)
app.command("emergence")(features_follow.emergence)
app.command("explain")(features_follow.explain)


@app.command("train")
def train(
    site: Annotated[str, typer.Option(help="Hook point, such as blocks.2.hook_resid_post.")],
    out: Annotated[Path, typer.Option(help="Folder to make; an interrupted run is resumed.")],
    model: Annotated[str, typer.Option(help="Bundled model, hub id or folder.")] = "icl-gpt2",
    arch: Annotated[
        str,
        typer.Option(
            help="topk, batchtopk, matryoshka, jumprelu, standard, gated or spike-slab.",
            rich_help_panel=common.TRAINING,
        ),
    ] = "topk",
    k: Annotated[
        int | None,
        typer.Option(
            help="Active latents per token.",
            callback=options.one_or_more,
            show_default="16",
            rich_help_panel=common.TRAINING,
        ),
    ] = None,
    latents: Annotated[
        int,
        typer.Option(
            help="Size of the dictionary.",
            callback=options.one_or_more,
            rich_help_panel=common.TRAINING,
        ),
    ] = 1024,
    tokens: Annotated[
        int,
        typer.Option(
            help="To train on.", callback=options.one_or_more, rich_help_panel=common.TRAINING
        ),
    ] = 1_000_000,
    batch_size: Annotated[
        int,
        typer.Option(
            help="Tokens a step.", callback=options.one_or_more, rich_help_panel=common.TRAINING
        ),
    ] = 512,
    lr: Annotated[
        float | None,
        typer.Option(
            help="Peak learning rate.",
            callback=options.above_zero,
            show_default="2e-3, less above 1,024 latents",
            rich_help_panel=common.TRAINING,
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE of SAELens's configuration, such as l1_coefficient=5; repeatable.",
            rich_help_panel=common.TRAINING,
        ),
    ] = None,
    text: common.Text = None,
    task: common.Task = None,
    dataset: common.Dataset = None,
    column: common.Column = None,
    split: common.Split = None,
    config: common.Config = None,
    window: common.Window = None,
    seed: common.Seed = 0,
    device: common.Device = None,
    dtype: common.Dtype = "float32",
    overwrite: common.Overwrite = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """Train a dictionary with SAELens, into a folder that SAELens loads too.

    - ed-interp features train --site blocks.2.hook_resid_post --out SAE
    - ed-interp features train --site blocks.2.hook_resid_post --arch spike-slab --out SAE
    """
    settings = _options(option or [])
    common.calm_libraries()
    source = common.source_of(text, task, dataset, column, split, config)
    from ed_interp.models.load import load
    from ed_interp.probes.dictionaries import train as train_dictionary

    trained = train_dictionary(
        load(model, device=device, dtype=dtype),
        site=site,
        out=out,
        text=source,
        architecture=arch,
        latents=latents,
        k=k,
        tokens=tokens,
        batch_size=batch_size,
        lr=lr,
        window=window,
        seed=seed,
        options=settings,
        overwrite=overwrite,
        progress=not quiet,
    )
    last = trained.record["history"][-1]
    if as_json:
        typer.echo(json.dumps({"out": str(out), **trained.describe(), "last": last}))
        return
    typer.echo(
        f"{trained.latents} latents at {site}: FVU {last['fvu']:.3f} and L0 {last['l0']:.1f} in "
        "the last batches of training"
    )
    print(f"written to {out}; measure it: ed-interp features measure {out}", file=sys.stderr)


@app.command("measure")
def measure(
    sae: common.Sae,
    sae_id: common.SaeId = None,
    model: common.Model = None,
    site: common.SiteName = None,
    tokens: Annotated[
        int,
        typer.Option(
            help="To read features at.", callback=options.two_or_more, rich_help_panel=common.TEXT
        ),
    ] = 100_000,
    ce_tokens: Annotated[
        int,
        typer.Option(
            help="To predict, for cross-entropy recovered.",
            callback=options.two_or_more,
            rich_help_panel=common.TEXT,
        ),
    ] = 20_000,
    text: common.Text = None,
    task: common.Task = None,
    dataset: common.Dataset = None,
    column: common.Column = None,
    split: common.Split = None,
    config: common.Config = None,
    window: common.Window = None,
    seed: common.Seed = 0,
    device: common.Device = None,
    dtype: common.Dtype = "float32",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for run.json and the table of features.", rich_help_panel=common.OUT
        ),
    ] = None,
    overwrite: common.Overwrite = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """Measure a dictionary on held-out text.

    L0, fraction of variance unexplained, cross-entropy recovered, dead features, monosemanticity,
    sparse probing, splitting and absorption.
    """
    source = common.source_of(text, task, dataset, column, split, config)
    dictionary, hooked = dictionary_and_model(sae, sae_id, model, site, device, dtype)
    from ed_interp.probes.dictionaries import measure as measure_dictionary

    measured = measure_dictionary(
        dictionary,
        hooked,
        text=source,
        tokens=tokens,
        ce_tokens=ce_tokens,
        window=window,
        seed=seed,
        progress=not quiet,
    )
    if out is not None:
        measured.save(out, overwrite=overwrite)
        print(f"written to {out}", file=sys.stderr)
    if as_json:
        typer.echo(measured.to_json())
    else:
        from ed_interp.cli.features_table import print_measurement

        print_measurement(measured)


def _options(given: list[str]) -> dict[str, Any]:
    """``NAME=VALUE`` with the value as JSON, or as text where it is none."""
    found: dict[str, Any] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name.strip():
            raise InvalidInputError(f"--option {item!r}: NAME=VALUE is expected")
        try:
            found[name.strip()] = json.loads(value)
        except ValueError:
            found[name.strip()] = value
    return found
