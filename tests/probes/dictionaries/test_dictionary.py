"""A dictionary in a model: splicing, directions, and what does not fit."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ed_interp.errors import InvalidInputError, UnknownNameError
from ed_interp.models.load import load
from ed_interp.probes import dictionaries
from ed_interp.probes.dictionaries.reader import Reader
from ed_interp.streams.injection import Add, Where, inject


@pytest.fixture
def ids():
    return torch.randint(3, 500, (2, 9), generator=torch.Generator().manual_seed(0))


def logits(hooked, ids):
    with torch.no_grad():
        return hooked.model(input_ids=ids).logits


def test_with_the_error_term_the_output_is_exactly_the_models(trained, hooked, ids):
    clean = logits(hooked, ids)
    with trained[0].splice(hooked, error=True) as same:
        assert same is hooked
        assert torch.equal(logits(hooked, ids), clean)
    with trained[0].splice(hooked):
        assert not torch.allclose(logits(hooked, ids), clean, atol=1e-3)
    assert torch.equal(logits(hooked, ids), clean), "the splice was not undone"


def test_spliced_is_the_reconstruction_at_the_site(trained, hooked, ids):
    dictionary, _ = trained
    seen = {}
    block = hooked.model.transformer.h[1]
    handle = block.register_forward_pre_hook(lambda _, args: seen.update(state=args[0]))
    try:
        logits(hooked, ids)
        clean = seen["state"]
        with dictionary.splice(hooked):
            logits(hooked, ids)
        torch.testing.assert_close(seen["state"], dictionary.reconstruct(clean))
        with dictionary.splice(hooked, where=Where(positions=[2, 5])):
            logits(hooked, ids)
        expected = clean.clone()
        expected[:, [2, 5]] = dictionary.reconstruct(clean)[:, [2, 5]]
        torch.testing.assert_close(seen["state"], expected)
    finally:
        handle.remove()


def test_editing_a_latent_beside_the_error_is_adding_its_direction(trained, hooked, ids):
    dictionary, _ = trained

    def more(activations):
        changed = activations.clone()
        changed[..., 7] += 3.0
        return changed

    with dictionary.splice(hooked, error=True, edit=more):
        edited = logits(hooked, ids)
    direction = dictionary.direction(7)
    direction.check(hooked)
    with inject(hooked, Add(direction, coefficient=3.0)):
        steered = logits(hooked, ids)
    torch.testing.assert_close(edited, steered, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(edited, logits(hooked, ids), atol=1e-3)


def test_the_splice_is_undone_after_an_exception(trained, hooked, ids):
    clean = logits(hooked, ids)

    def broken():
        with trained[0].splice(hooked):
            logits(hooked, ids)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert torch.equal(logits(hooked, ids), clean)


def test_directions_know_where_they_come_from(trained, hooked):
    dictionary, _ = trained
    direction = dictionary.direction(3)
    assert torch.equal(direction[dictionary.site], dictionary.decoder[3])
    assert direction.provenance.settings["feature"] == 3
    given = dictionary.direction(3, model=hooked)
    assert torch.equal(given[dictionary.site], direction[dictionary.site])
    with pytest.raises(
        InvalidInputError, match="feature must be 0 to 63 in this dictionary, got 64"
    ):
        dictionary.direction(64)
    stranger = dataclasses.replace(dictionary, stamp=None)
    with pytest.raises(InvalidInputError, match="does not know its model"):
        stranger.direction(3)


def test_a_model_of_another_width_is_refused(trained):
    dictionary, _ = trained
    with pytest.raises(
        InvalidInputError, match=r"width 32 .* does not fit icl-gpt2.* 128 channels"
    ):
        dictionary.check(load("icl-gpt2"))


def test_a_site_that_the_model_does_not_have_is_refused(trained, hooked):
    with pytest.raises(UnknownNameError, match="the model has 2 blocks"):
        trained[0].check(hooked, at="blocks.5.hook_resid_post")
    with pytest.raises(UnknownNameError, match="unknown hook point"):
        dictionaries.load(trained[1], site="blocks.0.hook_z")
    nowhere = dataclasses.replace(trained[0], site=None)
    with pytest.raises(InvalidInputError, match="names no site"):
        nowhere.check(hooked)


def test_other_weights_are_told_but_allowed(trained, tiny_model, tiny_tokenizer):
    import copy

    other = copy.deepcopy(tiny_model)
    with torch.no_grad():
        other.transformer.h[0].mlp.c_fc.weight.add_(0.1)
    changed = load(other, tokenizer=tiny_tokenizer)
    assert trained[0].check(changed) == trained[0].site
    assert "other weights" in trained[0].fits(changed)


def test_another_site_than_its_own_is_a_caution(trained, hooked):
    assert Reader.of(trained[0], hooked).settings()["cautions"] == []
    # Also where --site replaces the site that its configuration names.
    moved = dictionaries.load(trained[1], site="blocks.1.hook_resid_post")
    (caution,) = Reader.of(moved, hooked).settings()["cautions"]
    assert "trained at blocks.0.hook_resid_post, not at blocks.1.hook_resid_post" in caution


def test_widths_of_tensors_are_checked(trained):
    with pytest.raises(InvalidInputError, match="states of width 31"):
        trained[0].encode(torch.zeros(2, 31))
    with pytest.raises(InvalidInputError, match="activations of width 32"):
        trained[0].decode(torch.zeros(2, 32))


def test_the_readme_in_the_folder_loads_it(trained):
    text = (trained[1] / "README.md").read_text("utf-8")
    assert "64 latents of 32 channels" in text
    assert "SAE.load_from_disk" in text
