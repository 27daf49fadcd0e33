"""Emergence as a whole: its limits, its controls, and that nothing accidental moves it."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

import ed_interp
from ed_interp.errors import InvalidInputError, RunFolderError, UnknownNameError
from ed_interp.probes.emergence.estimators import DEFAULT_BETA
from ed_interp.prompts.population import Population, Prompt
from ed_interp.prompts.tokens import ShotTokens, TokenPopulation


def windows(prompts: int, length: int, *, vocabulary: int = 40, seed: int = 0) -> TokenPopulation:
    """Windows whose every position has the same tokens equally often: cyclic shifts of lists."""
    rng = np.random.default_rng(seed)
    columns = [rng.permutation(np.arange(prompts) % vocabulary) + 3 for _ in range(length)]
    items = tuple(
        ShotTokens((), tuple((int(column[row]),) for column in columns)) for row in range(prompts)
    )
    shots = tuple(range(1, length + 1))
    texts = tuple(Prompt(("",) * length) for _ in items)
    population = Population("windows", "text", texts, shots, None, None, None, {})
    return TokenPopulation(population, items, "whole")


class Identity(torch.nn.Module):
    """A block that passes the stream on."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner  # the child that makes it look like a block

    def forward(self, hidden_states, *args, **kwargs):
        return hidden_states


def with_identity_blocks(model, depth: int):
    """The model with its first ``depth`` blocks replaced by the identity."""
    layers = model.model.layers
    for layer in range(depth):
        layers[layer] = Identity(torch.nn.Linear(1, 1))
    kinds = {type(layer) for layer in layers}
    if len(kinds) > 1:  # keep one class per list, as in every real model
        for layer in range(depth, len(layers)):
            block = layers[layer]
            layers[layer] = Identity(block)
            layers[layer].forward = block.forward
    return model


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_identity_blocks_have_no_emergence_at_any_depth(depth, build_model):
    # Without attention the last token's state holds the last token alone: the token level.
    model = with_identity_blocks(build_model("llama"), depth)
    curve = ed_interp.emergence(model, task=windows(240, 4), beta=0.2, untrained=False)
    for row in curve.rows:
        if row.layer < depth:
            assert row.emergence == pytest.approx(0, abs=0.05)
            assert row.ci_low - 0.05 <= 0 <= row.ci_high + 0.05
        if row.layer == depth + 1 and row.shots == 4:
            # The first real block still reads the last token alone; the next one reads its mixture.
            assert row.emergence > 0.5


def test_noise_to_zero_gives_the_degenerate_limit(build_model):
    population = windows(200, 3)
    curve = ed_interp.emergence(build_model("llama"), task=population, noise=1e-4, untrained=False)
    for row in curve.rows:
        if row.layer == 0:
            continue  # block 0 reads the last token's embedding: not injective in the sequence
        assert row.emergence == pytest.approx(row.limit, abs=1e-3)
        assert row.macro == pytest.approx(row.macro_limit, abs=1e-3)
        sequences = {prompt.sequence(row.shots) for prompt in population.prompts}
        assert row.macro_limit <= math.log2(200) + 1e-9
        if len(sequences) == 200:
            assert row.macro_limit == pytest.approx(math.log2(200))
            assert "saturated" in row.flags


def test_noise_to_infinity_gives_zero(build_model):
    curve = ed_interp.emergence(
        build_model("llama"), task=windows(200, 3), noise=1e4, untrained=False
    )
    assert all(abs(row.macro) < 0.02 and abs(row.micro) < 0.02 for row in curve.rows)
    assert all("lost" in row.flags for row in curve.rows)


def test_macro_falls_with_noise(build_model):
    curve = ed_interp.emergence(
        build_model("llama"), task=windows(150, 2), noise_profile=True, untrained=False
    )
    frame = curve.profile_frame()
    for _, group in frame.groupby(["layer", "shots"]):
        macro = group.sort_values("noise")["macro"].to_numpy()
        assert (np.diff(macro) < 0.05).all()
        assert macro[0] > macro[-1] + 1
    chosen = frame[np.isclose(frame.beta, DEFAULT_BETA)].set_index(["layer", "shots"]).emergence
    expected = curve.to_frame().set_index(["layer", "shots"]).emergence
    assert np.allclose(chosen.sort_index(), expected.sort_index(), atol=1e-12)


def test_repetition_is_weight(build_model):
    """Every prompt twice is the same population: same estimates, no duplicate rows counted."""
    once = windows(120, 3)
    twice = dataclasses.replace(
        once,
        prompts=once.prompts * 2,
        population=dataclasses.replace(once.population, prompts=once.population.prompts * 2),
    )
    options = {"noise": 0.5, "untrained": False}
    one = ed_interp.emergence(build_model("llama"), task=once, **options).to_frame()
    two = ed_interp.emergence(build_model("llama"), task=twice, **options).to_frame()
    assert np.allclose(one.macro, two.macro, atol=1e-5)
    assert np.allclose(one.micro, two.micro, atol=1e-5)
    assert np.allclose(one.limit, two.limit, atol=1e-9)


def test_batch_size_and_path_change_nothing(build_model, random_prompts):
    population = random_prompts(prompts=30)
    frames = [
        ed_interp.emergence(
            build_model("llama"), task=population, path=path, batch_size=size, untrained=False
        ).to_frame()
        for path, size in [("auto", None), ("separate", 3), ("prefix", 7), ("packed", 1)]
    ]
    for other in frames[1:]:
        assert np.allclose(frames[0].emergence, other.emergence, atol=1e-4)
        assert np.allclose(frames[0].ci_low, other.ci_low, atol=1e-4)


def test_the_same_seed_gives_the_same_curve(tiny_folder):
    options = {"task": "next-letter", "shots": [0, 2], "prompts": 40, "device": "cpu"}
    one, two = (ed_interp.emergence(tiny_folder, seed=5, **options) for _ in range(2))
    assert one == two
    other = ed_interp.emergence(tiny_folder, seed=6, **options)
    assert [row.emergence for row in one.rows] != [row.emergence for row in other.rows]


def test_emergence_is_macro_minus_micro_within_its_interval(tiny_folder):
    curve = ed_interp.emergence(tiny_folder, task="country-capital", shots=[0, 3], prompts=150)
    assert curve.layers == [0, 1]
    assert curve.shots == [0, 3]
    for row in curve.rows:
        assert row.emergence == pytest.approx(row.macro - row.micro)
        assert row.ci_low <= row.emergence <= row.ci_high
        assert row.macro <= row.macro_limit + 0.05
        assert row.untrained is not None
    zero = [row for row in curve.rows if row.shots == 0]
    # 46 countries can be asked for: that many sequences at 0 shots.
    assert all(row.macro_limit <= math.log2(46) + 1e-9 for row in zero)
    assert all("few-rows" in row.flags for row in zero)


def test_behaviour_is_paired_and_has_a_chance_level(tiny_folder):
    curve = ed_interp.emergence(
        tiny_folder, task="item-category", shots=[0, 1, 4], prompts=60, untrained=False
    )
    assert [row.shots for row in curve.behaviour] == [0, 1, 4]
    first = curve.behaviour[0]
    assert (first.gain, first.gain_ci_low, first.gain_ci_high) == (0, 0, 0)
    for row in curve.behaviour:
        assert row.n == 60
        assert row.ci_low <= row.accuracy <= row.ci_high
        assert row.gain == pytest.approx(row.accuracy - first.accuracy)
        assert row.logprob < 0
        assert row.rank >= 1
        assert 0 < row.chance < 1
    assert (
        ed_interp.emergence(
            tiny_folder, task="country", shots=[1, 2], prompts=30, untrained=False
        ).behaviour
        == ()
    )


def test_intervals_cover_the_estimate_of_a_larger_sample(tiny_folder):
    """Over many small samples, the interval of E covers E of a large one, where not saturated."""
    options = {"task": "sentiment", "shots": [1], "untrained": False, "noise": 4.0}
    truth = {
        row.layer: row.emergence
        for row in ed_interp.emergence(tiny_folder, prompts=1200, seed=99, **options).rows
    }
    covered = [
        row.ci_low - 0.02 <= truth[row.layer] <= row.ci_high + 0.02
        for seed in range(12)
        for row in ed_interp.emergence(tiny_folder, prompts=150, seed=seed, **options).rows
    ]
    assert np.mean(covered) > 0.7


def test_single_tokens_run_once_each_and_at_their_position():
    from ed_interp.probes.emergence.single import single_tokens

    prompts = (
        ShotTokens((1,), ((5, 6), (7,)), ((0, (8,)), (2, (8, 9))), (4,)),
        ShotTokens((1,), ((5, 5), (7,)), ((0, (8,)), (2, (9,))), (4,)),
    )
    texts = tuple(Prompt(("", ""), "q", "a") for _ in prompts)
    population = TokenPopulation(
        Population("t", "labelled", texts, (0, 2), None, 0.5, 2, {}), prompts, "whole"
    )
    single = single_tokens(population)
    assert sorted(single.keys) == [(5, 0), (6, 0), (7, 0), (8, 0), (9, 0)]
    for shots, slots in single.by_shots.items():
        for row, prompt in enumerate(prompts):
            rows = [single.slots[slot][row] for slot in slots]
            tokens = [single.keys[index][0] for index in rows if index >= 0]
            assert sorted(tokens) == sorted(prompt.sequence(shots)[1:])
    placed = single_tokens(population, position="original")
    assert (5, 1) in placed.keys
    assert (5, 2) in placed.keys
    assert (9, 5) in placed.keys
    assert (9, 4) in placed.keys
    with pytest.raises(InvalidInputError, match="position must be zero or original"):
        # Past the type checker of the tests, as a caller without one.
        single_tokens.__wrapped__(population, position="middle")


def test_single_tokens_equal_the_models_own_single_token_pass(build_model):
    from ed_interp.probes.emergence.single import read_single_tokens, single_tokens

    model = build_model("gpt2").eval()
    hooked = ed_interp.load(model)
    population = windows(20, 3)
    site = hooked.site("blocks.2.hook_resid_post")
    for position in ("zero", "original"):
        single = single_tokens(population, position=position)
        states = read_single_tokens(hooked, single, [site])
        seen = []
        model.transformer.h[2].register_forward_hook(lambda m, a, o, seen=seen: seen.append(o))
        for index, (token, place) in itertools.islice(enumerate(single.keys), 12):
            with torch.no_grad():
                model(torch.tensor([[token]]), position_ids=torch.tensor([[place]]))
            assert torch.allclose(states[0, index], seen[-1][0, 0], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": -1.0}, "noise must be greater than 0"),
        ({"noise": float("nan")}, "noise must be a finite number"),
        ({"beta": 0.0}, "beta must be greater than 0"),
        ({"noise": 1.0, "beta": 1.0}, "not both"),
        ({"noise": 1.0, "set": ["noise=1"]}, "noise must be given once"),
        ({"estimator": "ksg", "noise": 1.0}, "noise"),
        ({"estimator": "ksg", "noise_profile": True}, "drop it"),
        ({"set": {"neighbours": 5}}, "neighbours"),
        ({"normalisation": "batch"}, "auto, layernorm, rms or none"),
        ({"single_position": "last"}, "zero or original"),
        ({"path": "fast"}, "auto, packed, prefix or separate"),
        ({"shots": [0, 300]}, "at most 24"),
        ({"shots": "0-8"}, "shots must be a sequence"),
        ({"prompts": 1}, "prompts must be 2 or greater"),
        ({"compare_estimators": "ksg"}, "compare_estimators must be a sequence"),
        ({"keep_activations": True}, "must come with out"),
        ({"template": "{input}"}, "must have {input} once"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(tiny_folder, options, message):
    with pytest.raises(InvalidInputError, match=message) as caught:
        ed_interp.emergence(tiny_folder, **{"task": "next-letter", "prompts": 20, **options})
    assert "\n" not in str(caught.value)


def test_unknown_names_list_the_nearest(tiny_folder):
    with pytest.raises(UnknownNameError, match="smoothed"):
        ed_interp.emergence(tiny_folder, task="next-letter", estimator="smooth")
    with pytest.raises(UnknownNameError, match="next-letter"):
        ed_interp.emergence(tiny_folder, task="next-leter")
    with pytest.raises(UnknownNameError, match="gaussian"):
        ed_interp.emergence(tiny_folder, task="next-letter", compare_estimators=["gausian"])
    with pytest.raises(InvalidInputError, match="did you mean untrained"):
        ed_interp.emergence(tiny_folder, untraned=False)


def test_a_task_is_a_name_an_object_pairs_or_a_population(tiny_folder):
    from ed_interp.prompts.population import draw
    from ed_interp.prompts.tasks import builtin_task

    options = {"prompts": 30, "untrained": False, "resamples": 20}
    named = ed_interp.emergence(tiny_folder, "item-category", shots=[0, 2], **options)
    task = builtin_task("item-category")
    pairs = ed_interp.emergence(tiny_folder, list(task.pairs), shots=[0, 2], **options)
    given = ed_interp.emergence(tiny_folder, task, shots=[0, 2], **options)
    drawn = ed_interp.emergence(tiny_folder, draw(task, prompts=30, shots=[0, 2]), **options)
    for other in (pairs, given, drawn):
        assert other.rows == named.rows
    assert named.settings["options"]["task"] == given.settings["options"]["task"] == "item-category"
    with pytest.raises(InvalidInputError, match="shots and template must be left out"):
        ed_interp.emergence(tiny_folder, draw(task, prompts=30, shots=[0]), shots=[0])


def test_options_of_the_estimator_reach_it(tiny_folder):
    options = {"task": "next-letter", "shots": [2], "prompts": 30, "untrained": False}
    by_name = ed_interp.emergence(tiny_folder, estimator="ksg", set={"neighbours": 5}, **options)
    assert by_name.settings["estimator"]["neighbours"] == 5
    as_text = ed_interp.emergence(tiny_folder, estimator="ksg", set=["neighbours=5"], **options)
    other = ed_interp.emergence(tiny_folder, estimator="ksg", **options)
    assert by_name.rows == as_text.rows != other.rows


def test_a_live_model_is_not_resumed_by_another(build_model, random_prompts, tmp_path, monkeypatch):
    """Its options are no more than its name, so the weights decide."""
    from ed_interp.probes.emergence import emergence as module

    population = random_prompts(prompts=20)
    options = {"task": population, "untrained": False, "resamples": 20, "out": tmp_path / "run"}
    model = build_model("llama")

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "estimate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ed_interp.emergence(model, **options)
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    with pytest.raises(RunFolderError, match="other settings"):
        ed_interp.emergence(model, **options)


def test_a_live_model_is_unchanged_and_a_peft_model_is_read_with_its_adapter(tiny_folder):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    options = {"task": "next-letter", "shots": [0, 2], "prompts": 40, "untrained": False}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain = ed_interp.emergence(model, tokenizer=tokenizer, **options)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    config = LoraConfig(
        target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM", lora_alpha=64
    )
    adapted = get_peft_model(model, config)
    fresh = ed_interp.emergence(adapted, tokenizer=tokenizer, **options)
    assert [row.emergence for row in fresh.rows] == [row.emergence for row in plain.rows]
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    trained = ed_interp.emergence(adapted, tokenizer=tokenizer, **options)
    assert [row.emergence for row in trained.rows] != [row.emergence for row in plain.rows]
