"""``ed-interp features show``: features as a person reads them, in the terminal or as a page."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ed_interp.cli import features_options as common
from ed_interp.cli import options
from ed_interp.cli.features_model import dictionary_and_model, refuse_existing
from ed_interp.errors import InvalidInputError

if TYPE_CHECKING:
    from ed_interp.probes.dictionaries.description import FeatureCard, FeatureDescriptions

_READING = "What to read"


def show(
    sae: common.Sae,
    sae_id: common.SaeId = None,
    feature: Annotated[
        list[int] | None,
        typer.Option(help="Number of a feature to print; repeatable.", min=0),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            help="Write every feature to this one page, which opens offline.",
            rich_help_panel=common.OUT,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for arrays, record and page, for FeatureDescriptions.load.",
            rich_help_panel=common.OUT,
        ),
    ] = None,
    model: common.Model = None,
    site: common.SiteName = None,
    tokens: Annotated[
        int,
        typer.Option(
            help="Of held-out text to read.", callback=options.one_or_more, rich_help_panel=_READING
        ),
    ] = 200_000,
    contexts: Annotated[
        int,
        typer.Option(
            help="Strongest contexts per feature.",
            callback=options.one_or_more,
            rich_help_panel=_READING,
        ),
    ] = 8,
    clamp_contexts: Annotated[
        int,
        typer.Option(
            help="Contexts in which each feature is clamped; 0 leaves it out.",
            min=0,
            rich_help_panel=_READING,
        ),
    ] = 4,
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
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace what is at --html or --out.",
            metavar="",
            rich_help_panel=common.OUT,
        ),
    ] = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
    debug: common.Debug = False,
) -> None:
    """Show features: contexts, tokens promoted, neighbours, effect of clamping.

    - ed-interp features show SAE --feature 17
    - ed-interp features show SAE --html page.html
    """
    refuse_existing(html, out, overwrite=overwrite)
    source = common.source_of(text, task, dataset, column, split, config)
    dictionary, hooked = dictionary_and_model(sae, sae_id, model, site, device, dtype)
    for index in feature or []:
        if index >= dictionary.latents:
            raise InvalidInputError(
                f"feature {index}: this dictionary has 0 to {dictionary.latents - 1}"
            )
    from ed_interp.probes.dictionaries.description import describe

    found = describe(
        dictionary,
        hooked,
        text=source,
        tokens=tokens,
        contexts=contexts,
        clamp_contexts=clamp_contexts,
        clamp_features=feature if feature and html is None and out is None else None,
        window=window,
        seed=seed,
        progress=not quiet,
    )
    if html is not None:
        found.write_page(html, overwrite=overwrite)
    if out is not None:
        found.save(out, overwrite=overwrite)
    cards = [found.feature(index) for index in feature or []]
    if as_json:
        typer.echo(json.dumps(_plain(found, cards)))
    elif cards:
        _print(cards)
    else:
        _print_best(found)
    for path in (html, out):
        if path is not None:
            print(f"written to {path}", file=sys.stderr)


def _plain(found: FeatureDescriptions, cards: list[FeatureCard]) -> dict[str, object]:
    record: dict[str, object] = {
        "model": found.model,
        "site": found.site,
        "architecture": found.architecture,
        "latents": len(found),
        "alive": found.alive,
        "tokens": found.tokens,
    }
    if cards:
        return record | {"features": [card.to_dict() for card in cards]}
    return record | {"features": json.loads(found.to_frame().to_json(orient="records"))}


def _print(cards: list[FeatureCard]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for card in cards:
        name = "no name" if card.name is None else _shown(card.name)
        console.print(f"[bold]Feature {card.index}[/]", Text(name), highlight=False)
        if not card.density:
            console.print("never active in this text\n")
            continue
        console.print(
            f"active at {100 * card.density:.3g}% of tokens, largest {card.largest:.3g}, mean "
            f"{card.mean:.3g}, decoder norm {card.norm:.3g}, score {card.score:.2f} "
            f"(shuffled {card.control:.2f})",
            highlight=False,
        )
        if card.clamp_nats == card.clamp_nats:
            console.print(
                f"clamped: the next token moves {card.clamp_nats:.3g} nats; raises", end=" "
            )
            console.print(Text(_listed(card.clamp_tokens)))
        if card.promoted:
            console.print("promotes  ", Text(_listed(card.promoted)))
            console.print("suppresses", Text(_listed(card.suppressed)))
        near = ", ".join(f"{index} ({cosine:.2f})" for index, cosine in card.nearest)
        console.print(f"nearest    {near}", highlight=False)
        for context in card.contexts:
            line = Text(f"{max(context.values):7.3g}  ", style="dim")
            for place, (token, value) in enumerate(
                zip(context.tokens, context.values, strict=True)
            ):
                style = "bold reverse" if place == context.peak else "underline" if value else ""
                marked = place == context.peak and not console.is_terminal
                shown = f"[{_shown(token)}]" if marked else _shown(token)
                line.append(shown, style=f"not dim {style}")
            console.print(line)
        console.print()


def _print_best(found: FeatureDescriptions) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    console.print(
        f"[bold]{len(found)} features of {escape(found.model)} at {found.site}[/], {found.alive} "
        f"active in {found.tokens:,} tokens; the 15 of highest score:",
        highlight=False,
    )
    table = Table(box=SIMPLE_HEAD, show_edge=False)
    for head in ("feature", "best predicted by", "density", "score", "clamped, nats"):
        table.add_column(head, justify="left" if head.startswith("best") else "right")
    best = found.to_frame().sort_values("score", ascending=False).head(15)
    for row in best.to_dict("records"):
        table.add_row(
            str(row["feature"]),
            escape(_shown(str(row["name"]))),
            f"{row['density']:.4f}",
            f"{row['score']:.3f}",
            f"{row['clamp_nats']:.3g}",
        )
    console.print(table)


def _listed(pairs: tuple[tuple[str, float], ...]) -> str:
    return " ".join(f"{_shown(text).strip() or repr(text)}" for text, _ in pairs)


def _shown(text: str) -> str:
    return text.replace("\n", "↵").replace("\t", "⇥")
