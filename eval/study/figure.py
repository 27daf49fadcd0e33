"""The picture of the study: what each arm learned against what it forgot, one panel a study.

    python -m ed_interp.eval.study.figure eval/study_records --out eval/pictures/study.png

Every mark is read from the records. Cost: two seconds, most of it the import of matplotlib.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ed_interp.figures.style import THEMES
from ed_interp.records import write_bytes

if TYPE_CHECKING:
    from ed_interp.eval.study.experiment import Experiment

_NAMES = {
    "bias-injection": "bias injection",
    "lora": "LoRA, as many parameters",
    "bias": "bias alone",
    "shuffled": "feedback, time shuffled",
    "tau-zero": "feedback, tau 0",
    "tau-infinity": "feedback, tau infinite",
    "random": "random direction",
    "frozen": "frozen",
}
_LOOKS = {
    "bias-injection": ("o", "#0b62c4"),
    "lora": ("s", "#1d8a4f"),
    "bias": ("D", "#8a8f98"),
    "shuffled": ("^", "#a25bd6"),
    "tau-zero": ("v", "#d98200"),
    "tau-infinity": ("P", "#c23a3a"),
    "random": ("X", "#7a5c3a"),
    "frozen": ("*", "#1b1f27"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the records of a folder; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("records", type=Path, help="folder of the study's run folders")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    asked = parser.parse_args(arguments)
    study_figure(asked.records, asked.out)
    return 0


def study_figure(records: Path, path: Path) -> Path:
    """Draw every study in ``records`` to ``path``, atomically.

    Raises:
        RunFolderError: a folder that holds no study, or ``path`` cannot be written.
        InvalidInputError: no folder in ``records``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from ed_interp.errors import InvalidInputError
    from ed_interp.eval.study.experiment import Experiment

    folders = sorted(file.parent for file in records.glob("*/run.json"))
    if not folders:
        raise InvalidInputError(
            f"{records} holds no study; python -m ed_interp.eval.study --out {records} makes one"
        )
    colours = THEMES["light"]
    columns = min(2, len(folders))
    rows = -(-len(folders) // columns)
    figure = Figure(figsize=(5.6 * columns, 3.5 * rows + 0.9), dpi=125, facecolor="white")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for axis, folder in zip(axes, folders, strict=False):
        _panel(axis, Experiment.load(folder), folder.name)
    for axis in axes[len(folders) :]:
        axis.set_visible(False)
    for axis in axes[::columns]:
        axis.set_ylabel("accuracy at 0 shots", color=colours.text)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False, fontsize=10)
    figure.tight_layout(rect=(0, 0.62 / figure.get_figheight(), 1, 1))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return write_bytes(path, buffer.getvalue())


def _panel(axis: Any, study: Experiment, name: str) -> None:
    colours = THEMES["light"]
    frame = study.to_frame()
    frame = frame[~frame["sweep"]]
    arms = [arm for arm in _NAMES if arm in set(frame["arm"])]
    for arm in arms:
        own = frame[frame["arm"] == arm]
        axis.scatter(
            own["forgetting"],
            [accuracy[0] for accuracy in own["accuracy"]],
            marker=_LOOKS[arm][0],
            color=_LOOKS[arm][1],
            s=70 if arm in ("bias-injection", "frozen") else 42,
            alpha=0.8,
            linewidths=0,
            label=_NAMES[arm],
        )
    # Linear near 0, where arms may gain on neutral text, and logarithmic beyond.
    axis.set_xscale("symlog", linthresh=0.02)
    axis.set_xlim(left=min(-0.02, float(frame["forgetting"].min()) * 1.2))
    axis.set_ylim(-0.05, 1.06)
    axis.set_title(name, fontsize=11, color=colours.text)
    axis.set_xlabel("forgetting, nats a token", color=colours.text)
    axis.grid(color=colours.grid)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=9)


if __name__ == "__main__":
    raise SystemExit(main())
