"""Memory: feedback nodes against LoRA of as many parameters, where the rule is out of sight.

``python tests/benchmarks/bench_memory.py --out DIR [--json FILE] [--quick]``. What the two tasks
are is in ``ed_interp.eval.tasks.memory``. An interrupted study is continued by the same command:
every training run is a folder in DIR, and every score a file beside it.

Each arm gets the learning rate that was best on the validation countries of a seed of its own.
Then five seeds, each with another split of the countries, other sessions and other initial
weights, are scored once on their test countries. The interval is of the paired difference between
the arms over the seeds (bootstrap, and the sign-flip test, whose least p-value with five is 1/16).

Controls, on the same trained adapters: the state reset after the announcement (turns) or the
announcement left out (distance), in column "reset"; the announcement of a session with another
rule, in "shuffled", scored by the session's rule and by the other. Two of the
seeds are also trained with the time constants fixed at 0.05 tokens (no memory to speak of) and at
1e6 (no forgetting). Beside them stand the frozen model, and as a ceiling the frozen model with
announcement and query in sight of each other.

Cost: about ten minutes of CPU time on one thread.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(1, str(Path(__file__).resolve().parents[2]))

import torch
from rich.console import Console
from rich.table import Table

from ed_interp.adapters.bias_injection.experience import Experience, experience
from ed_interp.adapters.training import AdapterOptions, Example, TrainingOptions, train
from ed_interp.adapters.training.data import IGNORED, encode_all
from ed_interp.adapters.training.trainer import Collator
from ed_interp.eval.tasks import memory
from ed_interp.models.hooked import HookedModel
from ed_interp.models.load import load
from ed_interp.records import write_json
from ed_interp.statistics import paired_difference

SEEDS, SWEEP_SEED = (0, 1, 2, 3, 4), 100
RATES = (1e-3, 3e-3, 1e-2)
NODES, RANK = 8, 4
TAU_EXPERIENCE = 8.0
WINDOW, PHRASES = 8, 7
QUERIES, TESTED_QUERIES = 3, 8
TESTED = 120


@dataclasses.dataclass(frozen=True)
class Task:
    """One of the two tasks: its model, layers and lengths."""

    name: str
    model: str
    targets: tuple[str, ...]
    steps: int
    batch: int
    lora_rank: int
    """The least rank with which LoRA has at least as many parameters as bias injection."""

    def base(self, *, full: bool = False) -> HookedModel:
        """The frozen model; for distance every layer has a short window, unless ``full``."""
        if self.name == "turns" or full:
            return load(self.model)
        blocks = ["sliding_attention"] * 4
        return load(self.model, sliding_window=WINDOW, layer_types=blocks)

    def examples(self, sessions: Sequence[memory.Session], seed: int) -> list[Example]:
        """What an arm trains on and is scored on."""
        if self.name == "turns":
            return [memory.turns_of(session) for session in sessions]
        return [
            memory.distance_of(session, phrases=PHRASES, seed=seed + number)
            for number, session in enumerate(sessions)
        ]


TASKS = (
    Task("turns", "icl-gpt2", ("c_attn",), 80, 24, 13),
    Task("distance", "icl-gemma2", ("q_proj", "v_proj", "down_proj"), 100, 24, 13),
)


def adapter_of(task: Task, arm: str) -> tuple[str, AdapterOptions]:
    """Method and options of an arm."""
    if arm == "lora":
        return "lora", AdapterOptions(r=task.lora_rank, targets=task.targets)
    tau = {"nodes": 50.0, "tau 0": 0.05, "tau inf": 1e6}[arm]
    fixed = arm != "nodes"
    return "bias-injection", AdapterOptions(
        r=RANK, nodes=NODES, tau=tau, fixed_tau=fixed, targets=task.targets
    )


def run_arm(task: Task, arm: str, rate: float, seed: int, split: str, out: Path) -> dict[str, Any]:
    """Train and score one arm, or read what an earlier start has left."""
    name = f"{task.name}-{task.steps}-{arm.replace(' ', '-')}-{rate:g}-{seed}"
    folder, score_file = out / name, out / f"{name}.{split}.json"
    if score_file.is_file():
        found: dict[str, Any] = json.loads(score_file.read_text("utf-8"))
        return found
    print(f"{folder.name}", file=sys.stderr, flush=True)
    words = memory.split_words(seed=seed)
    count = task.steps * task.batch
    drawn = memory.draw_sessions(count, words=words["training"], queries=QUERIES, seed=seed)
    method, options = adapter_of(task, arm)
    settings = TrainingOptions(
        max_steps=task.steps,
        batch_size=task.batch,
        lr_lora=rate,
        lr_nodes=rate,
        lr_tau=3 * rate,
        eval_share=0.0,
        save_steps=task.steps // 2,
        carry=task.name == "turns",
        carry_tau=TAU_EXPERIENCE,
        seed=seed,
    )
    base = task.base()
    if not (folder / "training.json").is_file():
        examples = task.examples(drawn, seed)
        train(base, examples, out=folder, method=method, adapter=options, **settings.to_dict())
    from peft import PeftModel

    model = PeftModel.from_pretrained(base.model, str(folder)).eval()
    asked = min(TESTED_QUERIES, len(words[split]) - 1)
    tested = memory.draw_sessions(TESTED, words=words[split], queries=asked, seed=1000 + seed)
    scores = _scores(task, model, base.tokenizer, tested, seed)
    record = json.loads((folder / "training.json").read_text("utf-8"))
    scores |= {"parameters": record["parameters"]["trained"], "loss": record["loss"]}
    write_json(score_file, scores)
    return scores


def _scores(
    task: Task, model: Any, tokenizer: Any, sessions: Sequence[memory.Session], seed: int
) -> dict[str, Any]:
    others = [*sessions[1:], sessions[0]]  # rules come in turn, so each neighbour has another
    swapped = [
        dataclasses.replace(session, announcement=other.announcement)
        for session, other in zip(sessions, others, strict=True)
    ]
    if task.name == "turns":
        right = score_turns(model, tokenizer, sessions)
        reset = score_turns(model, tokenizer, sessions, reset=True)
        shuffled = score_turns(model, tokenizer, swapped)
        followed = [_by_rule(s, o.rule) for s, o in zip(sessions, others, strict=True)]
        obeyed = score_turns(
            model,
            tokenizer,
            [dataclasses.replace(s, queries=f) for s, f in zip(swapped, followed, strict=True)],
        )
        return {
            "accuracy": _mean(right),
            "by turn": [_mean([row[k : k + 1] for row in right]) for k in range(len(right[0]))],
            "reset": _mean(reset),
            "shuffled": _mean(shuffled),
            "shuffled, by the other rule": _mean(obeyed),
        }
    bare = [
        Example((example.turns[0][2:],)) for example in task.examples(sessions, seed)
    ]  # an announcement is two parts: query and answer
    followed = [_by_rule(s, o.rule) for s, o in zip(sessions, others, strict=True)]
    obeyed_sessions = [
        dataclasses.replace(s, queries=f) for s, f in zip(swapped, followed, strict=True)
    ]
    return {
        "accuracy": _mean(score(model, tokenizer, task.examples(sessions, seed))),
        "reset": _mean(score(model, tokenizer, bare)),
        "shuffled": _mean(score(model, tokenizer, task.examples(swapped, seed))),
        "shuffled, by the other rule": _mean(
            score(model, tokenizer, task.examples(obeyed_sessions, seed))
        ),
    }


def _by_rule(session: memory.Session, rule: str) -> tuple[memory.Pair, ...]:
    table = memory.rule_answers()[rule]
    return tuple((word, table[word]) for word, _ in session.queries)


def score(model: Any, tokenizer: Any, examples: Sequence[Example]) -> list[list[bool]]:
    """Whether every token of the answer is the model's first choice, one column."""
    rows = encode_all(examples, tokenizer)
    return [[value] for value in _right(model, Collator(0)([{"turns": row} for row in rows]))]


def score_turns(
    model: Any, tokenizer: Any, sessions: Sequence[memory.Session], *, reset: bool = False
) -> list[list[bool]]:
    """The same for every query, each in a call of its own, with an experience if there are nodes.

    The answer is scored, and what is left behind is the query without it: an interaction keeps the
    states of its last pass. With ``reset`` all is forgotten after the announcement.
    """
    count = len(sessions[0].queries)
    asked = [
        _batch([memory.turns_of(_cut(session, k)) for session in sessions], tokenizer, -1)
        for k in range(1, count + 1)
    ]
    longest = [memory.turns_of(_cut(session, count + 1)) for session in sessions]
    left = [_batch(longest, tokenizer, turn) for turn in range(1, count)]
    names = [f"session {number}" for number in range(len(sessions))]
    live = model.peft_config["default"].peft_type.value == "BIAS_INJECTION"
    if not live:
        columns = [_right(model, batch) for batch in asked]
        return [list(row) for row in zip(*columns, strict=True)]
    store = Experience(model, tau=TAU_EXPERIENCE)
    columns = []
    with experience(model, session=names, store=store):
        _right(model, _batch(longest, tokenizer, 0))
    if reset:
        store.reset()
    for query, batch in enumerate(asked):
        with experience(model, session=names, store=store):
            columns.append(_right(model, batch))
            if query < len(left):
                _right(model, left[query])
    return [list(row) for row in zip(*columns, strict=True)]


def _cut(session: memory.Session, queries: int) -> memory.Session:
    return dataclasses.replace(session, queries=session.queries[:queries])


def _batch(examples: Sequence[Example], tokenizer: Any, turn: int) -> dict[str, Any]:
    rows = encode_all(examples, tokenizer, separate=True)
    batch: dict[str, Any] = Collator(0)([{"turns": [row[turn]]} for row in rows])
    return batch


@torch.no_grad()
def _right(model: Any, batch: dict[str, Any]) -> list[bool]:
    found = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
    )
    chosen, labels = found.logits[:, :-1].argmax(-1), batch["labels"][:, 1:]
    right: list[bool] = ((chosen == labels) | (labels == IGNORED)).all(1).tolist()
    return right


def _mean(rows: Sequence[Sequence[bool]]) -> float:
    flat = [value for row in rows for value in row]
    return sum(flat) / len(flat)


def frozen(task: Task) -> dict[str, float]:
    """Accuracy without any adapter, out of sight and in sight of the announcement."""
    found: dict[str, list[float]] = {"frozen": [], "frozen, in sight": []}
    near = task.base(full=True)
    far = task.base()
    for seed in SEEDS:
        words = memory.split_words(seed=seed)["test"]
        sessions = memory.draw_sessions(TESTED, words=words, queries=1, seed=1000 + seed)
        alone = task.examples(sessions, seed)
        if task.name == "turns":
            alone = [Example((example.turns[-1],)) for example in alone]
        sight = [memory.context_of(session, 0) for session in sessions]
        found["frozen"].append(_mean(score(far.model, far.tokenizer, alone)))
        found["frozen, in sight"].append(_mean(score(near.model, near.tokenizer, sight)))
    return {name: sum(values) / len(values) for name, values in found.items()}


def study(task: Task, out: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Sweep, seeds and controls of one task."""
    best: dict[str, float] = {}
    sweep: dict[str, dict[str, float]] = {}
    for arm in ("nodes", "lora"):
        found = {
            rate: run_arm(task, arm, rate, SWEEP_SEED, "validation", out)["accuracy"]
            for rate in RATES
        }
        best[arm] = max(found, key=lambda rate: found[rate])
        sweep[arm] = {f"{rate:g}": value for rate, value in found.items()}
    runs = {
        arm: [run_arm(task, arm, best[arm], seed, "test", out) for seed in seeds]
        for arm in ("nodes", "lora")
    }
    fixed = {
        arm: [run_arm(task, arm, best["nodes"], seed, "test", out) for seed in seeds[:2]]
        for arm in ("tau 0", "tau inf")
    }
    a, b = ([run["accuracy"] for run in runs[arm]] for arm in ("nodes", "lora"))
    difference = paired_difference(a, b)
    return {
        "task": task.name,
        "chance": memory.CHANCE,
        "seeds": list(seeds),
        "sweep": sweep,
        "learning rate": best,
        "runs": runs | fixed,
        "frozen": frozen(task),
        "difference": {
            "mean": float(difference.difference),
            "low": float(difference.low),
            "high": float(difference.high),
            "p_value": float(difference.p_value),
        },
    }


def show(found: dict[str, Any], console: Console) -> None:
    """One table."""
    table = Table(title=f"memory: {found['task']} (chance {found['chance']:.3f})")
    for head in ("", "parameters", "accuracy", "by seed", "reset", "shuffled", "by other rule"):
        table.add_column(head, overflow="fold")
    for arm, runs in found["runs"].items():
        seeds = [run["accuracy"] for run in runs]
        table.add_row(
            arm,
            f"{runs[0]['parameters']:,}",
            f"{sum(seeds) / len(seeds):.3f}",
            " ".join(f"{value:.2f}" for value in seeds),
            *(
                f"{math.fsum(run[name] for run in runs) / len(runs):.3f}"
                for name in ("reset", "shuffled", "shuffled, by the other rule")
            ),
        )
    for name, value in found["frozen"].items():
        table.add_row(name, "", f"{value:.3f}")
    console.print(table)
    if "by turn" in (first := found["runs"]["nodes"][0]):
        turns = [
            sum(run["by turn"][k] for run in found["runs"]["nodes"]) / len(found["runs"]["nodes"])
            for k in range(len(first["by turn"]))
        ]
        console.print("nodes by query: " + " ".join(f"{value:.2f}" for value in turns))
    d = found["difference"]
    console.print(
        f"nodes - lora: {d['mean']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}], "
        f"p {d['p_value']:.3f}; learning rates {found['learning rate']}\n"
    )


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description="Memory: feedback nodes against LoRA.")
    parser.add_argument("--out", type=Path, required=True, help="folder of runs, resumed")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--task", choices=[task.name for task in TASKS], help="one of them only")
    parser.add_argument("--quick", action="store_true", help="few steps, two seeds: a look")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    asked.out.mkdir(parents=True, exist_ok=True)
    console, results = Console(width=None if sys.stdout.isatty() else 140), []
    for task in TASKS:
        if asked.task in (None, task.name):
            subject = dataclasses.replace(task, steps=10) if asked.quick else task
            results.append(study(subject, asked.out, SEEDS[:2] if asked.quick else SEEDS))
            show(results[-1], console)
    if asked.json is not None:
        write_json(asked.json, results)


if __name__ == "__main__":
    main()
