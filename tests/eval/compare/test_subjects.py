"""Subjects, cost and features: what is measured of each side beside its answers."""

import pytest
import torch

from ed_interp.errors import InvalidInputError
from ed_interp.eval.compare import compare
from ed_interp.eval.compare.cost import measure_cost, peak_bytes
from ed_interp.eval.compare.identity import clean_base
from ed_interp.eval.compare.subjects import open_subject
from ed_interp.models.sites import Site

TEXTS = ("the cat sat on the mat and saw a bird .", "one two three four five six seven .") * 4
SMALL = {
    "on": "country-capital", "prompts": 8, "shots": (0, 1), "watch": None, "emergence": False,
    "texts": TEXTS, "resamples": 20, "cost": False,
}  # fmt: skip


def test_peak_counts_what_lives_at_the_same_time():
    def work():
        first = torch.ones(1000)  # 4,000 bytes
        second = first + 1  # 8,000 together
        del first
        third = second * 2  # 8,000 together again
        return third.view(10, 100)  # no new memory

    assert peak_bytes(work) == 8000
    kept = torch.ones(5000)
    assert peak_bytes(lambda: kept.t()) == 0
    assert peak_bytes(lambda: [torch.ones(10) for _ in range(5)]) == 200


def test_cost_counts_the_adapter(tiny, adapted, lora):
    other = adapted(lora(r=3), scale=0.1)
    found = measure_cost(
        open_subject(tiny), open_subject(other), [(5, 6, 7, 8)] * 8, rounds=2, tokens=4
    )
    own = sum(p.numel() for n, p in other.model.named_parameters() if "lora_" in n)
    assert found.adapter_parameters == own == 2 * 3 * (32 + 96)
    assert found.parameters_treated == found.parameters_control + own
    assert found.checkpoint_bytes > 4 * own
    assert found.peak_bytes_treated > found.peak_bytes_control > 4 * found.parameters_control
    assert 0 < found.decode_ratio_low <= found.decode_ratio <= found.decode_ratio_high
    assert (found.decode_rounds, found.decode_tokens) == (2, 4)


def test_the_base_is_found_again_under_an_adapter(tiny, adapted, lora):
    other = adapted(lora(modules_to_save=["ln_f"]), scale=0.5)
    base = clean_base(other.model)
    state, expected = base.state_dict(), tiny.model.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_a_steered_model_is_a_subject(tiny):
    from ed_interp.adapters.steering import SteeredModel
    from ed_interp.streams.injection import Add

    vector = torch.full((32,), 3.0)
    steered = SteeredModel(tiny, (Add(vector, "blocks.0.hook_resid_post", coefficient=2.0),))
    found = compare(tiny, steered, **SMALL)
    assert found.treated["kind"] == "steered"
    assert found.treated["interventions"][0]["sites"] == ["blocks.0.hook_resid_post"]
    assert found.forgetting.divergence_mean > 0
    nothing = SteeredModel(tiny, (Add(vector, "blocks.0.hook_resid_post", coefficient=0.0),))
    assert compare(tiny, nothing, **SMALL).significant() == ()


class _Dictionary:
    """Two features: what a channel holds, and nothing at all."""

    site = Site.parse("blocks.1.hook_resid_post")

    def encode(self, states):
        return torch.stack([states[:, 3].relu(), torch.zeros(len(states))], dim=-1)


def test_the_feature_that_changed_is_found(tiny, adapted, lora):
    other = adapted(lora(), scale=0.5)
    found = compare(tiny, other, dictionary=_Dictionary(), **SMALL)
    (change,) = found.features
    assert change.feature == 0
    assert change.treated - change.control == pytest.approx(change.difference)
    assert change.ci_low <= change.difference <= change.ci_high
    # By hand, over the same tokens: every one that is followed by another.
    means = []
    for model in (tiny, other):
        sums, count = 0.0, 0
        for text in TEXTS:
            ids = torch.tensor([tiny.tokenizer(text)["input_ids"]])
            reads = torch.arange(ids.shape[1] - 1)[None]
            from ed_interp.models.runners import Inputs

            states = model.runner.run(Inputs(ids), sites=[_Dictionary.site], reads=reads).states
            sums += float(states[0, :, 0, 3].relu().sum())
            count += reads.numel()
        means.append(sums / count)
    assert (change.control, change.treated) == pytest.approx(tuple(means), rel=1e-4)
    assert compare(tiny, tiny, dictionary=_Dictionary(), **SMALL).features == ()


def test_a_dictionary_without_a_site_is_refused(tiny):
    class Lost(_Dictionary):
        site = None

    with pytest.raises(InvalidInputError, match="must say at which site"):
        compare(tiny, tiny, dictionary=Lost(), **SMALL)
    with pytest.raises(InvalidInputError, match="texts must not be empty"):
        compare(tiny, tiny, dictionary=_Dictionary(), **{**SMALL, "texts": ()})
