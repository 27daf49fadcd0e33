"""What the sections say, and that they say no more than the records support."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import shutil

import pytest

from ed_interp.eval.paper.values import Quote, Work
from ed_interp.results import load_any

RESULTS, LIMITS, REFERENCES = "Results of the trials", "Limits", "References"
DISCUSSION = "Discussion against benchmarks and baselines"
CODE, CHALLENGES = "Appendix B. Pointers to the code", "Appendix E. Log of challenges"
ETHICS = "Appendix F. Ethics and bias"


def edited(folder, name, change):
    (file,) = folder.glob(name)
    data = json.loads(file.read_text("utf-8"))
    change(data)
    file.write_text(json.dumps(data), "utf-8")
    return folder


def line_of(text, start):
    (line,) = [line for line in text.splitlines() if line.startswith(f"- {start}")]
    return line


def test_a_difference_is_claimed_only_where_it_is_supported(study, section):
    accuracy = line_of(section(study, heading=DISCUSSION), "Accuracy: ")
    better, _, rest = accuracy.partition("a difference is not supported from")
    assert "bias-injection is better than" in better
    assert "frozen" in better
    assert "lora" not in better  # it swings between seeds
    assert "lora" in rest


def row_of(data, arm, metric="accuracy"):
    return next(r for r in data["summary"] if r["arm"] == arm and r["metric"] == metric)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"p_holm": 0.2}, "not supported"),
        ({"difference_low": -0.1}, "not supported"),
        ({"p_holm": None}, "no test was possible"),
        (
            {"difference": -0.4, "difference_low": -0.5, "difference_high": -0.3},
            "bias-injection is worse than frozen",
        ),
        ({}, "bias-injection is better than frozen"),
    ],
)
def test_interval_and_test_must_agree(study, section, fields, words):
    edited(study, "run.json", lambda data: row_of(data, "frozen").update(fields))
    line = line_of(section(study, heading=DISCUSSION), "Accuracy: ")
    assert words in line
    assert ("bias-injection is better than frozen" in line) == (not fields)


def test_less_forgetting_is_the_better_one(study, section):
    fields = {"difference": -0.4, "difference_low": -0.5, "difference_high": -0.3, "p_holm": 0.001}
    edited(study, "run.json", lambda data: row_of(data, "lora", "forgetting").update(fields))
    line = line_of(section(study, heading=DISCUSSION), "Rise of the cross-entropy")
    assert "is better than lora" in line


def test_side_effects_are_named_by_prompt(study, section):
    text = section(study, heading=DISCUSSION)
    assert "Worse at the corrected level: sentiment, logprob (-0.812, -0.863 to -0.75;" in text
    assert "shot count 2 (+0.0312" not in text  # the interval of that change holds 0
    assert "sentiment" in section(study, heading=ETHICS)
    none = edited(study, "comparisons/*/comparison.json", lambda d: d["effects"].pop(3))
    edited(none, "run.json", lambda d: [row.update(harmed=[]) for row in d["trials"]])
    assert "sentiment" not in section(study, heading=ETHICS)


def test_learning_in_a_session_is_claimed_by_its_interval(study, section):
    claim = "the log-probability shows a gain against the state before the first: +1 nats"
    assert claim in section(study, heading=DISCUSSION)
    edited(study, "comparisons/*/comparison.json",
           lambda data: data["adaptivity"]["turns"][1].update(gain_ci_low=-0.25))  # fmt: skip
    assert "shows no supported change" in section(study, heading=DISCUSSION)


def test_a_curve_rises_only_where_its_intervals_part(made, tmp_path, section):
    assert "E rises over shots" in section(made / "curve", heading=DISCUSSION)
    copy = shutil.copytree(made / "curve", tmp_path / "curve")
    edited(copy, "run.json", lambda data: [row.update(ci_low=0.0) for row in data["rows"]])
    text = section(copy, heading=DISCUSSION)
    assert "E has no supported change over shots" in text
    assert "Accuracy rises from the fewest shots" in text
    edited(copy, "run.json", lambda d: [r.update(gain_ci_low=-0.1) for r in d["behaviour"]])
    assert "Accuracy has no supported change" in section(copy, heading=DISCUSSION)


def test_failures_retries_divergences_and_flags_are_logged(made, section):
    text = section(made, heading=CHALLENGES)
    assert "| lora | 0.01 | 0 | failed | 2 | InvalidInput" in text
    assert "| random | 0.003 | 1 | done | 2 | none |" in text
    assert "reached its lowest held-out loss, 0.0351, at step 1, and had 0.0492" in text
    assert "saturated, in the emergence curve, at block 0 and shot count 4 and block 1" in text


def test_an_arm_without_a_finished_trial_is_logged(study, section):
    assert "has no finished trial" not in section(study, heading=CHALLENGES)
    edited(study, "run.json", lambda d: [row.update(status="failed") for row in d["trials"]
                                         if row["arm"] == "random"])  # fmt: skip
    assert "The arm random on country-capital has no finished" in section(study, heading=CHALLENGES)


def test_the_meaning_of_a_flag_is_the_packages_own(made, draft):
    from ed_interp.probes.emergence.curve import EmergenceCurve

    (quote,) = [part for part in draft(made / "curve").parts if isinstance(part, Quote)]
    assert quote.text == EmergenceCurve.load(made / "curve").glossary()["saturated"]
    module, name = quote.source.split(":")
    assert (module, name) == (EmergenceCurve.__module__, "EmergenceCurve.glossary")


def test_what_was_not_neutral_is_logged(study, section):
    nothing = "No record holds an adapter that was not neutral before training or after a reset."
    assert nothing in section(study, heading=CHALLENGES)
    edited(study, "comparisons/*/comparison.json",
           lambda d: d["identity"].update(neutral=False, largest_difference=0.375))  # fmt: skip
    assert "its logits differed by up to 0.375" in section(study, heading=CHALLENGES)
    limits = section(study, heading=LIMITS)
    assert "whether the untrained adapter changes nothing: no" in limits


def test_unfinished_runs_beside_are_logged(study, section):
    (study.parent / ".other-task.partial").mkdir()
    assert "other-task" in section(study, heading=CHALLENGES)


def test_every_pointer_leads_to_something(study, section):
    pointers = re.findall(r"\| `([\w.]+)` \| `(\w+)` \|", section(study, heading=CODE))
    assert len(pointers) > 20
    for module, name in pointers:
        assert hasattr(importlib.import_module(module), name), (module, name)


def test_works_are_listed_where_they_are_relied_on(made, draft, section):
    def works(run):
        return [part.key for part in draft(run).parts if isinstance(part, Work) and part.listed]

    curve, study = works(made / "curve"), works(made / "study")
    assert curve == ["estimator-smoothed", "emergence", "bounds", "metrics"]
    assert {"adapter", "lora", "seeds"} <= set(study)
    assert not {"adapter", "lora", "seeds"} & set(curve)
    for line in section(made, heading=REFERENCES).strip().splitlines():
        assert re.search(r"arXiv:[\w/-]*\d+(\.\d+)?$|no arXiv identifier$", line)


def test_an_estimator_that_the_text_cites_is_listed_once(made, put, section, tmp_path):
    curve = load_any(made / "curve")
    mine = put(dataclasses.replace(curve, estimator="mine"), tmp_path / "mine")
    assert section(mine, heading=REFERENCES).count("Quantifying Emergence") == 1


def test_ethics_names_data_and_the_way_back(study, section):
    text = section(study, heading=ETHICS)
    assert "licence of the data: not stated" in text
    assert "hash bfb1a3" in text
    assert "switched off, the model icl-gpt2 is as before, bit for bit: yes" in text
    assert "which is supported against the frozen model after the correction" in text
    assert "had the same weights before and after its training, hash 838afa" in text


def test_forgetting_is_judged_as_in_the_discussion(study, section):
    edited(study, "run.json", lambda d: row_of(d, "frozen", "forgetting").update(p_holm=0.2))
    assert "which is not supported against the frozen model" in section(study, heading=ETHICS)


def test_pictures_are_those_of_the_records_own_reports(made, draft):
    from ed_interp.results import load_any

    shown = [picture.chart for picture in draft(made).pictures()]
    assert [chart.name for chart in shown] == ["arms-r2", "comparison-r3", "emergence-r1"]
    for chart, folder in zip(shown, ("study", "study/comparisons/*", "curve"), strict=True):
        (run,) = made.glob(folder)
        own = {own.name: own for own in load_any(run).charts()}[chart.name.split("-")[0]]
        assert chart.panels == own.panels
