"""Directions from pairs: against the model's own states, each other, and another library."""

import dataclasses
import math

import pytest
import torch

from ed_interp.errors import InvalidInputError, UnknownNameError
from ed_interp.probes.directions.find import DirectionSummary, find_direction
from ed_interp.probes.directions.methods import METHODS, LogisticProbe, Method, get_method, register
from ed_interp.probes.directions.pairs import Contrast, Text, read_states


@pytest.fixture(scope="module")
def states(hooked, contrast):
    return read_states(hooked, contrast)


def test_states_are_the_models_own(hooked, contrast, states):
    for row, text in enumerate(contrast.positive):
        ids = torch.tensor([hooked.tokenizer(text.text)["input_ids"]])
        with torch.no_grad():
            hidden = hooked.model(ids, output_hidden_states=True).hidden_states[1][0, -1]
        torch.testing.assert_close(states.positive[row, 0], hidden, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_batches_change_nothing(hooked, contrast, states, size):
    again = read_states(hooked, contrast, batch_size=size)
    torch.testing.assert_close(again.positive, states.positive, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again.negative, states.negative, atol=1e-5, rtol=1e-5)


def test_where_a_text_is_read(hooked):
    def read(text, place):
        contrast = Contrast.of([(Text(text, place), Text("cat dog"))])
        return read_states(hooked, contrast).positive[0]

    # What stands behind the token that is read has no say.
    torch.testing.assert_close(read("France -> Paris", "France"), read("France", -1))
    ids = hooked.tokenizer("France -> Paris")["input_ids"]
    torch.testing.assert_close(read("France -> Paris", len(ids) - 1), read("France -> Paris", -1))
    with pytest.raises(InvalidInputError, match="read must be a part of"):
        read("France", "Spain")
    with pytest.raises(
        InvalidInputError, match=r"read must be -\d+ to \d+, the tokens of .* got 99"
    ):
        read("France", 99)


def test_mean_difference_equals_steering_vectors(hooked, contrast):
    pytest.importorskip("steering_vectors", reason="steering-vectors is an oracle for developers")
    import warnings

    from steering_vectors import train_steering_vector

    pairs = [(positive.text, negative.text) for positive, negative in contrast.pairs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = train_steering_vector(hooked.model, hooked.tokenizer, pairs, batch_size=4)
    ours = find_direction(hooked, contrast)
    for site in ours.sites:
        off = (theirs.layer_activations[site.layer] - ours[site]).abs().max()
        assert float(off) <= 1e-6


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_has_one_scale_and_sign(hooked, contrast, states, method):
    found = find_direction(hooked, states, method=method)
    for place, site in enumerate(states.sites):
        vector = found[site].double()
        gap = states.gap[place]
        # Added once, it moves the mean along itself from one class to the other.
        assert math.isclose(float(vector @ vector), float(gap @ vector), rel_tol=1e-4)
    swapped = Contrast.of([pair[::-1] for pair in contrast.pairs])
    other = find_direction(hooked, swapped, method=method)
    assert all(value < -0.99 for value in other.cosine(found).values())


def test_probes_separate_what_they_were_fitted_to(hooked, states):
    for method in ("logistic", "lda", "whitened"):
        found = find_direction(hooked, states, method=method)
        for place, site in enumerate(states.sites):
            along = [side[:, place] @ found[site] for side in (states.positive, states.negative)]
            assert float((along[0] > along[1]).float().mean()) > 0.9, (method, site)


def test_principal_direction_of_one_line(states):
    import dataclasses

    line = torch.randn(1, 2, 32, generator=torch.Generator().manual_seed(0))
    amounts = torch.linspace(0.5, 2, 14)[:, None, None]
    made = dataclasses.replace(states, positive=states.negative + amounts * line)
    found = METHODS["pca"]().vectors(made)
    cosine = torch.cosine_similarity(found, line[0].double(), dim=-1)
    assert torch.allclose(cosine, torch.ones_like(cosine), atol=1e-6)


def test_a_method_is_registered_by_a_decorator(hooked, states, monkeypatch):
    monkeypatch.setattr("ed_interp.probes.directions.methods.METHODS", dict(METHODS))

    @register("first_text")
    class FirstText(Method):
        label, citation = "the first text", "nobody"

        def at_site(self, states, place):
            return (states.positive[0] - states.negative[0])[place].double()

    made = find_direction(hooked, states, method="first_text")
    assert made.provenance.method == "first_text"
    difference = states.positive[0, 0] - states.negative[0, 0]
    cosine = torch.cosine_similarity(made[states.sites[0]], difference, dim=0)
    assert abs(float(cosine)) == pytest.approx(1.0, abs=1e-5)


def test_what_is_recorded(hooked, contrast, tmp_path):
    from ed_interp.streams.direction import Direction

    found = find_direction(
        hooked, contrast, method=LogisticProbe(penalty_c=0.1), sites=["blocks.1.hook_resid_pre"]
    )
    kept = Direction.load(found.save(tmp_path / "d.safetensors"))
    assert kept.provenance.data == contrast.fingerprint
    assert kept.provenance.settings["penalty_c"] == 0.1
    facts = DirectionSummary.of(kept).facts()
    assert list(DirectionSummary.of(found).facts().items()) == list(facts.items())
    unknown = dataclasses.replace(kept.provenance, data=None)
    known = DirectionSummary.of(dataclasses.replace(kept, provenance=unknown)).facts()
    assert known == {name: value for name, value in facts.items() if name != "data"}
    site = kept.sites[0]
    again = find_direction(hooked, contrast, method="logistic", sites=site, set=["penalty_c=0.1"])
    assert torch.equal(again[site], kept[site])
    assert list(kept.vectors) == ["blocks.1.hook_resid_pre"]


def test_equal_states_have_no_direction(hooked):
    # The texts differ behind the token that is read only.
    same = Contrast.of([(Text("dog cat", 0), Text("dog walk", 0))])
    with pytest.raises(InvalidInputError, match=r"same mean at blocks\.0\.hook_resid_post"):
        find_direction(hooked, same)


def test_what_is_asked_wrongly(hooked, contrast, states):
    with pytest.raises(UnknownNameError, match="unknown method 'mean'; did you mean"):
        find_direction(hooked, contrast, method="mean")
    with pytest.raises(UnknownNameError, match="unknown hook point"):
        find_direction(hooked, contrast, sites=["blocks.0.resid"])
    with pytest.raises(InvalidInputError, match="one or more, each once, got none"):
        find_direction(hooked, contrast, sites=[])
    with pytest.raises(InvalidInputError, match="depth must be a setting of LogisticProbe"):
        get_method("logistic", depth=3)
    with pytest.raises(InvalidInputError, match="MeanDifference; its settings are none"):
        get_method("mean_difference", depth=3)
    with pytest.raises(InvalidInputError, match="depth must be a setting of find_direction"):
        find_direction(hooked, states, depth=3)
    with pytest.raises(InvalidInputError, match=r"penalty_c must be greater than 0, got 0\.0"):
        find_direction(hooked, states, method="logistic", set=["penalty_c=0.0"])
    with pytest.raises(InvalidInputError, match="do not apply to states already read"):
        find_direction(hooked, states, batch_size=3)
    with pytest.raises(
        InvalidInputError, match="pairs must be given with method pca, and task must not"
    ):
        find_direction(hooked, states, method="pca", task="country-capital")
    unpaired = Contrast.unpaired(["dog big ->", "cat big ->"], ["walk small ->"])
    with pytest.raises(InvalidInputError, match="must be pairs"):
        find_direction(hooked, unpaired, method="pca")
    assert find_direction(hooked, unpaired).d_model == 32


def test_nan_weights_are_named(tiny_model, tiny_tokenizer, contrast):
    import copy

    import ed_interp
    from ed_interp.errors import CaptureError

    broken = copy.deepcopy(tiny_model)
    broken.transformer.h[0].mlp.c_fc.weight.data[0, 0] = math.nan
    with pytest.raises(CaptureError, match=r"transformer\.h\.0\.mlp\.c_fc\.weight"):
        find_direction(ed_interp.load(broken, tokenizer=tiny_tokenizer), contrast)
