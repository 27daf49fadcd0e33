"""``ed-interp compare``: an adapter against the frozen model and controls, into a run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ed_interp.cli import options
from ed_interp.cli.running import calm_libraries, command_line, shown
from ed_interp.errors import EdInterpError, InvalidInputError

if TYPE_CHECKING:
    from ed_interp.eval.study.experiment import Experiment
    from ed_interp.eval.study.plan import Plan

_WHAT = "What to compare"
_ASK = "What to ask"
_TRAIN = "Training the arms"
_RUN = "Running"
_OUT = "Output"

HELP = r"""Compare an adapter with the frozen model and with controls: did it do what was wanted,
and nothing else?

Controls are trained here, on the same examples with the same steps and seeds, each at the best
learning rate of its own sweep. Everything is paired by prompt and corrected for the number of
tests: the task per shot count, every built-in relation (side effects are named), forgetting on
neutral text, emergence per block, and cost. Finished arms are kept; the same command resumes.

- ed-interp compare --task country-capital
- ed-interp compare --treated CKPT --controls lora,bias,shuffled --task country-capital --out RUN
- ed-interp compare --treated CKPT --controls none --task sentiment --fail-on-forgetting 0.05
"""


def command(
    model: Annotated[
        str,
        typer.Option(
            help="The frozen model: bundled, hub id or local folder.", rich_help_panel=_WHAT
        ),
    ] = "icl-gpt2",
    treated: Annotated[
        str,
        typer.Option(
            help="Folder of an adapter, or the name of an arm to train.", rich_help_panel=_WHAT
        ),
    ] = "bias-injection",
    controls: Annotated[
        str,
        typer.Option(
            help="Arms to compare with: lora, bias, shuffled, tau-zero, tau-infinity, random; "
            "all, or none.",
            rich_help_panel=_WHAT,
        ),
    ] = "all",
    task: Annotated[
        str, typer.Option(help="Built-in task (`ed-interp tasks`).", rich_help_panel=_ASK)
    ] = "country-capital",
    data: Annotated[
        Path | None,
        typer.Option(
            help="Instead of --task: pairs from a .jsonl, .json, .csv or .parquet file.",
            rich_help_panel=_ASK,
        ),
    ] = None,
    shots: Annotated[
        str, typer.Option(help="Numbers of demonstrations.", rich_help_panel=_ASK)
    ] = "0,1,2,4",
    prompts: Annotated[
        int,
        typer.Option(help="Of the task.", callback=options.two_or_more, rich_help_panel=_ASK),
    ] = 100,
    watch_prompts: Annotated[
        int,
        typer.Option(
            help="Of every other relation, where side effects are looked for.",
            callback=options.two_or_more,
            rich_help_panel=_ASK,
        ),
    ] = 24,
    texts: Annotated[
        int,
        typer.Option(
            help="Neutral texts, for forgetting.",
            callback=options.one_or_more,
            rich_help_panel=_ASK,
        ),
    ] = 40,
    emergence: Annotated[
        bool,
        typer.Option(help="Also compare E per block.", metavar="", rich_help_panel=_ASK),
    ] = True,
    held_out: Annotated[
        float,
        typer.Option(
            help="Share of the task's inputs that is asked, and not trained on.",
            callback=options.share,
            rich_help_panel=_TRAIN,
        ),
    ] = 0.3,
    seeds: Annotated[
        int,
        typer.Option(help="Of every arm.", callback=options.one_or_more, rich_help_panel=_TRAIN),
    ] = 5,
    rates: Annotated[
        str | None,
        typer.Option(
            help="Learning rates of the sweep.",
            show_default="0.001,0.003,0.01",
            rich_help_panel=_TRAIN,
        ),
    ] = None,
    steps: Annotated[
        int,
        typer.Option(help="Of training.", callback=options.two_or_more, rich_help_panel=_TRAIN),
    ] = 60,
    batch_size: Annotated[
        int,
        typer.Option(help="Of training.", callback=options.two_or_more, rich_help_panel=_TRAIN),
    ] = 16,
    allow_non_neutral: Annotated[
        bool,
        typer.Option(
            "--allow-non-neutral",
            help="Also compare an adapter that changes something before it is trained.",
            metavar="",
            rich_help_panel=_RUN,
        ),
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(help="cpu, cuda, cuda:1, mps.", show_default="the best", rich_help_panel=_RUN),
    ] = None,
    fail_on_forgetting: Annotated[
        float | None,
        typer.Option(
            help="Exit with 1 if the cross-entropy on neutral text rises by more, nats a token.",
            callback=options.above_zero,
            show_default="never",
            rich_help_panel=_OUT,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run folder; an interrupted run in it is resumed.",
            show_default="ed-interp-runs/compare-MODEL-TASK-001, ...",
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
    """Run ``ed-interp compare``; what it does is in :data:`HELP`."""
    counts = options.parse_shots(shots)
    chosen = _rates(rates)
    calm_libraries()
    from ed_interp.eval.study.arms import CONTROLS, arms_of
    from ed_interp.eval.study.experiment import run_experiment
    from ed_interp.eval.study.plan import Plan
    from ed_interp.processes import process
    from ed_interp.records import next_run_path

    folder = _checkpoint(treated)
    asked = {"all": list(CONTROLS), "none": []}.get(controls)
    names = _names(controls) if asked is None else asked
    arms = arms_of([*([] if folder else [treated]), "frozen", *names])
    plan = Plan(
        model=model,
        problem=_problem(task, data, counts, held_out),
        arms=tuple(arm.name for arm in arms),
        treated=None if folder is None else str(folder),
        seeds=tuple(range(seeds)),
        rates=chosen,
        steps=steps,
        batch_size=batch_size,
        prompts=prompts,
        watch_prompts=watch_prompts,
        texts=texts,
        emergence=emergence,
        require_identity=not allow_non_neutral,
        device=device,
    )
    plan.make_problem()
    name = f"compare-{Path(model).name}-{data.stem if data else task}"
    target = out or next_run_path(Path("ed-interp-runs"), name, plan.to_dict())
    study = run_experiment(
        plan,
        target,
        overwrite=overwrite,
        extra={"command": command_line()},
        progress=None if quiet else True,
    )
    if process()[0]:
        return
    _show(study, as_json=as_json)
    typer.echo(f"written to {shown(study.path)}", err=True)
    if fail_on_forgetting is not None:
        _check_forgetting(study, plan, fail_on_forgetting)


def _show(study: Experiment, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(study.record, allow_nan=False))
        return
    from ed_interp.cli.compare_tables import print_study

    print_study(study)


def _check_forgetting(study: Experiment, plan: Plan, most: float) -> None:
    """Fail if the arm under test has forgotten more than it may.

    Raises:
        EdInterpError: its mean rise of the cross-entropy over seeds is above ``most``.
    """
    row = next(
        row for row in study.summary if row.arm == plan.tested and row.metric == "forgetting"
    )
    if row.mean > most:
        raise EdInterpError(
            f"{plan.tested} forgets: the cross-entropy on neutral text rises by {row.mean:.4f} "
            f"nats a token, more than --fail-on-forgetting {most:g}"
        )


def _checkpoint(treated: str) -> Path | None:
    """The folder of an adapter; None if ``treated`` names an arm.

    Raises:
        InvalidInputError: a folder without an adapter, or neither a folder nor an arm.
    """
    from ed_interp.eval.study.arms import ARMS

    if treated in ARMS:
        return None
    folder = Path(treated).expanduser()
    if not (folder / "adapter_config.json").is_file():
        found = "has no adapter_config.json" if folder.is_dir() else "does not exist"
        raise InvalidInputError(
            f"--treated {treated}: the folder {found}, and no arm is called so; pass the folder of "
            f"an adapter, or one of {', '.join(ARMS)}"
        )
    return folder.resolve()


def _problem(task: str, data: Path | None, shots: list[int], held_out: float) -> dict[str, Any]:
    """The plan's problem as plain data."""
    from ed_interp.prompts.files import from_file
    from ed_interp.prompts.tasks import LabelledTask, builtin_task

    common: dict[str, Any] = {"shots": shots}
    if data is not None:
        found = from_file(data)
        pairs = [list(pair) for pair in found.pairs]
        common |= {"pairs": pairs, "template": found.template.text, "held_out": held_out}
        return {"kind": "relation", "task": found.name, **common}
    if isinstance(builtin_task(task), LabelledTask):
        return {"kind": "relation", "task": task, "held_out": held_out, **common}
    return {"kind": "question", "task": task, **common}


def _names(text: str) -> list[str]:
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise InvalidInputError("--controls is empty; name arms, or say all or none")
    return names


def _rates(text: str | None) -> tuple[float, ...] | None:
    """Learning rates from ``0.001,0.003``.

    Raises:
        InvalidInputError: anything else.
    """
    if text is None:
        return None
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 < rate < float("inf") for rate in found):
        raise InvalidInputError(f"--rates {text!r}: numbers above 0 such as 0.001,0.003 expected")
    return found
