"""Packed, prefix-cached and separate passes give the same numbers, on every family."""

import dataclasses

import pytest
import torch

import ed_interp
from ed_interp.errors import CaptureError, InvalidInputError
from ed_interp.streams.capture import capture

PACKED = ["gpt2", "gemma2", "gemma3", "llama", "mistral", "qwen3", "neox", "opt", "phi"]


def largest_difference(one, other):
    states = max(float((one.at(k) - other.at(k)).abs().max()) for k in one.shots)
    scores, others = one.scores(), other.scores()
    return states, max(float((scores[name] - others[name]).abs().max()) for name in scores)


@pytest.mark.parametrize("family", PACKED)
def test_packed_equals_separate(family, build_model, random_prompts):
    hooked = ed_interp.load(build_model(family))
    population = random_prompts()
    packed = capture(hooked, population, path="packed", batch_size=3)
    separate = capture(hooked, population, path="separate")
    states, scores = largest_difference(packed, separate)
    assert states < 1e-4
    assert scores < 1e-4
    assert capture(hooked, population).path == "packed"


@pytest.mark.parametrize("family", ["gpt2", "llama", "neox", "opt", "bloom"])
def test_prefix_equals_separate(family, build_model, random_prompts):
    hooked = ed_interp.load(build_model(family))
    population = random_prompts()
    prefix = capture(hooked, population, path="prefix")
    states, scores = largest_difference(prefix, capture(hooked, population, path="separate"))
    assert states < 1e-4
    assert scores < 1e-4


def test_without_prefix_tokens_zero_shots_has_no_trunk(build_model, random_prompts):
    hooked = ed_interp.load(build_model("gpt2"))
    population = random_prompts(shots=(0,), prefix=0)
    separate = capture(hooked, population, path="separate")
    for path in ("packed", "prefix"):
        states, scores = largest_difference(capture(hooked, population, path=path), separate)
        assert states < 1e-4
        assert scores < 1e-4


def test_lora_is_in_the_states_and_packed_equals_separate(build_model, random_prompts):
    from peft import LoraConfig, get_peft_model

    population = random_prompts()
    plain = capture(build_model("gpt2"), population)
    config = LoraConfig(
        target_modules=["c_attn"],
        init_lora_weights=False,
        fan_in_fan_out=True,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        adapted = ed_interp.load(get_peft_model(build_model("gpt2"), config))
    packed = capture(adapted, population, path="packed")
    states, scores = largest_difference(packed, capture(adapted, population, path="separate"))
    assert states < 1e-4
    assert scores < 1e-4
    assert (packed.at(2) - plain.at(2)).abs().max() > 0.1


def test_auto_falls_back_where_packing_is_refused_or_wrong(build_model, random_prompts):
    population = random_prompts()
    # ALiBi wants a two-dimensional mask; GPT-Neo's local window counts indices.
    for family, path in {"bloom": "prefix", "gpt_neo": "separate"}.items():
        hooked = ed_interp.load(build_model(family))
        found = capture(hooked, population)
        assert found.path == path
        states, scores = largest_difference(found, capture(hooked, population, path="separate"))
        assert states < 1e-4
        assert scores < 1e-4


def test_a_wrong_path_asked_for_by_name_is_refused(build_model, random_prompts):
    population = random_prompts()
    with pytest.raises(CaptureError, match="differ from separate passes"):
        capture(build_model("gpt_neo"), population, path="packed")
    with pytest.raises(CaptureError, match="differ from separate passes"):
        # The cache counts the window in indices, the prompts in positions.
        capture(build_model("gemma2"), population, path="prefix")
    with pytest.raises(CaptureError, match="does not support it"):
        capture(build_model("bloom"), population, path="packed")
    with pytest.raises(InvalidInputError, match=r"path must be one of .* got 'pack'"):
        capture(build_model("gpt2"), population, path="pack")


def test_nested_lists_need_no_mask_and_equal_separate(build_model, random_prompts):
    for family in ("gpt2", "gemma3", "bloom"):
        hooked = ed_interp.load(build_model(family))
        population = random_prompts(shots=(1, 2, 5), queries=False)
        nested = capture(hooked, population)
        assert nested.path == "nested"
        assert nested.scores() is None
        separate = capture(hooked, population, path="separate")
        for count in nested.shots:
            assert (nested.at(count) - separate.at(count)).abs().max() < 1e-4


def test_scores_equal_the_models_own_logits(build_model, random_prompts):
    model = build_model("gemma2")
    population = random_prompts(prompts=4)
    found = capture(model, population).scores()
    for row, prompt in enumerate(population.prompts):
        for column, shots in enumerate(population.shots):
            ids = torch.tensor([prompt.sequence(shots) + prompt.answer])
            with torch.no_grad():
                logits = model(ids).logits[0].log_softmax(-1)
            start = len(prompt.sequence(shots)) - 1
            steps = [(logits[start + n], token) for n, token in enumerate(prompt.answer)]
            expected = sum(float(step[token]) for step, token in steps)
            assert found["logprob"][row, column] == pytest.approx(expected, abs=1e-4)
            greedy = all(int(step.argmax()) == token for step, token in steps)
            assert bool(found["correct"][row, column]) == greedy
            first, token = steps[0]
            assert found["rank"][row, column] == float((first >= first[token]).sum())


def test_rank_counts_ties_against_the_answer():
    from ed_interp.streams.paths import _score

    logits = torch.zeros(1, 1, 1, 7)
    _, correct, rank = _score(logits, torch.tensor([[[3]]]))
    assert rank.item() == 7
    assert not correct.item()


def test_half_precision_passes_its_own_check(build_model, random_prompts):
    hooked = ed_interp.load(build_model("llama").to(torch.bfloat16))
    found = capture(hooked, random_prompts())
    assert found.path == "packed"
    assert found.at(0).dtype == torch.float32


def test_batch_size_changes_nothing(build_model, random_prompts):
    hooked = ed_interp.load(build_model("llama"))
    population = random_prompts(prompts=6)
    one = capture(hooked, population, batch_size=1)
    many = capture(hooked, population, batch_size=6)
    states, scores = largest_difference(one, many)
    assert states < 1e-4
    assert scores < 1e-4


def test_prompts_beyond_the_context_window_are_refused(build_model, random_prompts):
    hooked = ed_interp.load(build_model("gpt2"))
    population = random_prompts()
    long = dataclasses.replace(population.prompts[0], demonstrations=((5,) * 40,) * 5)
    population = dataclasses.replace(population, prompts=(long,))
    with pytest.raises(InvalidInputError, match=r"context window of .*, 160 tokens"):
        capture(hooked, population)
