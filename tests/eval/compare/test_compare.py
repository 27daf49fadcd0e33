"""Whole comparisons: a planted side effect, shared passes, and everything that is refused."""

import random

import pytest
import torch

from ed_interp import load
from ed_interp.errors import InvalidInputError, UnknownNameError
from ed_interp.eval.compare import CompareOptions, PromptOnly, compare, open_panel
from ed_interp.eval.compare.subjects import open_subject
from ed_interp.prompts.tasks import LabelledTask, builtin_task

SMALL = {"prompts": 12, "watch": None, "emergence": False, "shots": (0, 2)}
TEXTS = ("the cat sat on the mat and saw a bird .", "one two three four five six seven .") * 4
OTHERS = ("number-ordinal", "adjective-superlative", "present-gerund")
PARTS = {"cost": False, "resamples": 50, "permutations": 1999}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """An adapter trained to answer capitals at once, and to turn nouns into wrong French words.

    The other relations are rehearsed, so that the harm is where it was planted and nowhere else.
    """
    from ed_interp.adapters.training import Example, train
    from ed_interp.adapters.training.data import Part

    def turn(pair, trained):
        return (Part(f"{pair[0]} ->", False), Part(f" {pair[1]}\n", trained))

    rng = random.Random(0)
    capitals = builtin_task("country-capital").pairs
    french = builtin_task("noun-french").pairs
    examples = [Example((turn(pair, True),)) for pair in capitals]
    for name in OTHERS:
        pairs = builtin_task(name).pairs
        for pair in rng.sample(pairs, min(24, len(pairs))):
            shown = rng.sample([other for other in pairs if other != pair], 2)
            examples.append(Example((*(turn(other, False) for other in shown), turn(pair, True))))
    for source, _ in french * 2:
        shown = rng.sample([pair for pair in french if pair[0] != source], 2)
        wrong = rng.choice([target for pair, target in french if pair != source])
        examples.append(
            Example((*(turn(pair, False) for pair in shown), turn((source, wrong), True)))
        )
    folder = tmp_path_factory.mktemp("planted") / "adapter"
    train(
        "icl-gpt2",
        examples,
        out=folder,
        method="lora",
        r=4,
        max_steps=30,
        batch_size=16,
        lr_lora=5e-3,
        eval_share=0.0,
    )
    return folder


def test_a_planted_side_effect_is_found_and_named(planted):
    watch = ("noun-french", *OTHERS)
    found = compare(
        "icl-gpt2", planted, on="country-capital", prompts=48, shots=(0,), watch=watch,
        emergence=False, texts=(), **PARTS,
    )  # fmt: skip
    assert found.identity.neutral
    assert found.identity.base_is_control
    (helped,) = found.effect("behaviour", "accuracy")
    assert helped.verdict() == "better"
    relations = found.effect("relation", "logprob")
    assert min(relations, key=lambda effect: effect.difference).name == "noun-french"
    assert found.harmed()[0] == "noun-french"
    assert "noun-french" in found.headline()
    assert found.effect("relation", "accuracy", name="noun-french")[0].verdict() == "worse"


def test_an_adapter_trained_on_nothing_changes_nothing(tiny, adapted, lora):
    found = compare(tiny, adapted(lora()), on="country-capital", texts=TEXTS, **SMALL, **PARTS)
    assert found.significant() == ()
    assert all(effect.difference == 0 for effect in found.effects)
    assert found.forgetting.divergence_mean == 0
    assert "unchanged" in found.headline()


def test_nothing_is_run_twice(tiny, adapted, lora):
    other = adapted(lora(), scale=0.3)
    counted = []

    def count(module, args, kwargs):
        counted.append(kwargs["input_ids"].numel())

    hooks = [m.model.register_forward_pre_hook(count, with_kwargs=True) for m in (tiny, other)]
    try:
        # What is needed: each part of the work once for each model.
        from ed_interp.eval.compare.questions import draw_questions
        from ed_interp.probes.emergence.measure import read
        from ed_interp.streams.capture import capture

        options = CompareOptions(
            on="mixed-country", prompts=60, shots=(0, 2, 4), watch=("present-past", "noun-french"),
            texts=TEXTS, text_tokens=64,
        )  # fmt: skip
        asked = draw_questions(tiny.tokenizer, options)
        for model in (tiny, other):
            read(
                model, asked.target, position="zero", normalisation="layernorm", answers=True,
                path="packed", batch_size=None, folder=None, progress=None,
            )  # fmt: skip
            capture(model, asked.watched, path="packed")
            width = max(len(text) for text in asked.texts)
            counted.append(width * len(asked.texts))
        needed = sum(counted)
        counted.clear()
        compare(
            tiny, other, on="mixed-country", prompts=60, shots=(0, 2, 4), texts=TEXTS,
            text_tokens=64, watch=("present-past", "noun-french"), **PARTS,
        )  # fmt: skip
        assert sum(counted) <= 1.2 * needed
    finally:
        for hook in hooks:
            hook.remove()


def test_a_panel_gives_what_compare_gives_and_leaves_models_alone(tiny, adapted, lora):
    other = adapted(lora(), scale=0.3)
    prints = tiny.fingerprint, load(other.model).fingerprint
    once = compare(tiny, other, on="mixed-country", texts=TEXTS, **SMALL, **PARTS)
    panel = open_panel(tiny, on="mixed-country", texts=TEXTS, **SMALL, **PARTS)
    first, second = panel.compare(other), panel.compare(other)
    assert first == second
    assert first.effects == once.effects
    assert (load(tiny.model).fingerprint, load(other.model).fingerprint) == prints
    named = {effect.name for effect in once.effects if effect.family == "relation"}
    assert named == {task.name for task in builtin_task("mixed-country").tasks}


def test_prompt_only_is_the_prompt_put_before(tiny):
    text = "capital :\n"
    found = compare(tiny, PromptOnly(tiny, text), on="country-capital", texts=(), **SMALL, **PARTS)
    row = found.samples.iloc[0]
    assert found.treated["kind"] == "prompt"
    assert found.identity.checked is False
    panel = open_panel(tiny, on="country-capital", texts=(), **SMALL)
    prompt = panel.questions.target.prompts[0]
    before = tuple(tiny.tokenizer(text, add_special_tokens=False)["input_ids"])
    ids = torch.tensor([before + prompt.sequence(0) + prompt.answer])
    with torch.no_grad():
        table = tiny.model(input_ids=ids).logits[0].log_softmax(-1)
    start = ids.shape[1] - len(prompt.answer)
    expected = sum(float(table[start + k - 1, t]) for k, t in enumerate(prompt.answer))
    assert row["treated_logprob"] == pytest.approx(expected, abs=1e-4)
    assert row["control_logprob"] != pytest.approx(expected, abs=1e-4)


def test_steering_is_a_subject(tiny):
    from ed_interp.eval.compare.subjects import Subject
    from ed_interp.streams.injection import Add, inject

    vector = torch.full((32,), 3.0)
    site = "blocks.0.hook_resid_post"
    steered = Subject(
        "steered", "steered", tiny, scope=lambda: inject(tiny, Add(vector, site), strict=False)
    )
    found = compare(tiny, steered, on="country-capital", texts=TEXTS, **SMALL, **PARTS)
    assert found.forgetting.divergence_mean > 0
    none = Subject("none", "steered", tiny, scope=lambda: inject(tiny, strict=False))
    again = compare(tiny, none, on="country-capital", texts=TEXTS, **SMALL, **PARTS)
    assert again.significant() == ()


def test_an_adapter_that_is_not_neutral_is_refused(tiny, adapted, lora):
    config = lora(init_lora_weights=False)
    options = {"on": "country-capital", "texts": TEXTS, **SMALL, **PARTS}
    with pytest.raises(InvalidInputError, match="not neutral at the start"):
        compare(tiny, adapted(config), **options)
    found = compare(tiny, adapted(config), require_identity=False, **options)
    assert found.identity.neutral is False
    assert found.identity.largest_difference > 0


def test_an_adapter_of_another_base_is_refused(tiny, adapted, lora, tiny_model):
    other = adapted(lora())
    other.model.get_base_model().transformer.wpe.weight.data += 0.1
    with pytest.raises(InvalidInputError, match="trained on another base"):
        compare(tiny, other, on="country-capital", texts=TEXTS, **SMALL, **PARTS)


def test_a_merged_adapter_is_refused(tiny, adapted, lora):
    other = adapted(lora(), scale=0.1)
    other.model.merge_adapter()
    with pytest.raises(InvalidInputError, match="merged into its base"):
        compare(tiny, other, on="country-capital", texts=TEXTS, **SMALL, **PARTS)


def test_models_of_another_tokenizer_or_vocabulary_are_refused(tiny, build_model):
    with pytest.raises(InvalidInputError, match="same tokenizer"):
        compare(tiny, load("icl-gpt2"), on="country-capital", texts=(), **SMALL)
    with pytest.raises(InvalidInputError, match="output tokens"):
        compare(tiny, load(build_model("gpt2")), on="country-capital", texts=(), **SMALL)


def test_another_precision_is_refused(tiny, tiny_model, tiny_tokenizer):
    import copy

    half = load(copy.deepcopy(tiny_model).bfloat16(), tokenizer=tiny_tokenizer)
    with pytest.raises(InvalidInputError, match="same dtype"):
        compare(tiny, half, on="country-capital", texts=(), **SMALL)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"shots": (0, 40)}, "context window of 256"),
        ({"texts": ("a",)}, "no token to predict"),
        ({"text_tokens": 1, "texts": TEXTS}, "text_tokens must be 2 or greater"),
        ({"watch": ["present-past"], "watch_prompts": 4}, "watch_prompts must be .* got 4"),
        ({"watch": ["country"]}, "got country, without answers"),
        ({"level": 2.0}, "level must be .* got 2.0"),
        ({"prompts": 1}, "prompts must be 2 or greater, got 1"),
        ({"texts": "the cat"}, "must be texts"),
        ({"session": "mixed-country"}, "must be a single relation"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tiny, options, reason):
    with pytest.raises(InvalidInputError, match=reason) as refused:
        compare(tiny, tiny, on="country-capital", **{**SMALL, "texts": (), **options})
    assert "\n" not in str(refused.value)


def test_tasks_that_are_empty_or_unknown_are_refused(tiny):
    with pytest.raises(InvalidInputError, match="must have at least 2"):
        compare(tiny, tiny, on=[("a", "b")], texts=(), **SMALL)
    with pytest.raises(UnknownNameError, match="country-capital"):
        compare(tiny, tiny, on="country-capitol", texts=(), **SMALL)
    with pytest.raises(InvalidInputError, match="needs a text"):
        open_subject(PromptOnly(tiny, ""))
    with pytest.raises(InvalidInputError, match="nothing would be compared"):
        compare(tiny, tiny, on="country", texts=(), **{**SMALL, "shots": (1, 2)})
    with pytest.raises(InvalidInputError, match="treated must be a model"):
        compare(tiny)


def test_a_task_of_ones_own_is_its_own_relation(tiny):
    task = LabelledTask("mine", tuple((f"a{n}", f"b{n}") for n in range(8)))
    found = compare(tiny, tiny, on=task, texts=(), **SMALL, **PARTS)
    assert set(found.samples["relation"]) == {"mine"}
    assert len(found.samples) == 24
