"""Two models compared through tasks of lm-evaluation-harness, sample by sample.

Use::

    result = compare_tasks("icl-gpt2", "CKPT", tasks=["my_task"], include="FOLDER_OF_YAML")
    result = compare_logs("runs/control", "runs/treated")       # lm_eval --log_samples
    result.to_frame()

The harness itself compares two runs by an unpaired test of their means, which ignores that both
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
from typing import Any, ClassVar

import numpy as np

from ed_interp.adapters.steering.harness import harness_model
from ed_interp.adapters.steering.steered import SteeredModel
from ed_interp.errors import InvalidInputError
from ed_interp.eval.compare.effects import Cell, corrected, paired_effects
from ed_interp.eval.compare.options import Inference
from ed_interp.eval.compare.rows import Effect
from ed_interp.eval.compare.words import effect_table, significant
from ed_interp.models.hooked import tokenizer_fingerprint
from ed_interp.models.load import load
from ed_interp.models.runners import TransformersRunner
from ed_interp.results import Result
from ed_interp.tables import Table

Samples = dict[str, dict[str, dict[str, float]]]
"""Task -> document -> metric -> value."""


@dataclasses.dataclass(frozen=True)
class TaskComparison(Result):
    """Made by :func:`compare_tasks` or :func:`compare_logs`."""

    KIND: ClassVar[str] = "task-comparison"

    control: str
    treated: str
    rows: tuple[Effect, ...]
    """One per task (its name) and metric, over the documents that both models answered."""
    settings: dict[str, Any]

    @property
    def alpha(self) -> float:
        """The level of the corrected tests."""
        return 1.0 - float(self.settings.get("level", 0.95))

    def title(self) -> str:
        return f"{self.treated} against {self.control}"

    def headline(self) -> str:
        held = len(significant(self.rows, self.alpha))
        return f"{held} of {len(self.rows)} differences hold at the level {self.alpha:.2g} (Holm)."

    def tables(self) -> list[Table]:
        return [effect_table("tasks", "Tasks", self.rows, self.alpha)]


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
        control, treated: Anything :func:`ed_interp.load` takes that is a ``transformers`` or PEFT
            model, or a :class:`~ed_interp.adapters.steering.SteeredModel`.
        tasks: Names of tasks of the harness.
        include: Folder with YAML files of your own tasks; then no other tasks are known, and
            nothing is looked up on the hub.
        batch_size: Sequences per batch.
        limit: Documents of each task; default all.
        few_shot: Demonstrations; default the task's own number.
        level: Confidence level of the intervals.
        seed: Seed of the harness's few-shot sampling, the bootstrap and the tests.

    Raises:
        InvalidInputError: the harness is not installed, no task given, an unknown task, different
            tokenizers, or a model that the harness cannot run.
        ModelLoadError: a model cannot be loaded.
    """
    if not tasks:
        raise InvalidInputError("tasks must name at least one task of the harness, got none")
    sides = [one if isinstance(one, SteeredModel) else load(one) for one in (control, treated)]
    first, second = (tokenizer_fingerprint(side.tokenizer) for side in sides)
    if first != second:
        raise InvalidInputError(
            "both models must have the same tokenizer, got different tokenizers: no document "
            "could be paired"
        )
    if include is not None and not any(Path(include).glob("*.y*ml")):
        raise InvalidInputError(f"{include} must hold the YAML file of a task, got no YAML file")
    own = {} if include is None else {"include_path": str(include), "include_defaults": False}
    manager = _harness("lm_eval.tasks").TaskManager(**own)
    options = {"limit": limit, "num_fewshot": few_shot}
    samples = [_evaluate(_model(s, batch_size), tasks, manager, options, seed) for s in sides]
    settings: dict[str, Any] = {"tasks": list(tasks), "include": include and str(include)}
    settings |= {"limit": limit, "few_shot": few_shot, "level": level, "seed": seed}
    names = [
        f"{side.hooked.name}, steered" if isinstance(side, SteeredModel) else str(side.name)
        for side in sides
    ]
    return _compared(names, samples, settings)


def compare_logs(
    control: str | Path, treated: str | Path, *, level: float = 0.95, seed: int = 0
) -> TaskComparison:
    """Compare two runs of the harness from their logs per sample (``--log_samples``).

    Args:
        control, treated: Folders that ``lm_eval --output_path`` wrote, searched for
            ``samples_*.jsonl``; the newest log of each task is read.
        level: Confidence level of the intervals.
        seed: Seed of the bootstrap and the tests.

    Raises:
        InvalidInputError: no logs in a folder, damaged ones, or no task in common.
    """
    names = [str(control), str(treated)]
    settings = {"control": names[0], "treated": names[1], "level": level, "seed": seed}
    return _compared(names, [read_logs(control), read_logs(treated)], settings)


def read_logs(folder: str | Path) -> Samples:
    """Values per task, document and metric of the logs in ``folder``.

    Raises:
        InvalidInputError: no logs in it, or damaged ones.
    """
    files = sorted(Path(folder).rglob("samples_*.jsonl"))
    if not files:
        raise InvalidInputError(
            f"{folder} must hold samples_*.jsonl, got none; run lm_eval with --log_samples and "
            "--output_path"
        )
    samples: Samples = {}
    for file in files:
        # samples_TASK_2026-01-31T10-00-00.123456.jsonl; sorted, so the newest wins.
        task = file.stem.removeprefix("samples_").rsplit("_", 1)[0]
        try:
            lines = [json.loads(line) for line in file.read_text("utf-8").splitlines() if line]
            samples[task] = _values(lines)
        except (OSError, ValueError, KeyError, TypeError) as error:
            # `error!r`: the text of a KeyError is nothing but the key.
            raise InvalidInputError(f"{file} is damaged ({error!r:.100})") from error
    return samples


def _values(samples: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Document -> metric -> value."""
    values: dict[str, dict[str, float]] = {}
    for sample in samples:
        # Two runs may number their documents differently; the hash of the content tells.
        key = f"{sample['doc_id']} {sample.get('doc_hash', '')} {sample.get('filter', '')}"
        metrics = sample.get("metrics") or [
            name for name, value in sample.items() if _is_value(value) and name != "doc_id"
        ]
        values[key] = {name: float(sample[name]) for name in metrics if _is_value(sample.get(name))}
    return values


def _is_value(value: Any) -> bool:
    return isinstance(value, (bool, int, float)) and bool(np.isfinite(value))


def _compared(
    names: Sequence[str], samples: Sequence[Samples], settings: dict[str, Any]
) -> TaskComparison:
    first, second = samples
    rules = Inference(level=settings["level"], seed=settings["seed"])
    effects: list[Effect] = []
    for task in [task for task in first if task in second]:
        documents = [(first[task][key], second[task][key]) for key in first[task]
                     if key in second[task]]  # fmt: skip
        for metric in dict.fromkeys(name for control, _ in documents for name in control):
            pairs = np.array([(a[metric], b[metric]) for a, b in documents
                              if metric in a and metric in b])  # fmt: skip
            # One document has no spread to bootstrap.
            if len(pairs) > 1:
                # The exact test, if the metric is right or wrong in every document.
                binary = bool(np.isin(pairs, (0.0, 1.0)).all())
                one, two = pairs.T
                cell = Cell("task", task, metric, None, one, two, binary=binary)
                effects += paired_effects([cell], rules)
    if not effects:
        raise InvalidInputError(
            f"nothing to pair: the runs have no task, document and metric in common "
            f"({', '.join(first) or 'none'}; {', '.join(second) or 'none'})"
        )
    # One correction for all: which task improved is not known before looking at every one.
    return TaskComparison(names[0], names[1], corrected(effects), settings)


def _harness(module: str = "lm_eval") -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InvalidInputError(
            "this needs lm-evaluation-harness: pip install 'ed-interp[lm-eval]'"
        ) from error


def _evaluate(
    model: Any, tasks: Sequence[str], manager: Any, options: dict[str, Any], seed: int
) -> Samples:
    unknown = [task for task in tasks if task not in manager.all_tasks]
    if unknown:
        raise InvalidInputError(
            f"the harness knows no task {unknown[0]!r}; name the folder of its YAML file with "
            "include="
        )
    seeds = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")
    results = _harness().simple_evaluate(
        model=model,
        tasks=list(tasks),
        task_manager=manager,
        log_samples=True,
        # Its own intervals are of unpaired means, and are not used here.
        bootstrap_iters=0,
        **dict.fromkeys(seeds, seed),
        **options,
    )
    return {task: _values(samples) for task, samples in results["samples"].items()}


def _model(side: Any, batch_size: int) -> Any:
    if isinstance(side, SteeredModel):
        return harness_model(side, batch_size=batch_size)
    if not isinstance(side.runner, TransformersRunner):
        raise InvalidInputError(
            f"the harness must get a transformers model, got a {type(side.model).__name__}"
        )
    hflm = _harness("lm_eval.models.huggingface").HFLM
    return hflm(pretrained=side.model, tokenizer=side.tokenizer, batch_size=batch_size)
