"""A share of a study's trials, in a process of its own: ``python -m ... FOLDER RANK/COUNT KEEP``.

Started by :mod:`ed_interp.eval.study.experiment` under ``accelerate launch``; what it finishes
lies in the run folder, where the first process finds it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ed_interp.eval.study.plan import Plan, Trial
from ed_interp.eval.study.trials import Bench, Keep, read_row


def main(arguments: list[str]) -> None:
    """Run every ``COUNT``-th pending trial that is not done."""
    folder, share, keep = Path(arguments[0]), arguments[1], arguments[2]
    rank, count = (int(part) for part in share.split("/"))
    plan = Plan.from_dict(json.loads((folder / "plan.json").read_text("utf-8")))
    pending = json.loads((folder / "pending.json").read_text("utf-8"))
    kept: dict[str, Keep] = {"all": "all", "tested": "tested", "rows": "rows"}
    bench = Bench(plan, folder, keep=kept[keep])
    for entry in pending[rank::count]:
        trial = Trial(**entry)
        row = read_row(folder / "trials" / f"{trial.name}.json")
        if row is None or row.status != "done":
            bench.run(trial)


if __name__ == "__main__":
    main(sys.argv[1:])
