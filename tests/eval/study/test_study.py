"""Studies: arms as data, sweeps, seeds, failures that leave the rest alone, and records."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ed_interp.errors import InvalidInputError, RunFolderError, UnknownNameError
from ed_interp.eval.study import Study, StudyOptions, run, study
from ed_interp.eval.study.arms import (
    ARMS,
    CONTROLS,
    adapter_options,
    shuffled_time,
    sweep_of,
    trained_parameters,
)
from ed_interp.eval.study.problems import make_problem
from ed_interp.eval.study.rows import Trial, TrialRow
from ed_interp.eval.study.run import best_rates
from ed_interp.eval.study.summary import summarise
from ed_interp.eval.study.trials import Bench
from ed_interp.prompts.tasks import LabelledTask
from ed_interp.results import load_any

RECORDS = Path(__file__).parents[3] / "eval" / "study_records"


@pytest.fixture(scope="module")
def options(tiny_folder):
    """A study of seconds, on the default task."""
    return StudyOptions(
        model=str(tiny_folder), treated="lora", controls=["random"], shots=(0, 1), seeds=2,
        rates=(1e-3,), steps=2, batch_size=2, prompts=8, watch_prompts=14, texts=2,
        emergence=False, decode_rounds=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def studies(options, tmp_path_factory):
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
        first = study(options=options, out=out)
        failed = [row for row in first.trials if row.status == "failed"]
        count = len(started)
        # What is finished is kept: in an interrupted run with those trials, one is run.
        again = out.with_name("again")
        partial = out.with_name(".again.partial")
        (partial / "work" / "trials").mkdir(parents=True)
        header = {"format": "ed-interp/run-settings", "version": 1, "settings": options.to_dict()}
        (partial / "settings.json").write_text(json.dumps(header), "utf-8")
        for row in first.trials:
            text = json.dumps(dataclasses.asdict(row))
            (partial / "work" / "trials" / f"{row.name}.json").write_text(text, "utf-8")
        second = study(options=options, out=again)
    return first, failed, second, started[count:], out


def test_every_arm_is_swept_and_compared(studies):
    first = studies[0]
    done = {(row.arm, row.sweep, row.seed) for row in first.trials}
    assert done == {
        ("lora", True, 0), ("random", True, 0), ("lora", False, 0), ("lora", False, 1),
        ("frozen", False, 0), ("random", False, 0), ("random", False, 1),
    }  # fmt: skip
    assert first.best["lora"] == 1e-3
    assert first.best["random"] in sweep_of(ARMS["random"])
    lora = next(row for row in first.trials if row.arm == "lora" and not row.sweep)
    assert lora.neutral is True
    assert lora.parameters == next(arm for arm in first.arms if arm.name == "lora").parameters
    frozen = next(row for row in first.trials if row.arm == "frozen")
    assert frozen.forgetting == 0
    assert frozen.accuracy_change == (0, 0)
    assert frozen.harmed == ()


def test_a_failure_is_a_row_and_the_rest_goes_on(studies):
    first, failed, second, started, _ = studies
    assert [(row.arm, row.seed, row.error) for row in failed] == [
        ("random", 1, "RuntimeError: the machine was busy")
    ]
    assert failed == list(first.failures)
    assert len(started) == 1
    assert started[0].startswith("final-random")
    (mended,) = second.failures
    assert (mended.status, mended.attempt) == ("done", 2)
    assert "seed 1: failed (RuntimeError: the machine was busy)" in first.cautions()
    assert "done at attempt 2" in second.cautions()


def test_what_a_dead_process_left_is_run_by_one_that_is_alone(monkeypatch, tmp_path):
    bench = object.__new__(Bench)  # of which no more than the folder is used
    object.__setattr__(bench, "work", tmp_path)
    trials = [Trial("lora", 1e-3, seed, sweep=False) for seed in range(3)]
    shares = []

    def shared(work, share):
        """The first time only trial 0 ends well, the second time trial 1 too."""
        shares.append(share)
        monkeypatch.setattr(Bench, "_row", lambda _, trial: TrialRow(**vars(trial), status="done"))
        bench.run(trials[len(shares) - 1])

    for name, value in (
        ("process", lambda: (0, 2)), ("wait_for_all", lambda: None), ("gather", lambda x: [x]),
        ("_share", shared),
    ):  # fmt: skip
        monkeypatch.setattr(run, name, value)
    rows = run._run(bench, trials, None, "trying")
    assert shares == ["0/2", "0/1"]
    assert [row.status for row in rows] == ["done", "done", "failed"]
    assert "died twice" in rows[2].error


def test_a_study_is_read_back(studies, options):
    first, *_, out = studies
    assert Study.load(out) == load_any(out) == first
    assert first.options == options
    assert len(first.to_frame()) == len(first.trials)
    assert set(first.to_frame("summary")["arm"]) == {"lora", "frozen", "random"}
    assert {file.name for file in out.iterdir()} >= {
        "run.json", "trials.parquet", "summary.parquet", "comparisons", "adapters", "study.png",
        "report.html",
    }  # fmt: skip
    assert not (out / "work").exists()
    kept = load_any(out / "comparisons" / first.first.name)
    assert kept.treated["name"] == "lora"
    assert (out / "adapters" / first.first.adapter / "adapter_config.json").is_file()
    with pytest.raises(RunFolderError, match="exists"):
        study(options=options, out=out)


def test_page_and_tables(studies):
    first, *_, out = studies
    page = (out / "report.html").read_text("utf-8")
    assert "Lora against its controls" in page
    assert first.headline() in page
    assert {chart.name for chart in first.charts()} == {"study", "arms"}
    assert len(first.plot("arms").data) > 3
    (arms,) = [table for table in first.tables() if table.name == "arms"]
    assert [row[0] for row in arms.rows] == ["lora", "frozen", "random"]


@pytest.mark.skipif(not RECORDS.is_dir(), reason="the records lie in a checkout, not in the wheel")
def test_records_of_version_1_are_read(tmp_path):
    folder = RECORDS / "icl-gpt2-country-capital"
    old = Study.load(folder)
    assert old.tested == "bias-injection"
    assert old.options.every_seed == range(5)
    assert set(old.options.controls) == set(CONTROLS)
    assert old.options.steps == 20
    assert (folder / "comparisons" / old.first.name).is_dir()
    assert "bias-injection minus" in old.headline()
    assert old.headline().startswith("bias-injection minus frozen, means over shots: accuracy")
    assert any("±" in note for note in old.tables()[0].notes)
    data = json.loads((folder / "run.json").read_text("utf-8"))
    for change, reason in (
        ({"version": 3}, "version 2"),
        ({"trials": [{}]}, r"trials\[0\]"),
        ({"best": []}, "best"),
        ({"plan": {}}, "plan"),
    ):
        (tmp_path / "run.json").write_text(json.dumps({**data, **change}), "utf-8")
        with pytest.raises(RunFolderError, match=reason):
            Study.load(tmp_path)


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


def test_options_are_plain_data_and_checked(options):
    assert StudyOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options
    assert StudyOptions().task_label == "country-capital"
    assert [arm.name for arm in StudyOptions().arms()] == ["bias-injection", "frozen", *CONTROLS]
    assert [arm.name for arm in StudyOptions(controls=["none"]).arms()][1:] == ["frozen"]
    with pytest.raises(UnknownNameError, match="lora"):
        dataclasses.replace(options, controls=("lore",))
    for change, reason in (
        ({"seeds": 0}, "seeds must be 1 or greater"),
        ({"rates": (0.0,)}, "rates must be greater than 0"),
        ({"rates": ()}, "rates must hold"),
        ({"steps": 1}, "steps must be 2 or greater, got 1"),
        ({"held_out": 1.5}, "held_out must be"),
        ({"controls": ()}, "controls must name arms"),
        ({"seed": 2**32}, "seed must be less than"),
    ):
        with pytest.raises(InvalidInputError, match=reason):
            dataclasses.replace(options, **change)


FEW = LabelledTask("few", (("a", "b"), ("c", "d")))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"task": "mixed-country"}, "would have to be trained"),
        ({"task": FEW}, "left to train on"),
        ({"task": "country", "treated": "random"}, "must have answers, got 'country': by their"),
        ({"treated": "nowhere"}, "does not exist"),
        ({"text": __file__}, "got running text"),
        ({"watch_prompts": 3}, "watch_prompts must be"),
    ],
)
def test_what_cannot_be_trained_is_refused(options, change, reason, tmp_path):
    with pytest.raises(InvalidInputError, match=reason):
        study(options=options, **change, out=tmp_path / "run")
    assert not any(tmp_path.iterdir())


def test_a_run_of_other_pairs_is_not_continued(options, tmp_path):
    """The file of the pairs may change while a run is interrupted."""
    partial = tmp_path / ".run.partial"
    (partial / "work").mkdir(parents=True)
    header = {"format": "ed-interp/run-settings", "version": 1, "settings": options.to_dict()}
    (partial / "settings.json").write_text(json.dumps(header), "utf-8")
    plan = {"options": options.to_dict(), "pairs": "others"}
    (partial / "work" / "plan.json").write_text(json.dumps(plan), "utf-8")
    with pytest.raises(InvalidInputError, match="the file has changed"):
        study(options=options, out=tmp_path / "run")


def test_no_prompt_was_trained_on(options):
    problem = make_problem(options.make_task(), options)
    asked = {source for source, _ in problem.on.pairs}
    texts = "".join(p.text for e in problem.examples for turn in e.turns for p in turn)
    lines = {line.split(" ->")[0] for line in texts.splitlines()}
    assert lines
    assert not lines & asked
    assert {len(example.turns) for example in problem.examples} == {1, 2, 3, 4}
