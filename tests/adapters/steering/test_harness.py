"""lm-evaluation-harness on a steered model, with a task made here."""

import json
import logging
import os

import pytest
import torch

import ed_interp
from ed_interp.adapters.steering import harness_model, steer
from ed_interp.errors import InvalidInputError
from ed_interp.streams.direction import Direction
from ed_interp.streams.injection import Where, inject

SITE = "blocks.1.hook_resid_post"
TASK = """task: tiny_steering
dataset_path: json
dataset_kwargs:
  data_files: {file}
test_split: train
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: 0
metric_list:
  - metric: acc
"""


@pytest.fixture(scope="module")
def hooked(tiny_model, tiny_tokenizer):
    return ed_interp.load(tiny_model, tokenizer=tiny_tokenizer)


@pytest.fixture(scope="module")
def harness():
    os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
    return pytest.importorskip("lm_eval", reason="comes with the lm-eval extra")


def make(hooked, coefficient=5.0, **options):
    generator = torch.Generator().manual_seed(0)
    vector = torch.randn(32, generator=generator)
    direction = Direction.of(hooked, {SITE: vector}, method="by hand")
    return steer(hooked, direction, coefficient=coefficient, **options)


REQUESTS = [
    (("a", "b"), [5, 6, 7], [8, 9]),
    (("c", "d"), [11, 12, 13, 14, 15], [16]),
    (("e", "f"), [20], [21, 22, 23]),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("where", [Where(), Where(phase="generation"), Where(positions=-1)])
def test_scores_are_those_of_generation_whatever_the_batch(where, harness, hooked):
    treated = make(hooked, where=where)
    found = [
        harness_model(treated, batch_size=size)._loglikelihood_tokens(REQUESTS) for size in (1, 3)
    ]
    for row, (_, context, answer) in enumerate(REQUESTS):
        # Token by token, as generate feeds them.
        total, greedy, ids = 0.0, True, torch.tensor([context + answer])
        for step in range(len(answer)):
            fed = ids[:, : len(context) + step]
            with inject(hooked, *treated.interventions, prompt_length=len(context), strict=False):
                logits = hooked.model(fed).logits[0, -1].log_softmax(-1)
            total += float(logits[answer[step]])
            greedy &= int(logits.argmax()) == answer[step]
        for answers in found:
            assert answers[row] == (pytest.approx(total, abs=1e-4), greedy)


@pytest.mark.filterwarnings("ignore")
def test_a_task_is_evaluated_steered(harness, hooked, tmp_path):
    from lm_eval.tasks import TaskManager

    logging.disable(logging.WARNING)
    rows = [{"question": f"{word} ->", "choices": ["a", "b", "c"]} for word in "kitchen"]
    data = tmp_path / "data.json"
    data.write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "tiny.yaml").write_text(TASK.format(file=data))
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)

    def scores(coefficient):
        model = harness_model(make(hooked, coefficient), batch_size=4)
        found = harness.simple_evaluate(
            model=model, tasks=["tiny_steering"], task_manager=manager, bootstrap_iters=0
        )
        return [
            [answer[0] for answer in sample["filtered_resps"]]
            for sample in found["samples"]["tiny_steering"]
        ]

    plain, steered = torch.tensor(scores(0.0)), torch.tensor(scores(5.0))
    logging.disable(logging.NOTSET)
    assert plain.shape == (7, 3)
    assert (plain - steered).abs().max() > 0.01
    tokens = hooked.tokenizer
    for row, item in enumerate(rows):
        ids = tokens(item["question"] + " a", return_tensors="pt").input_ids
        start = len(tokens(item["question"]).input_ids)
        with torch.no_grad():
            logits = make(hooked)(ids, prompt_length=start).logits[0, start - 1 : -1]
        chosen = logits.log_softmax(-1).gather(-1, ids[0, start:, None]).sum()
        assert steered[row, 0] == pytest.approx(float(chosen), abs=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_text_is_generated_steered(harness, hooked):
    from lm_eval.api.instance import Instance

    def text(coefficient):
        model = harness_model(make(hooked, coefficient))
        options = {"until": ["\n\n\n"], "max_gen_toks": 8}
        request = Instance("generate_until", {}, ("a b c", options), 0)
        return model.generate_until([request], disable_tqdm=True)[0]

    ids = hooked.tokenizer("a b c", return_tensors="pt").input_ids
    mask = torch.ones_like(ids)
    out = make(hooked).generate(
        ids, attention_mask=mask, max_new_tokens=8, do_sample=False, pad_token_id=0
    )
    assert text(5.0) == hooked.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    assert text(5.0) != text(0.0)


def test_what_the_harness_cannot_run_is_refused(harness, hooked, tiny_model):
    with pytest.raises(
        InvalidInputError, match="batch_size must be a number of 1 or more, got 'auto'"
    ):
        harness_model(make(hooked), batch_size="auto")
    with pytest.raises(InvalidInputError, match="has no tokenizer"):
        harness_model(make(ed_interp.load(tiny_model)))
