"""Two models compared through tasks of lm-evaluation-harness, sample by sample.

Use::

    found = compare_tasks("icl-gpt2", "CKPT", tasks=["my_task"], include="FOLDER_OF_YAML")
    found = compare_logs("runs/control", "runs/treated")       # lm_eval --log_samples
    found.to_frame()

The harness itself compares two runs by an unpaired test of their means, which throws away that both
answered the same documents. Here every metric is paired by document: a bootstrap interval of the
mean difference, McNemar's exact test for metrics that are right or wrong, sign flips for others,
and Holm's correction over all tasks and metrics. Cost: that of the harness on both models.
The harness is an extra: ``pip install 'ed-interp[lm-eval]'``.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ed_interp.adapters.steering.harness import harness_model
from ed_interp.adapters.steering.steered import SteeredModel
from ed_interp.errors import InvalidInputError
from ed_interp.models.hooked import tokenizer_fingerprint
from ed_interp.models.load import load
from ed_interp.models.runners import TransformersRunner
from ed_interp.statistics import holm, mcnemar, paired_difference

if TYPE_CHECKING:
    import pandas as pd

Samples = dict[str, dict[str, dict[str, float]]]
"""Task -> document -> metric -> value."""


@dataclasses.dataclass(frozen=True, slots=True)
class TaskEffect:
    """One metric of one task, treated minus control, paired by document."""

    task: str
    metric: str
    n: int
    """Documents that both models answered."""
    control: float
    treated: float
    difference: float
    ci_low: float
    ci_high: float
    p_value: float
    p_holm: float
    """Corrected over all tasks and metrics of the comparison."""


@dataclasses.dataclass(frozen=True)
class TaskComparison:
    """Made by :func:`compare_tasks` or :func:`compare_logs`."""

    control: str
    treated: str
    rows: tuple[TaskEffect, ...]
    settings: dict[str, Any]

    def to_frame(self) -> pd.DataFrame:
        """One line per task and metric, columns as in :class:`TaskEffect`."""
        import pandas as pd

        return pd.DataFrame([dataclasses.asdict(row) for row in self.rows])

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)

    def save(self, path: str | Path) -> Path:
        """Write :meth:`to_dict` as one JSON file, whole or not at all.

        Raises:
            RunFolderError: it cannot be written.
        """
        from ed_interp.records import write_json

        return write_json(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: str | Path) -> TaskComparison:
        """Read back what :meth:`save` wrote.

        Raises:
            InvalidInputError: the file is something else.
        """
        try:
            data = json.loads(Path(path).read_text("utf-8"))
            rows = tuple(TaskEffect(**row) for row in data["rows"])
            return cls(data["control"], data["treated"], rows, data["settings"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise InvalidInputError(f"{path} holds no comparison of tasks ({reason})") from error

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(index=False, border=0))


def compare_tasks(
    control: Any,
    treated: Any,
    *,
    tasks: Sequence[str],
    include: str | Path | None = None,
    batch_size: int = 8,
    limit: int | None = None,
    few_shot: int | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> TaskComparison:
    """Run both models through tasks of the harness and compare them document by document.

    Args:
        control: Anything :func:`ed_interp.load` takes that is a ``transformers`` or PEFT model, or
            a :class:`~ed_interp.adapters.steering.SteeredModel`.
        treated: Likewise.
        tasks: Names of tasks of the harness.
        include: Folder with YAML files of tasks of one's own; then no other tasks are known, and
            nothing is looked up on the hub.
        batch_size: Sequences a batch.
        limit: Documents of each task; default all.
        few_shot: Demonstrations; default the task's own number.
        level: Coverage of the intervals.
        seed: Of the harness's few-shot sampling, the bootstrap and the tests.

    Raises:
        InvalidInputError: the harness is not installed, no task given, an unknown task, different
            tokenizers, or a model that the harness cannot run.
        ModelLoadError: a model cannot be loaded.
    """
    if not tasks:
        raise InvalidInputError("no task given; name at least one")
    sides = [one if isinstance(one, SteeredModel) else load(one) for one in (control, treated)]
    first, second = (tokenizer_fingerprint(side.tokenizer) for side in sides)
    if first != second:
        raise InvalidInputError("the two models have different tokenizers; nothing can be paired")
    names = [_name(side) for side in sides]
    manager = _manager(include)
    found = [
        _evaluate(
            _model(side, batch_size),
            tasks,
            manager,
            {"limit": limit, "num_fewshot": few_shot},
            seed,
        )
        for side in sides
    ]
    settings = {
        "tasks": list(tasks),
        "include": None if include is None else str(include),
        "limit": limit,
        "few_shot": few_shot,
        "level": level,
        "seed": seed,
    }
    return _compared(names, found, settings, level=level, seed=seed)


def compare_logs(
    control: str | Path, treated: str | Path, *, level: float = 0.95, seed: int = 0
) -> TaskComparison:
    """Compare two runs of the harness from their logs per sample (``--log_samples``).

    Args:
        control: Folder that ``lm_eval --output_path`` wrote, searched for ``samples_*.jsonl``.
        treated: Likewise; of each task the newest log is read.
        level: Coverage of the intervals.
        seed: Of the bootstrap and the tests.

    Raises:
        InvalidInputError: no logs there, damaged ones, or no task in common.
    """
    found = [read_logs(control), read_logs(treated)]
    settings = {"control": str(control), "treated": str(treated), "level": level, "seed": seed}
    names = [str(control), str(treated)]
    return _compared(names, found, settings, level=level, seed=seed)


def read_logs(folder: str | Path) -> Samples:
    """Values per task, document and metric of the logs in ``folder``.

    Raises:
        InvalidInputError: no logs there, or damaged ones.
    """
    files = sorted(Path(folder).rglob("samples_*.jsonl"))
    if not files:
        raise InvalidInputError(
            f"{folder} holds no samples_*.jsonl; run lm_eval with --log_samples and --output_path"
        )
    found: Samples = {}
    for file in files:
        # samples_TASK_2026-01-31T10-00-00.123456.jsonl; sorted, so the newest wins.
        task = file.stem.removeprefix("samples_").rsplit("_", 1)[0]
        try:
            lines = [json.loads(line) for line in file.read_text("utf-8").splitlines() if line]
            found[task] = _values(lines)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidInputError(f"{file} is damaged ({error!r:.100})") from error
    return found


def _values(samples: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Document -> metric -> value; documents are told apart by content where it is hashed."""
    found: dict[str, dict[str, float]] = {}
    for sample in samples:
        key = f"{sample['doc_id']} {sample.get('doc_hash', '')} {sample.get('filter', '')}"
        metrics = sample.get("metrics") or [
            name for name, value in sample.items() if _is_value(value) and name != "doc_id"
        ]
        found[key] = {name: float(sample[name]) for name in metrics if _is_value(sample.get(name))}
    return found


def _is_value(value: Any) -> bool:
    return isinstance(value, (bool, int, float)) and bool(np.isfinite(value))


def _compared(
    names: Sequence[str],
    found: Sequence[Samples],
    settings: dict[str, Any],
    *,
    level: float,
    seed: int,
) -> TaskComparison:
    first, second = found
    rows: list[TaskEffect] = []
    for task in [task for task in first if task in second]:
        documents = [key for key in first[task] if key in second[task]]
        metrics = dict.fromkeys(name for key in documents for name in first[task][key])
        for metric in metrics:
            pairs = np.array(
                [
                    (first[task][key][metric], second[task][key][metric])
                    for key in documents
                    if metric in first[task][key] and metric in second[task][key]
                ]
            )
            if len(pairs) < 2:
                continue
            rows.append(_effect(task, metric, pairs, level=level, seed=seed))
    if not rows:
        raise InvalidInputError(
            f"nothing to pair: the runs have no task, document and metric in common "
            f"({', '.join(first) or 'none'}; {', '.join(second) or 'none'})"
        )
    corrected = holm([row.p_value for row in rows])
    tested = [
        dataclasses.replace(row, p_holm=float(p)) for row, p in zip(rows, corrected, strict=True)
    ]
    return TaskComparison(names[0], names[1], tuple(tested), settings)


def _effect(task: str, metric: str, pairs: Any, *, level: float, seed: int) -> TaskEffect:
    control, treated = pairs.T
    change = paired_difference(treated, control, level=level, seed=seed)
    right_or_wrong = bool(np.isin(pairs, (0.0, 1.0)).all())
    p = mcnemar(treated == 1, control == 1) if right_or_wrong else float(change.p_value)
    return TaskEffect(
        task=task,
        metric=metric,
        n=len(pairs),
        control=float(control.mean()),
        treated=float(treated.mean()),
        difference=float(change.difference),
        ci_low=float(change.low),
        ci_high=float(change.high),
        p_value=p,
        p_holm=p,
    )


def _harness() -> Any:
    try:
        return importlib.import_module("lm_eval")
    except ImportError as error:
        raise InvalidInputError(
            "this needs lm-evaluation-harness: pip install 'ed-interp[lm-eval]'"
        ) from error


def _manager(include: str | Path | None) -> Any:
    _harness()
    tasks = importlib.import_module("lm_eval.tasks")
    if include is None:
        return tasks.TaskManager()
    if not any(Path(include).glob("*.y*ml")):
        raise InvalidInputError(f"{include} holds no YAML file of a task")
    return tasks.TaskManager(include_path=str(include), include_defaults=False)


def _evaluate(
    model: Any, tasks: Sequence[str], manager: Any, options: dict[str, Any], seed: int
) -> Samples:
    unknown = [task for task in tasks if task not in manager.all_tasks]
    if unknown:
        raise InvalidInputError(
            f"the harness knows no task {unknown[0]!r}; name the folder of its YAML file with "
            "include="
        )
    found = _harness().simple_evaluate(
        model=model,
        tasks=list(tasks),
        task_manager=manager,
        log_samples=True,
        bootstrap_iters=0,
        random_seed=seed,
        numpy_random_seed=seed,
        torch_random_seed=seed,
        fewshot_random_seed=seed,
        **options,
    )
    return {task: _values(samples) for task, samples in found["samples"].items()}


def _model(side: Any, batch_size: int) -> Any:
    if isinstance(side, SteeredModel):
        return harness_model(side, batch_size=batch_size)
    if not isinstance(side.runner, TransformersRunner):
        raise InvalidInputError(
            f"the harness runs transformers models, not a {type(side.model).__name__}"
        )
    hflm = importlib.import_module("lm_eval.models.huggingface").HFLM
    return hflm(pretrained=side.model, tokenizer=side.tokenizer, batch_size=batch_size)


def _name(side: Any) -> str:
    hooked = side.hooked if isinstance(side, SteeredModel) else side
    return f"{hooked.name}, steered" if isinstance(side, SteeredModel) else str(hooked.name)
