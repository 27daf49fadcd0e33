"""The picture of a comparison: behaviour over shots, change per relation, emergence per block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ed_interp.charts.spec import Chart, Colour, Heat, Line, Panel
from ed_interp.eval.compare.rows import Effect
from ed_interp.eval.compare.words import pick

# Rows lie in the order of the marks, so this order puts losses at the top and gains at the bottom.
VERDICTS: dict[str, Colour] = {"worse": "caution", "unchanged": "muted", "better": "accent"}
"""Better and worse in two colours that differ without red and green."""


def comparison_charts(effects: Sequence[Effect], alpha: float, title: str) -> Iterator[Chart]:
    """Control and treated over shots, the change per relation, and that of emergence."""
    panels = [
        # The names stand at the right end of the lines, where the next panel would be.
        _behaviour(rows, label, legend=metric == "logprob")
        for metric, label in (("accuracy", "accuracy"), ("logprob", "log-probability (nats)"))
        if (rows := pick(effects, "behaviour", metric))
    ]
    if panels:
        yield Chart(name="comparison", title=title, heading="Control and treated over shots",
                    panels=panels, columns=2, share_x=False)  # fmt: skip
    if relations := pick(effects, "relation", "logprob"):
        caption = ("Treated minus control with the paired bootstrap interval, coloured if the "
                   "corrected test holds.")  # fmt: skip
        heading = "Change of log-probability by relation"
        yield Chart(name="relations", title=title, heading=heading, caption=caption, png=True,
                    panels=[_relations(relations, alpha)])  # fmt: skip
    if emergence := pick(effects, "emergence", "emergence"):
        yield Chart(name="emergence", title=title, heading="Change of emergence per block",
                    panels=[_emergence(emergence)], caption="Treated minus control, in bits.",
                    png=True)  # fmt: skip


def _behaviour(effects: Sequence[Effect], label: str, *, legend: bool) -> Panel:
    shots = [float(effect.shots or 0) for effect in effects]
    hover = [
        f"{effect.shots} shots\ncontrol {effect.control:.3f}, treated {effect.treated:.3f}\n"
        f"difference {effect.difference:+.3f}, corrected p {effect.p_holm:.2g}"
        for effect in effects
    ]
    lines = [
        Line(
            name=side,
            x=shots,
            y=[getattr(effect, side) for effect in effects],
            colour=colour,
            dash="dash" if side == "control" else "solid",
            hover=hover,
            legend=legend,
        )
        for side, colour in (("control", "muted"), ("treated", "accent"))
    ]
    return Panel(marks=lines, x="shots", y=label, x_ticks=shots)


def _relations(effects: Sequence[Effect], alpha: float) -> Panel:
    """A point and its interval for each, the largest loss at the top."""
    ordered = sorted(effects, key=lambda effect: effect.difference)
    points = [
        Line(
            name=verdict,
            x=[row.difference for row in rows],
            y=[row.name for row in rows],
            low=[row.ci_low for row in rows],
            high=[row.ci_high for row in rows],
            across=True,
            mode="points",
            colour=colour,
            hover=[f"{r.name}\n{r.difference:+.3f}, corrected p {r.p_holm:.2g}" for r in rows],
        )
        for verdict, colour in VERDICTS.items()
        if (rows := [effect for effect in ordered if effect.verdict(alpha) == verdict])
    ]
    return Panel(marks=points, rows=True, x="difference (nats)")


def _emergence(effects: Sequence[Effect]) -> Panel:
    def hover(e: Effect) -> str:
        return f"{e.name}, {e.shots} shots\n{e.difference:+.3f} bits, corrected p {e.p_holm:.2g}"

    blocks = list(dict.fromkeys(effect.name for effect in effects))
    shots = sorted({effect.shots for effect in effects if effect.shots is not None})
    cells = {(effect.name, effect.shots): effect for effect in effects}
    rows = [[cells[block, count] for count in shots] for block in blocks]
    heat = Heat(
        x=[str(count) for count in shots],
        y=blocks,
        z=[[effect.difference for effect in row] for row in rows],
        text=[[f"{effect.difference:+.2f}" for effect in row] for row in rows],
        hover=[[hover(effect) for effect in row] for row in rows],
        centre=0.0,
    )
    return Panel(marks=[heat], x="shots")
