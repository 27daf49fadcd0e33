"""What the sections say, and that they say no more than the records support."""

from __future__ import annotations

import importlib
import json
import re
import xml.etree.ElementTree as ElementTree

import pytest

from ed_interp.eval.paper.discussion import discussion
from ed_interp.eval.paper.document import Citation, Quote
from ed_interp.eval.paper.pictures import Mark, Panel, interval_svg, ticks_between
from ed_interp.eval.paper.pointers import POINTERS
from ed_interp.eval.paper.records import read_records
from ed_interp.eval.paper.references import WORKS, references
from ed_interp.eval.paper.write import make_paper


def text_of(section):
    """The sentences of a section, tables left out."""
    lines = []
    for block in section.blocks:
        items = getattr(block, "items", None) or [getattr(block, "parts", ())]
        lines += ["".join(map(words, item)) for item in items]
    return "\n".join(lines)


def words(part):
    if isinstance(part, Citation):
        return part.work
    return part if isinstance(part, str) else part.text


def section(runs, name):
    return text_of(next(s for s in make_paper(runs).sections if s.name == name))


def edited(folder, name, change):
    (file,) = folder.glob(name)
    data = json.loads(file.read_text("utf-8"))
    change(data)
    file.write_text(json.dumps(data), "utf-8")
    return folder


def test_a_difference_is_claimed_only_where_it_is_supported(study):
    text = text_of(discussion(read_records([study])))
    (accuracy,) = [line for line in text.splitlines() if line.startswith("Accuracy: ")]
    better, _, rest = accuracy.partition("a difference is not supported from")
    assert "bias-injection is better than" in better
    assert "frozen" in better
    assert "lora" not in better  # it swings between seeds
    assert "lora" in rest


def row_of(data, arm, metric="accuracy"):
    return next(r for r in data["summary"] if r["arm"] == arm and r["metric"] == metric)


@pytest.mark.parametrize(
    ("fields", "said"),
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
def test_interval_and_test_must_agree(study, fields, said):
    edited(study, "run.json", lambda data: row_of(data, "frozen").update(fields))
    text = text_of(discussion(read_records([study])))
    (line,) = [line for line in text.splitlines() if line.startswith("Accuracy: ")]
    assert said in line
    assert ("bias-injection is better than frozen" in line) == (not fields)


def test_less_forgetting_is_the_better_one(study):
    fields = {"difference": -0.4, "difference_low": -0.5, "difference_high": -0.3, "p_holm": 0.001}
    edited(study, "run.json", lambda data: row_of(data, "lora", "forgetting").update(fields))
    text = text_of(discussion(read_records([study])))
    (line,) = [line for line in text.splitlines() if line.startswith("Rise of the cross-entropy")]
    assert re.search(r"is better than lora", line)


def test_side_effects_are_named_by_prompt(study):
    text = section([study], "discussion")
    assert "Worse at the corrected level: sentiment, logprob (-0.812, -0.863 to -0.75;" in text
    assert "shot count 2 (+0.0312" not in text  # the interval of that change holds 0
    assert "sentiment" in section([study], "ethics")
    none = edited(study, "comparisons/*/comparison.json", lambda d: d["effects"].pop(3))
    edited(none, "run.json", lambda d: [row.update(harmed=[]) for row in d["trials"]])
    assert "sentiment" not in section([study], "ethics")


def test_learning_in_a_session_is_claimed_by_its_interval(study):
    assert "brought a gain of log-probability against before the first: +1 nats" in section(
        [study], "discussion"
    )
    edited(study, "comparisons/*/comparison.json",
           lambda data: data["adaptivity"]["turns"][1].update(gain_ci_low=-0.25))  # fmt: skip
    assert "brought no supported change" in section([study], "discussion")


def test_a_curve_rises_only_where_its_intervals_part(made, tmp_path):
    import shutil

    assert "E rises over shots" in section([made / "curve"], "discussion")
    copy = shutil.copytree(made / "curve", tmp_path / "curve")
    edited(copy, "run.json", lambda data: [row.update(ci_low=0.0) for row in data["rows"]])
    text = section([copy], "discussion")
    assert "E has no supported change over shots" in text
    assert "Accuracy rises from the fewest shots" in text
    edited(copy, "run.json", lambda d: [r.update(gain_ci_low=-0.1) for r in d["behaviour"]])
    assert "Accuracy has no supported change" in section([copy], "discussion")


def test_failures_retries_divergences_and_flags_are_logged(made):
    text = section([made], "challenges")
    assert "The arm lora on country-capital failed at rate 0.01 and seed 0: InvalidInput" in text
    assert "The arm random on country-capital at rate 0.003 and seed 1 was finished at at" in text
    assert "reached its lowest held-out loss, 0.0351, at step 1, and had 0.0492" in text
    assert "saturated, in the emergence curve, at block 0 and shot count 4 and block 1" in text


def test_the_meaning_of_a_flag_is_the_packages_own(made):
    from ed_interp.probes.emergence.curve import FLAGS

    quotes = [part for part in make_paper([made / "curve"]).parts() if isinstance(part, Quote)]
    assert [quote.text for quote in quotes] == [FLAGS["saturated"]]
    module, name = quotes[0].source.split(":")
    assert getattr(importlib.import_module(module), name) is FLAGS


def test_what_was_not_neutral_is_logged(study):
    assert "No record holds a before-state" in section([study], "challenges")
    edited(study, "comparisons/*/comparison.json",
           lambda d: d["identity"].update(neutral=False, largest_difference=0.375))  # fmt: skip
    assert "its logits differed by up to 0.375" in section([study], "challenges")
    assert "the before-state as the identity: no" in section([study], "limits")


def test_unfinished_runs_beside_are_logged(study):
    (study.parent / ".other-task.partial").mkdir()
    assert "other-task" in section([study], "challenges")


def test_every_pointer_leads_to_something():
    for _, pointer in POINTERS:
        module, name = pointer.split(":")
        assert hasattr(importlib.import_module(module), name), pointer


def test_works_are_cited_where_they_are_relied_on(made):
    assert text_of(references(read_records([made / "curve"]))).split() == [
        "emergence",
        "smoothed",
        "metrics",
    ]
    assert {"adapter", "lora", "seeds"} <= set(section([made / "study"], "references").split())
    for work in WORKS.values():
        assert re.search(r"arXiv:\d{4}\.\d{5}$|no arXiv identifier$", work.where)


def test_ethics_names_data_and_the_way_back(study):
    text = section([study], "ethics")
    assert "licence of the data: not stated" in text
    assert "hash bfb1a3" in text
    assert "switched off, the model icl-gpt2 is as before, bit for bit: yes" in text
    assert "which is supported against the frozen model after the correction" in text
    assert "had the same weights before and after its training, hash 838afa" in text


def test_forgetting_is_judged_as_in_the_discussion(study):
    edited(study, "run.json", lambda d: row_of(d, "frozen", "forgetting").update(p_holm=0.2))
    assert "which is not supported against the frozen model" in section([study], "ethics")


def test_still_pictures_are_whole():
    marks = (Mark("<b>&", 0.5, 0.25, 0.75), Mark("alone", -1.0, None, None, "caution"))
    root = ElementTree.fromstring(interval_svg([Panel("a < b", marks, zero=True)], label='"x"'))
    space = "{http://www.w3.org/2000/svg}"
    texts = [node.text for node in root.iter(f"{space}text")]
    assert {"<b>&", "alone", "a < b", "0"} <= set(texts)
    spots = [float(node.get("cx", 0)) for node in root.iter(f"{space}circle")]
    assert spots[0] > spots[1]
    _, _, width, height = map(float, str(root.get("viewBox")).split())
    for node in root.iter(f"{space}circle"):
        assert 0 < float(node.get("cx", 0)) < width
        assert 0 < float(node.get("cy", 0)) < height


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (-0.3, 0.02), (120.0, 5000.0), (-1e-5, 2e-5)]
)
def test_ticks(low, high):
    ticks = ticks_between(low, high)
    assert 2 <= len(ticks) <= 8
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
