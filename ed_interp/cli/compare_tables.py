"""Rich tables of a controlled study, for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from ed_interp.eval.study.experiment import Experiment
    from ed_interp.eval.study.summary import ArmRow

_HEADS = {
    "accuracy": ("accuracy", 2, True),
    "logprob": ("log-prob", 2, True),
    "forgetting": ("forget", 3, True),
    "harmed": ("harm", 1, False),
    "decode_ratio": ("time", 2, False),
}
"""Metric -> its heading, digits, and whether the interval is shown."""


def print_study(study: Experiment) -> None:
    """The arms with intervals over seeds, what they harm, and what failed."""
    console = Console()
    plan, problem = study.plan, study.record["problem"]
    console.print(
        f"[bold]{escape(plan.tested)} against its controls: {escape(plan.model)}, "
        f"{escape(str(problem['name']))}[/] ({len(plan.seeds)} seeds, {plan.steps} steps)"
    )
    rows = {(row.arm, row.metric): row for row in study.summary}
    arms = list(dict.fromkeys(row.arm for row in study.summary))
    parameters = {arm["name"]: arm["parameters"] for arm in study.record["arms"]}
    table = Table(box=SIMPLE_HEAD, show_edge=False)
    table.add_column("arm", no_wrap=True)
    for head in ("rate", "params", *(head for head, _, _ in _HEADS.values())):
        table.add_column(head, justify="right", no_wrap=True)
    for arm in arms:
        rate = f"{study.best[arm]:g}" if arm in study.best else ""
        count = parameters.get(arm)
        cells = [_cell(rows.get((arm, metric))) for metric in _HEADS]
        table.add_row(escape(arm), rate, "" if count is None else f"{count:,}", *cells)
    console.print(table)
    console.print(
        "[dim]means over shots and seeds, Student's interval over seeds; forget: rise of the "
        "cross-entropy on neutral text, nats a token; harm: what became worse, by name below; "
        "time: of decoding, over that of the frozen model[/]"
    )
    _print_tests(study, console)
    harmed = sorted({name for row in study.trials if row.arm == plan.tested for name in row.harmed})
    if harmed:
        console.print(f"[bold]{escape(plan.tested)} made worse:[/] {escape(', '.join(harmed))}")
    for row in study.failures:
        state = "failed" if row.status != "done" else f"done at attempt {row.attempt}"
        console.print(
            f"[bold]{state}:[/] {escape(row.arm)}, rate {row.rate:g}, seed {row.seed} "
            f"{escape(row.error)}"
        )


def _print_tests(study: Experiment, console: Console) -> None:
    """What holds between the arm under test and its controls."""
    tested = [row for row in study.summary if row.p_holm is not None]
    if not tested:
        return
    held = [row for row in tested if (row.p_holm or 0) < 0.05]
    console.print(
        f"{len(held)} of {len(tested)} differences from {escape(study.plan.tested)} hold at the "
        "5% level (paired by seed, Holm)"
    )
    for row in held:
        console.print(
            f"  {escape(row.metric)}: {escape(study.plan.tested)} minus {escape(row.arm)} "
            f"{row.difference:+.3f} ({row.difference_low:+.3f} to {row.difference_high:+.3f}), "
            f"p {row.p_holm:.2g}"
        )


def _cell(row: ArmRow | None) -> str:
    if row is None:
        return ""
    _, digits, interval = _HEADS[row.metric]
    if not interval or row.ci_low is None or row.ci_high is None:
        return f"{row.mean:.{digits}f}"
    return f"{row.mean:.{digits}f}±{(row.ci_high - row.ci_low) / 2:.{digits}f}"
