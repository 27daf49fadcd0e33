"""``ed-interp features``: train, measure, show, follow and explain feature dictionaries."""

from __future__ import annotations

import dataclasses
import json
import os
import sys

from ed_interp.cli.app import group
from ed_interp.cli.command import NEW_FOLDER, Out, Output, command, shown
from ed_interp.errors import RunFolderError
from ed_interp.probes import dictionaries
from ed_interp.probes.dictionaries.options import (
    ExplainOptions,
    FeatureEmergenceOptions,
    MeasureOptions,
    ShowOptions,
    TrainOptions,
)

app = group("features")

# What an interrupted run has measured is not kept.
RUN = Out("Run folder to make, whole or not at all.")


@app.callback()
def before() -> None:
    """Feature dictionaries (sparse autoencoders) of the residual stream."""
    # Read when SAELens imports wandb, which would otherwise ask for an account.
    os.environ.setdefault("WANDB_MODE", "disabled")


@command(app, "train", TrainOptions, out=NEW_FOLDER)
def train(options: TrainOptions, output: Output) -> None:
    """Train a dictionary with SAELens, into a folder that SAELens loads too.

    - ed-interp features train --site blocks.2.hook_resid_post --out SAE
    - ed-interp features train --site blocks.2.hook_resid_post --arch spike-slab --out SAE
    """
    output.show(dictionaries.train(options=options, **output.where()).record)
    place = shown(output.path)
    print(f"written to {place}; measure it: ed-interp features measure {place}", file=sys.stderr)


@command(app, "measure", MeasureOptions, out=RUN)
def measure(options: MeasureOptions, output: Output) -> None:
    """Measure a dictionary on held-out text.

    L0, fraction of variance unexplained, cross-entropy recovered, dead features, monosemanticity,
    sparse probing, splitting and absorption.

    - ed-interp features measure SAE --out RUN
    """
    output.show(dictionaries.measure(options=options, **output.where()), output.out)


@command(app, "show", ShowOptions, out=RUN)
def show(options: ShowOptions, output: Output) -> None:
    """Show features: contexts, tokens promoted, neighbours, effect of clamping.

    - ed-interp features show SAE --feature 17
    - ed-interp features show SAE --html page.html
    """
    if options.html is not None and options.html.exists() and not output.overwrite:
        raise RunFolderError(f"{options.html} exists; pass another --html, or --overwrite")
    if options.feature and options.html is None and output.out is None:
        # Only these are printed and nothing is kept, so the others need not be clamped.
        options = dataclasses.replace(options, clamp_features=options.feature)
    described = dictionaries.describe(options=options, **output.where())
    if options.html is not None:
        described.write_page(options.html, overwrite=output.overwrite)
    cards = [described.feature(index) for index in options.feature or ()]
    # JSON holds the cards, or a row of numbers for every feature.
    names = ("model", "site", "architecture", "tokens", "alive")
    rows = json.loads(described.to_frame().to_json(orient="records"))
    data = {
        **{name: getattr(described, name) for name in names},
        "latents": len(described),
        "features": [dataclasses.asdict(card) for card in cards] or rows,
    }
    tables = [table for card in cards for table in card.tables()] or described.tables()
    headline = "" if cards else f"{described.title()}: {described.headline()} "
    output.print(data, *tables, headline=headline + described.cautions())
    output.written(options.html)
    output.written(output.out)


@command(app, "emergence", FeatureEmergenceOptions, out=RUN)
def emergence(options: FeatureEmergenceOptions, output: Output) -> None:
    """Follow which features become active and informative, over shots and training.

    - ed-interp features emergence SAE --out RUN
    - ed-interp features emergence SAE --checkpoints all --out RUN
    """
    output.show(dictionaries.feature_emergence(options=options, **output.where()), output.out)


@command(app, "explain", ExplainOptions, out=RUN)
def explain(options: ExplainOptions, output: Output) -> None:
    """Name features by tokens and categories, and score the names on held-out text.

    - ed-interp features explain SAE --feature 0-8
    """
    output.show(dictionaries.score_explanations(options=options, **output.where()), output.out)
