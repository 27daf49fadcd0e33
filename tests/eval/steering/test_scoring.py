"""Scores are the model's own, whatever the grouping, and steering is told where prompts end."""

import math

import pytest
import torch

from ed_interp.errors import InvalidInputError
from ed_interp.eval.steering.samples import Sample, check_samples, questions, samples_from_file
from ed_interp.eval.steering.scoring import answer, neutral_rows, perplexity
from ed_interp.streams.injection import Add, Where

PAIRS = [("dog ->", " dogs"), ("France -> Paris\ncat ->", " cats and cows"), ("dog ->", " cats")]


@pytest.fixture(scope="module")
def hooked(tiny_model, tiny_tokenizer):
    import ed_interp

    return ed_interp.load(tiny_model, tokenizer=tiny_tokenizer)


def by_hand(hooked, question):
    ids = torch.tensor([question.prompt + question.answer])
    with torch.no_grad():
        logits = hooked.model(ids).logits[0, :-1]
    start = len(question.prompt) - 1
    along = logits.log_softmax(-1)[start:]
    target = torch.tensor(question.answer)
    return float(along.gather(-1, target[:, None]).sum()), bool((along.argmax(-1) == target).all())


def test_log_probabilities_are_the_models(hooked):
    asked = questions(hooked, PAIRS)
    found = answer(hooked, asked)
    for row, question in enumerate(asked):
        logprob, correct = by_hand(hooked, question)
        assert float(found.logprob[row]) == pytest.approx(logprob, abs=1e-4)
        assert bool(found.correct[row]) == correct


def test_the_last_prompt_token_does_not_depend_on_the_continuation(hooked):
    """A continuation of several tokens is steered where a continuation of one is."""
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0)) * 3
    asked = questions(hooked, PAIRS)
    last = Add(vector, "blocks.0.hook_resid_post", where=Where(positions=-1))
    steered = answer(hooked, asked, [last]).logprob
    for row, question in enumerate(asked):
        there = Where(positions=len(question.prompt) - 1)
        alone = answer(
            hooked, [question], [Add(vector, "blocks.0.hook_resid_post", where=there)]
        ).logprob
        assert float(alone[0]) == pytest.approx(float(steered[row]), abs=1e-4)
    assert not torch.allclose(steered, answer(hooked, asked).logprob, atol=1e-2)


def test_perplexity_is_that_of_the_loss(hooked):
    rows = neutral_rows(hooked, ["dog cat horse\n", "France and Italy", "x" * 4000, ""])
    assert len(rows) == 3
    assert max(map(len, rows)) == hooked.context_window
    total = count = 0.0
    for row in rows:
        ids = torch.tensor([row])
        with torch.no_grad():
            logits = hooked.model(ids).logits[0, :-1]
        total += float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        count += len(row) - 1
    assert perplexity(hooked, rows) == pytest.approx(math.exp(total / count), rel=1e-4)
    assert perplexity(hooked, rows, (), 1) == pytest.approx(math.exp(total / count), rel=1e-4)
    with pytest.raises(InvalidInputError, match="a text of 2 or more tokens"):
        neutral_rows(hooked, ["", " "])


def test_samples_from_a_file(tmp_path):
    file = tmp_path / "samples.jsonl"
    file.write_text(
        '{"prompt": "a ->", "wanted": " b", "unwanted": " c"}\n{"prompt": "a", "wanted": " b"}\n'
    )
    assert samples_from_file(file) == [Sample("a ->", " b", " c"), Sample("a", " b")]
    file.write_text('{"prompt": "a ->", "answer": " b"}\n')
    with pytest.raises(InvalidInputError, match="row 1: no text in wanted; the columns must be"):
        samples_from_file(file)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([Sample("a", "b")] * 3, "samples must be 8 or more.* got 3"),
        ([Sample("a", "b")] * 8 + [Sample(" ", "b")], "sample 9: an empty"),
        (
            [Sample("a", "b")] * 8 + [Sample("a", "b", "b")],
            "sample 9: wanted and unwanted must differ",
        ),
    ],
)
def test_bad_samples(samples, message):
    with pytest.raises(InvalidInputError, match=message):
        check_samples(samples)
