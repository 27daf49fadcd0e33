"""``ed-interp compare``: an adapter against the frozen model and controls, into a run folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ed_interp.cli.app import app
from ed_interp.cli.command import RUN_FOLDER, Output, command
from ed_interp.errors import EdInterpError
from ed_interp.eval.study.options import StudyOptions
from ed_interp.options import OUTPUT, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareVerb(StudyOptions):
    """The settings of a study, and when the command fails."""

    fail_on_forgetting: float | None = option(
        None,
        "Exit with 1 if the cross-entropy on neutral text rises by more nats per token.",
        OUTPUT,
        shown="never",
        above=0,
    )


@command(app, "compare", CompareVerb, out=RUN_FOLDER)
def compare(options: CompareVerb, output: Output) -> None:
    """Compare an adapter with the frozen model and with controls.

    Did it do what was wanted, and nothing else? Controls are trained here, on the same examples
    with the same steps and seeds, each at the best learning rate of its own sweep. Everything is
    paired by prompt and corrected for the number of tests: the task per shot count, every built-in
    relation (side effects are named), forgetting on neutral text, emergence per block, and cost.
    Finished arms are kept; the same command resumes.

    - ed-interp compare --task country-capital
    - ed-interp compare --treated CKPT --controls lora,bias,shuffled --out RUN
    - ed-interp compare --treated CKPT --controls none --task sentiment --fail-on-forgetting 0.05
    """
    from ed_interp.eval.study.run import study

    # The threshold does not belong to the study: a run resumes whatever it is.
    names = [field.name for field in dataclasses.fields(StudyOptions)]
    settings = StudyOptions(**{name: getattr(options, name) for name in names})
    name = f"compare-{Path(settings.model).name}-{settings.task_label}"
    path = output.folder(name, settings)
    result = study(options=settings, **output.where(path))
    output.show(result, path)
    # After everything is written: a run that fails by its numbers is a complete run.
    most = options.fail_on_forgetting
    rise = next(
        (r.mean for r in result.summary if (r.arm, r.metric) == (result.tested, "forgetting")), 0.0
    )
    if most is not None and rise > most:
        raise EdInterpError(
            f"{result.tested} forgets: the cross-entropy on neutral text rises by {rise:.4f} nats "
            f"per token, more than --fail-on-forgetting {most:g}"
        )
