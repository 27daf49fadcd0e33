"""A share of a study's trials, in a process of its own: ``python -m ... WORK RANK/COUNT``.

Started by :mod:`ed_interp.eval.study.run` under ``accelerate launch``; what it finishes lies in the
run folder, where the first process reads it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ed_interp.eval.compare.subjects import open_subject
from ed_interp.eval.study.options import StudyOptions
from ed_interp.eval.study.problems import make_problem
from ed_interp.eval.study.rows import Trial
from ed_interp.eval.study.trials import Bench, control_of


def main(arguments: list[str]) -> None:
    """Run every ``COUNT``-th pending trial that is not done."""
    work, share = Path(arguments[0]), arguments[1]
    rank, count = (int(part) for part in share.split("/"))
    plan = json.loads((work / "plan.json").read_text("utf-8"))
    options = StudyOptions.from_dict(plan["options"])
    problem = make_problem(options.make_task(), options)
    base = open_subject(options.load())
    bench = Bench(options, problem, base, control_of(options, problem, base), work)
    # Every COUNT-th: neighbours are of one arm, so that all processes get some of the slow ones.
    for entry in json.loads((work / "pending.json").read_text("utf-8"))[rank::count]:
        trial = Trial(**entry)
        row = bench.row(trial)
        if row is None or row.status != "done":
            bench.run(trial)


if __name__ == "__main__":
    main(sys.argv[1:])
