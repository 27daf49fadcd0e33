"""``ed-interp steer``: find a direction, apply it, sweep it against controls, look at it."""

from __future__ import annotations

import dataclasses

from ed_interp.cli.app import group
from ed_interp.cli.command import NEW_FILE, NEW_FOLDER, Output, command
from ed_interp.eval.steering.options import ApplyOptions, ShowOptions, SweepOptions
from ed_interp.probes.directions.options import FindOptions

app = group("steer")


@command(app, "find", FindOptions, out=NEW_FILE)
def find(options: FindOptions, output: Output) -> None:
    """Find a direction and say how likely it is to steer.

    - ed-interp steer find --pairs pairs.jsonl --out D.safetensors
    - ed-interp steer find --method function_vector --task country-capital --out FV.safetensors
    """
    from ed_interp.probes.directions.find import find_with_preflight
    from ed_interp.records.files import new_file

    path = new_file(output.path, overwrite=output.overwrite)
    direction, summary = find_with_preflight(options, output.progress)
    output.show(summary, direction.save(path, overwrite=output.overwrite))


@command(app, "apply", ApplyOptions)
def apply(options: ApplyOptions, output: Output) -> None:
    r"""Continue prompts with and without a direction, side by side.

    - ed-interp steer apply --direction D.safetensors --coefficient 4 --prompt "France -&gt;"

    With --json also the log-probability of every token.
    """
    from ed_interp.eval.steering.generation import continued

    # A shell passes the two characters of a line break as they are.
    prompts = tuple(prompt.replace("\\n", "\n") for prompt in options.prompts)
    options = dataclasses.replace(options, prompts=prompts)
    output.show(continued(options=options, progress=output.progress))


@command(app, "sweep", SweepOptions, out=NEW_FOLDER)
def sweep(options: SweepOptions, output: Output) -> None:
    """Sweep strength and place on half of the samples; compare with controls on the other half.

    - ed-interp steer sweep --direction D.safetensors --samples S.jsonl --neutral text.txt
      --instruction "Be happy. " --out RUN
    """
    from ed_interp.eval.steering.sweep import sweep

    instruction = options.instruction.replace("\\n", "\n")
    options = dataclasses.replace(options, instruction=instruction)
    output.show(sweep(options=options, **output.where()), output.path)


@command(app, "show", ShowOptions)
def show(options: ShowOptions, output: Output) -> None:
    """Say what a direction is (sites, lengths, how it was found), or how a sweep went.

    - ed-interp steer show D.safetensors
    """
    if options.file.is_dir():
        from ed_interp.results import load_any

        output.show(load_any(options.file))
        return
    from ed_interp.probes.directions.find import DirectionSummary
    from ed_interp.streams.direction import Direction

    output.show(DirectionSummary.of(Direction.load(options.file)))
