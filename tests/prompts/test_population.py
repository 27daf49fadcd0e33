"""Populations: seeded, balanced, without the query, and counted exactly."""

import collections
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ed_interp.errors import InvalidInputError, UnknownNameError
from ed_interp.prompts.population import _demonstrations, _labelled_size, draw
from ed_interp.prompts.tasks import (
    LabelledTask,
    ListTask,
    MixedTask,
    Template,
    as_task,
    builtin_task,
    task_names,
)


def labelled(*labels: str) -> LabelledTask:
    return LabelledTask("test", tuple((f"word{n}", label) for n, label in enumerate(labels)))


def test_the_same_seed_draws_the_same_population():
    task = builtin_task("country-capital")
    one, two = (draw(task, prompts=50, seed=3) for _ in range(2))
    assert one == two
    assert one.fingerprint == two.fingerprint
    assert draw(task, prompts=50, seed=4).fingerprint != one.fingerprint


@pytest.mark.parametrize("name", task_names())
def test_every_builtin_task_draws(name):
    task = builtin_task(name)
    shots = [1, 2] if isinstance(task, ListTask) else [0, 2]
    population = draw(task, prompts=20, shots=shots)
    assert len(population) == 20
    # Tasks of a mixture may share pairs, and prompts with them: then the size is not known.
    assert population.exact_size is None or population.exact_size > 20
    assert all(len(prompt.demonstrations) == 2 for prompt in population.prompts)


def test_lists_have_the_papers_counts():
    # SCIENCE of the emergence paper: 25 countries, 16 animals, 15 colours.
    for name, entities, shots, size in [
        ("country", 25, 4, 303_600),
        ("animal", 16, 5, 524_160),
        ("colour", 15, 5, 360_360),
    ]:
        task = builtin_task(name)
        assert len(task.entities) == entities
        assert draw(task, prompts=10, shots=[shots]).exact_size == size


def test_a_demonstration_is_never_the_query_and_never_repeated():
    for name in ("country-capital", "sentiment", "item-category"):
        task = builtin_task(name)
        for prompt in draw(task, prompts=200, shots=[8]).prompts:
            shown = [demo.split(" -> ")[0] for demo in prompt.demonstrations]
            assert prompt.query.removesuffix(" ->") not in shown
            assert len(set(shown)) == 8


def test_queries_go_round_all_pairs():
    task = builtin_task("next-letter")
    asked = collections.Counter(
        prompt.query for prompt in draw(task, prompts=60, shots=[0]).prompts
    )
    assert len(asked) == 25
    assert set(asked.values()) == {2, 3}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=6, max_size=20), st.randoms())
def test_every_prefix_is_as_balanced_as_it_can_be(labels, rng):
    task = labelled(*labels)
    query, answer = task.pairs[0]
    count = len(labels) - 1
    chosen = _demonstrations(task.pairs, query, count, rng)
    assert sorted(chosen) == list(range(1, len(labels)))
    left = collections.Counter(labels)
    left[answer] -= 1
    shown: collections.Counter[str] = collections.Counter()
    for index in chosen:
        output = task.pairs[index][1]
        open_labels = [label for label in left if left[label] > shown[label]]
        assert shown[output] == min(shown[label] for label in open_labels)
        shown[output] += 1


@pytest.mark.parametrize("labels", ["aabb", "abca", "aaabbc", "abcd", "aaaab"])
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_exact_size_equals_enumeration(labels, count):
    task = labelled(*labels)
    expected = 0
    for query in range(len(labels)):
        others = [index for index in range(len(labels)) if index != query]
        for order in itertools.permutations(others, count):
            shown: collections.Counter[str] = collections.Counter()
            total = collections.Counter(labels[index] for index in others)
            legal = True
            for index in order:
                free = [label for label in total if total[label] > shown[label]]
                legal &= shown[labels[index]] == min(shown[label] for label in free)
                shown[labels[index]] += 1
            expected += legal
    assert _labelled_size(task, count) == expected


def test_small_list_populations_are_taken_whole_and_once():
    task = ListTask("abcd", tuple("abcd"))
    population = draw(task, prompts=500, shots=[1, 3])
    assert population.exact_size == len(population) == len(set(population.prompts)) == 24


def test_chance_is_the_most_common_answers_frequency():
    task = labelled("a", "a", "a", "b")
    assert draw(task, prompts=40, shots=[0]).chance == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("country", {"shots": [26]}, "25 entities"),
        ("country", {"shots": [0, 1]}, "start at 1"),
        ("country-capital", {"shots": [46]}, "at most 45"),
        ("country-capital", {"shots": []}, "one or more counts"),
        ("country-capital", {"shots": [-1, 2]}, "0 or greater"),
        ("country-capital", {"prompts": 1}, "2 or greater"),
    ],
)
def test_what_cannot_be_drawn_says_so(task, options, message):
    with pytest.raises(InvalidInputError, match=message):
        draw(builtin_task(task), **options)


def test_repeated_inputs_leave_fewer_to_show():
    task = LabelledTask("twice", (("a", "1"), ("a", "2"), ("b", "1")))
    assert draw(task, prompts=3, shots=[1]).exact_size is None
    with pytest.raises(InvalidInputError, match="at most 1"):
        draw(task, prompts=3, shots=[2])


def test_unknown_task_names_the_nearest():
    with pytest.raises(UnknownNameError, match="country-capital"):
        builtin_task("country-capitol")


@pytest.mark.parametrize("text", ["{input}", "{output} {input}", "{input} {input} {output}", "x"])
def test_templates_without_their_places_are_refused(text):
    with pytest.raises(InvalidInputError, match="input"):
        Template(text)


def test_templates_keep_braces_of_the_input():
    template = Template("Q: {input}\nA: {output}\n\n")
    assert template.demonstration("{output}", "{x}") == "Q: {output}\nA: {x}\n\n"
    assert template.query("{output}") + template.answer("{x}") == "Q: {output}\nA: {x}"


def test_pairs_are_a_task_and_empty_cells_are_not():
    assert as_task([("a", "b"), ("c", "d")]).answers == {"b": 1, "d": 1}
    with pytest.raises(InvalidInputError, match="output is empty"):
        as_task([("a", "b"), ("c", " ")])
    with pytest.raises(InvalidInputError, match="at least 2"):
        as_task([("a", "b")])


def test_mixed_tasks_take_turns_and_keep_to_one_relation_a_prompt():
    mixed = builtin_task("mixed-country")
    population = draw(mixed, prompts=42, shots=[0, 3])
    known = [set(member.pairs) for member in mixed.tasks]
    used = []
    for prompt in population.prompts:
        shown = {tuple(demo.strip().split(" -> ")) for demo in prompt.demonstrations}
        asked = (prompt.query.removesuffix(" ->"), prompt.answer.strip())
        fits = [n for n, pairs in enumerate(known) if shown | {asked} <= pairs]
        assert fits
        used.append(fits[0])
    assert set(used) == {0, 1, 2, 3}
    # French is both a language and a nationality: prompts may coincide, so no exact size.
    assert population.exact_size is None
    assert len(draw(mixed, prompts=3, shots=[1]).prompts) == 3


def test_mixed_sizes_add_up_where_no_pair_is_shared():
    members = tuple(
        LabelledTask(name, tuple((word, name + word) for word in "abcd")) for name in ("x", "y")
    )
    mixed = MixedTask("both", members)
    assert draw(mixed, prompts=5, shots=[2]).exact_size == 2 * 4 * 3 * 2
    with pytest.raises(InvalidInputError, match="at least 2 tasks"):
        MixedTask("one", members[:1])
    shaped = as_task(mixed, template="{input}={output};")
    assert draw(shaped, prompts=2, shots=[1]).prompts[0].query.endswith("=")
