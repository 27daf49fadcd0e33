"""Studies: arms as data, sweeps, seeds, failures that leave the rest alone, and records."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from ed_interp.errors import InvalidInputError, RunFolderError, UnknownNameError
from ed_interp.eval.study.arms import (
    ARMS,
    CONTROLS,
    adapter_options,
    shuffled_time,
    trained_parameters,
)
from ed_interp.eval.study.experiment import Experiment, best_rates, run_experiment
from ed_interp.eval.study.plan import Plan
from ed_interp.eval.study.summary import summarise
from ed_interp.eval.study.trials import Bench, TrialRow

PROBLEM = {"kind": "relation", "task": "country-capital", "shots": [0, 1]}


@pytest.fixture(scope="module")
def plan(tiny_folder):
    return Plan(
        str(tiny_folder), PROBLEM, ("lora", "frozen", "random"), seeds=(0, 1), rates=(1e-3,),
        steps=2, batch_size=2, prompts=8, watch_prompts=14, texts=2, emergence=False,
        decode_rounds=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def study(plan, tmp_path_factory):
    """A study whose arm `random` fails the first time at seed 1, then run again."""
    out = tmp_path_factory.mktemp("study") / "run"
    started = []
    whole = Bench._row

    def failing(self, trial):
        started.append(trial.name)
        if trial.arm == "random" and trial.seed == 1 and started.count(trial.name) == 1:
            raise RuntimeError("the machine was\nbusy")
        return whole(self, trial)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Bench, "_row", failing)
        first = run_experiment(plan, out)
        failed = [row for row in first.trials if row.status == "failed"]
        count = len(started)
        # What is finished is kept: of the same plan in a new folder with those trials, one is run.
        again = out.with_name("again")
        partial = out.with_name(".again.partial")
        (partial / "trials").mkdir(parents=True)
        header = {"format": "ed-interp/run-settings", "version": 1, "settings": plan.to_dict()}
        (partial / "settings.json").write_text(json.dumps(header), "utf-8")
        for row in first.record["trials"]:
            kind = "sweep" if row["sweep"] else "final"
            name = f"{kind}-{row['arm']}-rate{row['rate']:g}-seed{row['seed']}.json"
            (partial / "trials" / name).write_text(json.dumps(row), "utf-8")
        second = run_experiment(plan, again)
    return first, failed, second, started[count:]


def test_every_arm_is_swept_and_compared(study, plan):
    first, _, _, _ = study
    done = {(row.arm, row.sweep, row.seed) for row in first.trials}
    assert done == {
        ("lora", True, 0), ("random", True, 0), ("lora", False, 0), ("lora", False, 1),
        ("frozen", False, 0), ("random", False, 0), ("random", False, 1),
    }  # fmt: skip
    assert first.best["lora"] == 1e-3
    assert first.best["random"] in ARMS["random"].sweep()
    lora = next(row for row in first.trials if row.arm == "lora" and not row.sweep)
    assert lora.neutral is True
    assert (
        lora.parameters
        == next(a for a in first.record["arms"] if a["name"] == "lora")["parameters"]
    )
    frozen = next(row for row in first.trials if row.arm == "frozen")
    assert frozen.forgetting == 0
    assert frozen.accuracy_change == (0, 0)
    assert frozen.harmed == ()


def test_a_failure_is_a_row_and_the_rest_goes_on(study):
    first, failed, second, started = study
    assert [(row.arm, row.seed, row.error) for row in failed] == [
        ("random", 1, "RuntimeError: the machine was busy")
    ]
    assert failed == list(first.failures)
    assert len(started) == 1
    assert started[0].startswith("final-random")
    (mended,) = second.failures
    assert (mended.status, mended.attempt) == ("done", 2)


def test_a_study_is_read_back(study, tmp_path):
    first, *_ = study
    again = Experiment.load(first.path)
    assert again == first
    assert len(again.to_frame()) == len(first.trials)
    assert set(again.summary_frame()["arm"]) == {"lora", "frozen", "random"}
    names = {file.name for file in first.path.iterdir()}
    assert {"run.json", "trials.parquet", "summary.parquet", "comparisons", "adapters"} <= names
    data = json.loads((first.path / "run.json").read_text("utf-8"))
    for change, reason in (
        ({"version": 2}, "version 2"),
        ({"trials": [{}]}, r"trials\[0\]"),
        ({"best": []}, "damaged"),
        ({"plan": {}}, "damaged"),
    ):
        (tmp_path / "run.json").write_text(json.dumps({**data, **change}), "utf-8")
        with pytest.raises(RunFolderError, match=reason):
            Experiment.load(tmp_path)
    with pytest.raises(RunFolderError, match="exists"):
        run_experiment(first.plan, first.path)


def test_arms_have_equal_parameters_and_what_they_say(tiny_model):
    tested = trained_parameters("bias-injection", ARMS["bias-injection"].options, tiny_model)
    chosen = adapter_options(ARMS["lora"], tiny_model)
    lora = trained_parameters("lora", {"r": chosen.r}, tiny_model)
    one = trained_parameters("lora", {"r": 1}, tiny_model)
    assert abs(lora - tested) <= one / 2
    bias = trained_parameters("bias-injection", ARMS["bias"].options, tiny_model)
    assert bias == 2 * 96  # two blocks, one bias each on the fused projection
    assert set(CONTROLS) == {"lora", "bias", "shuffled", "tau-zero", "tau-infinity", "random"}


def test_time_is_shuffled_among_the_past(adapted):
    from ed_interp.adapters.bias_injection import BiasInjectionConfig

    hooked = adapted(BiasInjectionConfig(r=0, use_bias=False, n_nodes=3), scale=0.5)
    ids = torch.arange(5, 25)[None]
    other = ids.clone()
    other[0, 12:] += 40

    def logits(tokens):
        with torch.no_grad():
            return hooked.model(input_ids=tokens).logits[0]

    plain = logits(ids)
    with shuffled_time(0):
        shuffled, same, changed = logits(ids), logits(ids), logits(other)
    assert torch.equal(shuffled, same)
    assert torch.equal(shuffled[:12], changed[:12])  # nothing is read from the future
    assert not torch.allclose(shuffled[6:], plain[6:])
    assert torch.equal(logits(ids), plain)  # and afterwards it is as it was


def test_the_best_rate_is_that_of_the_lowest_held_out_loss():
    def row(arm, rate, loss, status="done"):
        return TrialRow(arm, rate, 0, True, status, eval_loss=loss)

    rows = [row("a", 0.1, 2.0), row("a", 0.2, 1.0), row("b", 0.1, None, "failed")]
    assert best_rates(rows) == {"a": 0.2}


def test_arms_are_paired_by_seed():
    def row(arm, seed, value):
        return TrialRow(
            arm, 0.1, seed, False, "done", accuracy=(value,), logprob=(value,), forgetting=0.0
        )

    rows = [row("tested", seed, 0.8 + 0.01 * seed) for seed in range(5)]
    rows += [row("control", seed, 0.5 + 0.01 * seed + 0.001 * (seed % 2)) for seed in range(5)]
    rows += [row("frozen", 0, 0.4)]
    found = {(each.arm, each.metric): each for each in summarise(rows, "tested")}
    control = found["control", "accuracy"]
    assert control.difference == pytest.approx(np.mean([0.3, 0.299, 0.3, 0.299, 0.3]))
    assert control.p_holm < 1e-4
    assert control.difference_low < control.difference < control.difference_high
    assert found["tested", "accuracy"].difference is None
    assert found["frozen", "accuracy"].difference == pytest.approx(0.42)
    assert found["frozen", "accuracy"].ci_low is None
    assert found["control", "forgetting"].p_value is None  # nothing varies


def test_plans_are_plain_data_and_checked(plan):
    assert Plan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan
    with pytest.raises(UnknownNameError, match="lora"):
        dataclasses.replace(plan, arms=("lore",))
    with pytest.raises(InvalidInputError, match="seeds"):
        dataclasses.replace(plan, seeds=(1, 1))
    with pytest.raises(InvalidInputError, match="rates"):
        dataclasses.replace(plan, rates=(0.0,))
    with pytest.raises(InvalidInputError, match="steps=1"):
        dataclasses.replace(plan, steps=1)


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        ({"kind": "question", "task": "mixed-country"}, "would have to be trained"),
        ({"kind": "relation", "task": "mixed-country"}, "no single relation"),
        ({"kind": "relation", "task": "x", "pairs": [["a", "b"], ["c", "d"]]}, "left to train on"),
        ({"kind": "relation", "task": "country-capital", "held_out": 1.5}, "held_out"),
        ({"kind": "riddle"}, "riddle"),
    ],
)
def test_problems_that_cannot_be_trained_are_refused(plan, problem, reason, tmp_path):
    with pytest.raises(InvalidInputError, match=reason):
        run_experiment(dataclasses.replace(plan, problem=problem), tmp_path / "run")
    assert not any(tmp_path.iterdir())


def test_nothing_that_is_asked_was_trained_on(plan):
    problem = plan.make_problem()
    asked = {source for source, _ in problem.on.pairs}
    texts = "".join(p.text for e in problem.examples for turn in e.turns for p in turn)
    lines = {line.split(" ->")[0] for line in texts.splitlines()}
    assert lines
    assert not lines & asked
    assert {len(example.turns) for example in problem.examples} == {1, 2, 3, 4}
