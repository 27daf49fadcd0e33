"""Paired effects: what is found, how it is corrected, and how often nothing is found in nothing."""

import numpy as np
import pytest
from scipy import stats

from ed_interp.eval.compare.effects import (
    behaviour_effects,
    corrected,
    effects_of,
    emergence_effects,
    enough_permutations,
    relation_effects,
)
from ed_interp.eval.compare.options import Inference
from ed_interp.eval.compare.reading import Reading, read_prompts
from ed_interp.eval.compare.rows import Effect
from ed_interp.eval.compare.subjects import open_subject
from ed_interp.eval.compare.texts import TextReading
from ed_interp.probes.emergence.measure import ShotTerms
from ed_interp.prompts.population import draw
from ed_interp.prompts.tasks import builtin_task
from ed_interp.prompts.tokens import tokenize
from ed_interp.statistics import mcnemar

SHOTS = (0, 1, 2)


def reading(rng, prompts=40, *, better=0.0):
    """Scores whose shot counts share a part of every prompt, as those of real prompts do."""
    common = rng.normal(size=(prompts, 1))
    ability = common + 0.5 * rng.normal(size=(prompts, len(SHOTS))) + better
    correct = (ability > 0.3).astype(float)
    rank = np.where(correct > 0, 1.0, 2.0 + rng.integers(9, size=ability.shape))
    return Reading(SHOTS, correct, ability - 3, rank, {}, "packed")


def text(rng, texts=20):
    tokens = rng.integers(20, 60, size=texts).astype(float)
    nll = [tokens * (2 + 0.1 * rng.normal(size=texts)) for _ in range(2)]
    divergence = tokens * np.abs(rng.normal(size=texts)) * 0.01
    return TextReading(tokens, *nll, divergence, divergence / tokens, ())


def questions(tiny_tokenizer, prompts=40):
    from ed_interp.eval.compare.questions import Questions

    population = tokenize(
        draw(builtin_task("country-capital"), prompts=prompts, shots=SHOTS), tiny_tokenizer
    )
    names = tuple(f"relation {row % 4}" for row in range(prompts))
    return Questions(population, names, None, (), (), ())


def test_nothing_raises_few_false_alarms(tiny_tokenizer):
    # Two samples of one distribution; an alarm is any effect at the corrected level. With real
    # models and 200 times: `python tests/benchmarks/bench_compare.py --null 200`.
    asked, rules = questions(tiny_tokenizer), Inference(resamples=5, permutations=1999)
    alarms = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        effects, _ = effects_of(asked, (reading(rng), reading(rng)), None, text(rng), rules)
        alarms += any(effect.verdict() != "unchanged" for effect in effects)
    assert alarms <= 3


def test_a_real_difference_is_found_in_the_same_way(tiny_tokenizer):
    asked, rules = questions(tiny_tokenizer), Inference(resamples=5, permutations=1999)
    found = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        pair = reading(rng), reading(rng, better=1.5)
        effects, _ = effects_of(asked, pair, None, text(rng), rules)
        found += any(effect.verdict() == "better" for effect in effects)
    assert found == 5


def test_identical_readings_differ_nowhere():
    one = reading(np.random.default_rng(0))
    for effect in behaviour_effects("task", (one, one), Inference(resamples=20)):
        assert effect.difference == effect.ci_low == effect.ci_high == 0
        assert effect.p_value == 1
        assert effect.verdict() == "unchanged"


def test_accuracy_is_tested_by_mcnemar():
    rng = np.random.default_rng(1)
    pair = reading(rng), reading(rng, better=0.4)
    effects = behaviour_effects("task", pair, Inference(resamples=20))
    first = next(effect for effect in effects if effect.metric == "accuracy")
    assert first.test == "McNemar"
    expected = mcnemar(pair[1].correct[:, 0] > 0.5, pair[0].correct[:, 0] > 0.5)
    assert first.p_value == expected
    assert {effect.shots for effect in effects} == set(SHOTS)
    assert len(effects) == 9


def test_prompts_of_one_query_count_as_one():
    rng = np.random.default_rng(3)
    pair = reading(rng, 10), reading(rng, 10, better=0.4)
    rules = Inference(resamples=50)
    alone = behaviour_effects("task", pair, rules)

    def repeated(found):
        parts = (np.repeat(part, 3, axis=0) for part in (found.correct, found.logprob, found.rank))
        return Reading(SHOTS, *parts, {}, "packed")

    thrice = tuple(repeated(found) for found in pair)
    clusters = [row // 3 for row in range(30)]
    together = behaviour_effects("task", thrice, rules, clusters=clusters)
    apart = behaviour_effects("task", thrice, rules)
    for once, thrice_once, thrice_apart in zip(alone, together, apart, strict=True):
        assert thrice_once.n == once.n == 10
        assert thrice_apart.n == 30
        assert thrice_once.difference == pytest.approx(once.difference)
        assert thrice_once.test == "sign-flip"
        if once.metric != "accuracy":
            assert thrice_once.p_value == once.p_value
            assert (thrice_once.ci_low, thrice_once.ci_high) == pytest.approx(
                (once.ci_low, once.ci_high)
            )


def test_queries_are_told_apart(tiny_tokenizer):
    from ed_interp.eval.compare.questions import same_query

    task = builtin_task("country-capital")
    population = tokenize(draw(task, prompts=len(task.pairs) + 5, shots=(0, 2)), tiny_tokenizer)
    assert len(set(same_query(population))) == len({source for source, _ in task.pairs})
    names = tokenize(draw(builtin_task("country"), prompts=6, shots=(2,)), tiny_tokenizer)
    assert same_query(names) == tuple(range(6))


def test_a_harmed_relation_is_named_and_the_others_are_not():
    rng = np.random.default_rng(2)
    control = reading(rng, 80)
    names = [f"relation {row % 4}" for row in range(80)]
    logprob = control.logprob + 0.02 * rng.normal(size=control.logprob.shape)
    logprob[2::4] -= 1.0
    treated = Reading(SHOTS, control.correct, logprob, control.rank, {}, "packed")
    effects = corrected(relation_effects(names, (control, treated), Inference(), watched=True))
    worse = [effect.name for effect in effects if effect.verdict() == "worse"]
    assert worse == ["relation 2"]
    assert all(effect.watched for effect in effects)


def test_holm_covers_all_families():
    effects = [
        Effect(family, "x", metric, None, 0.0, 1.0, 1.0, 0.5, 2.0, p, p, "sign-flip", 9)
        for family, metric, p in (
            ("behaviour", "logprob", 0.02),
            ("forgetting", "cross_entropy", 0.03),
        )
    ]
    assert [effect.p_holm for effect in corrected(effects)] == [0.04, 0.04]
    assert corrected(effects)[1].verdict() == "worse"
    assert corrected([]) == ()


def test_permutations_suffice_for_the_correction():
    rules = Inference(permutations=999)
    for count in (1, 50, 400):
        assert 1 / (enough_permutations(count, rules) + 1) * count < 0.05


def test_prompt_shares_of_emergence_add_up(tiny):
    subject = open_subject(tiny)
    population = tokenize(
        draw(builtin_task("country-capital"), prompts=12, shots=(0, 2)), tiny.tokenizer
    )
    found = read_prompts(subject, population, emergence=True)
    shares = found.emergence()
    assert shares.shape == (12, 2, 2)
    for column, shots in enumerate(found.shots):
        assert shares[:, :, column].mean(0) == pytest.approx(found.terms[shots].bits())
    effects = emergence_effects((found, found), Inference(resamples=20))
    assert [effect.name for effect in effects] == ["block 0"] * 2 + ["block 1"] * 2
    assert all(effect.difference == 0 for effect in effects)
    assert all(effect.p_value == 1 for effect in effects)


def test_emergence_is_tested_with_twice_the_error():
    rng = np.random.default_rng(4)

    def of(values):
        term = ShotTerms(values, np.zeros((1, 80)), np.ones(80), 6.3, 0.0, 80, (False,))
        return Reading((0,), None, None, None, {0: term}, "packed")

    base = rng.normal(size=(1, 80))
    change = 0.3 + rng.normal(size=(1, 80))
    (effect,) = emergence_effects((of(base), of(base + change)), Inference(resamples=4000))
    z = change.mean() / (2 * change.std() / np.sqrt(80))
    assert effect.test == "order two"
    assert effect.p_value == pytest.approx(2 * stats.norm.sf(z), abs=0.02)
    width = effect.ci_high - effect.ci_low
    assert width == pytest.approx(2 * 2 * 1.96 * change.std() / np.sqrt(80), rel=0.05)


def test_bad_rules_are_refused():
    from ed_interp.errors import InvalidInputError

    with pytest.raises(InvalidInputError, match=r"level must be .* got 1.0"):
        Inference(level=1.0)
    with pytest.raises(InvalidInputError, match="resamples must be 1 or greater"):
        Inference(resamples=0)
