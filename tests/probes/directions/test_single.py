"""Directions of one prompt pair and of one feature of a dictionary."""

import types

import pytest
import torch

from ed_interp.errors import InvalidInputError
from ed_interp.probes.directions.single import activation_addition, decoder_direction
from ed_interp.streams.injection import inject

SITE = "blocks.1.hook_resid_pre"


def test_activation_addition_turns_one_prompt_into_the_other(hooked):
    """Added to the negative prompt with coefficient 1, the stream is the positive prompt's."""
    found = activation_addition(hooked, "dog France ->", "cat France ->", site=SITE)
    ids = [
        torch.tensor([hooked.tokenizer(f"{word} France ->")["input_ids"]])
        for word in ("dog", "cat")
    ]
    with torch.no_grad():
        wanted = hooked.model(ids[0]).logits
        with inject(hooked, *found.interventions()):
            turned = hooked.model(ids[1]).logits
        plain = hooked.model(ids[1]).logits
    torch.testing.assert_close(turned, wanted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(plain, wanted, atol=1e-3)


def test_the_shorter_prompt_is_lengthened(hooked):
    found = activation_addition(hooked, "dog France seven ->", "cat", site=SITE)
    assert found.vectors.shape == (found.tokens, 32)
    assert len(hooked.tokenizer("dog France seven ->")["input_ids"]) == found.tokens
    # Shorter prompts get what fits.
    with torch.no_grad(), inject(hooked, *found.interventions(2.0), strict=False):
        hooked.model(torch.tensor([[5, 6]]))


def test_activation_addition_refuses(hooked):
    with pytest.raises(InvalidInputError, match="their difference is zero"):
        activation_addition(hooked, "dog", "dog", site=SITE)
    with pytest.raises(InvalidInputError, match="is not one token"):
        activation_addition(hooked, "dog cat", "dog", site=SITE, pad="two words")


def test_a_decoder_row(hooked):
    decoder = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    decoder[4] = 0
    sae = types.SimpleNamespace(
        W_dec=decoder, cfg=types.SimpleNamespace(metadata=types.SimpleNamespace(hook_name=SITE))
    )
    found = decoder_direction(hooked, sae, 3)
    assert torch.equal(found[SITE], decoder[3])
    elsewhere = decoder_direction(hooked, sae, 3, site="blocks.0.hook_resid_post")
    assert list(elsewhere.vectors) == ["blocks.0.hook_resid_post"]
    with pytest.raises(InvalidInputError, match="features 0 to 4"):
        decoder_direction(hooked, sae, 5)
    with pytest.raises(InvalidInputError, match="dead feature"):
        decoder_direction(hooked, sae, 4)
    with pytest.raises(InvalidInputError, match="does not say where it was trained"):
        decoder_direction(hooked, types.SimpleNamespace(W_dec=decoder), 0)
    with pytest.raises(InvalidInputError, match="another model"):
        decoder_direction(hooked, types.SimpleNamespace(W_dec=decoder[:, :8]), 0, site=SITE)
    with pytest.raises(InvalidInputError, match="without a decoder"):
        decoder_direction(hooked, object(), 0, site=SITE)
