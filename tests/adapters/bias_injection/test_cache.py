"""States live in the cache: cached equals uncached, on logits, for adapters that do something."""

import pytest
import torch
from transformers import DynamicCache, StaticCache

from ed_interp.adapters.bias_injection.state import CROP_REACH, NodeStates
from ed_interp.errors import InvalidInputError

CHUNKS = [[9, 5], [3, 4, 1, 1, 5]]
GENERATION = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}


def in_chunks(model, padded, sizes, cache=None, after=None):
    """Logits of the tokens given in chunks, with the cache."""
    ids, mask, positions = padded
    found, done = [], 0
    for size in sizes:
        here = slice(done, done + size)
        output = model(
            input_ids=ids[:, here],
            attention_mask=mask[:, : done + size],
            position_ids=positions[:, here],
            past_key_values=cache,
            use_cache=True,
        )
        cache, done = output.past_key_values, done + size
        found.append(output.logits)
        if after is not None:
            after(next(layer for layer in cache.layers if isinstance(layer, NodeStates)))
    return torch.cat(found, 1)


def whole(model, padded):
    ids, mask, positions = padded
    return model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits


def off(one, other, mask):
    width = min(one.shape[1], other.shape[1])
    return float(((one[:, :width] - other[:, :width]).abs() * mask[:, :width, None]).max())


def scores(model, padded, **options):
    ids, mask, _ = padded
    output = model.generate(
        input_ids=ids,
        attention_mask=mask,
        output_scores=True,
        return_dict_in_generate=True,
        **GENERATION,
        **options,
    )
    return torch.stack(output.scores).nan_to_num(neginf=0.0)


@pytest.mark.parametrize(
    ("family", "feedback"),
    [("gpt2", "input"), ("llama", "input"), ("gemma2", "input"), ("gemma3", "input"),
     ("gpt2", "output")],
)  # fmt: skip
@torch.no_grad()
def test_chunks_are_the_whole_and_need_their_states(adapted, padded, family, feedback):
    model = adapted(family, feedback=feedback)
    expected, mask = whole(model, padded), padded[1]
    for sizes in CHUNKS:
        assert off(in_chunks(model, padded, sizes), expected, mask) < 1e-4, sizes

    def drop(states):
        states.states = {key: torch.zeros_like(value) for key, value in states.states.items()}

    # The states matter: without them the same call is far off.
    assert off(in_chunks(model, padded, CHUNKS[0], after=drop), expected, mask) > 0.1


@torch.no_grad()
def test_a_padded_row_is_what_it_is_alone(adapted, padded):
    ids, mask, _ = padded
    model = adapted("llama")
    both = model(input_ids=ids, attention_mask=mask).logits
    alone = model(input_ids=ids[1:2, 5:]).logits
    torch.testing.assert_close(both[1:2, 5:], alone, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_holes_leave_the_states_as_they_are(adapted):
    model = adapted("llama")
    ids = torch.randint(3, 101, (1, 8), generator=torch.Generator().manual_seed(3))
    mask = torch.tensor([[1, 1, 0, 0, 1, 1, 0, 1]])
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    kept = mask[0].bool()
    holes = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, kept]
    alone = model(input_ids=ids[:, kept]).logits
    torch.testing.assert_close(holes, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
@torch.no_grad()
def test_generation_scores_do_not_depend_on_the_cache(adapted, padded, family):
    model = adapted(family)
    expected = scores(model, padded, use_cache=False)
    static = {"cache_implementation": "static"}
    for options in ({}, {"prefill_chunk_size": 4}, *([static] if family == "gpt2" else [])):
        torch.testing.assert_close(scores(model, padded, **options), expected, atol=1e-4, rtol=0)
    beams = scores(model, padded, num_beams=3)
    expected = scores(model, padded, num_beams=3, use_cache=False)
    torch.testing.assert_close(beams, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_static_cache_with_left_padding(adapted, padded):
    model = adapted("llama")
    cache = StaticCache(config=model.get_base_model().config, max_cache_len=32)
    found = in_chunks(model, padded, [9, 1, 1, 3], cache=cache)
    assert off(found, whole(model, padded), padded[1]) < 1e-4


@torch.no_grad()
def test_assisted_decoding_as_model_and_as_assistant(adapted, build_model):
    model, plain = adapted("gpt2"), build_model("gpt2").eval()
    plain.generation_config.pad_token_id = 0
    ids = torch.randint(3, 101, (1, 12), generator=torch.Generator().manual_seed(2))
    lengths = {"max_new_tokens": 9, "do_sample": False}
    expected = model.generate(input_ids=ids, **lengths)
    assert torch.equal(
        model.generate(input_ids=ids, **lengths, prompt_lookup_num_tokens=3), expected
    )
    assert torch.equal(model.generate(input_ids=ids, **lengths, assistant_model=plain), expected)
    expected = plain.generate(input_ids=ids, **lengths)
    assert torch.equal(plain.generate(input_ids=ids, **lengths, assistant_model=model), expected)


@torch.no_grad()
def test_cropping_takes_states_back(adapted, padded):
    ids, _, _ = padded
    model = adapted("llama")
    cache = model(input_ids=ids[:, :9], use_cache=True).past_key_values
    model(input_ids=ids[:, 9:10], past_key_values=cache)
    cache.crop(-4)
    again = model(input_ids=ids[:, 6:], past_key_values=cache).logits
    torch.testing.assert_close(again, model(input_ids=ids).logits[:, 6:], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_cropping_too_far_is_refused(adapted):
    model = adapted("llama")
    ids = torch.randint(3, 101, (1, CROP_REACH + 30))
    cache = model(input_ids=ids, use_cache=True).past_key_values
    with pytest.raises(InvalidInputError, match="cannot crop the cache by 80 tokens"):
        cache.crop(-80)


@torch.no_grad()
def test_a_reset_cache_starts_from_nothing(adapted, padded):
    ids, _, _ = padded
    model = adapted("llama")
    cache = StaticCache(config=model.get_base_model().config, max_cache_len=32)
    first = model(input_ids=ids, past_key_values=cache).logits
    cache.reset()
    torch.testing.assert_close(model(input_ids=ids, past_key_values=cache).logits, first)


@torch.no_grad()
def test_a_repeated_prefix_serves_several_continuations(adapted, padded):
    ids, _, _ = padded
    model = adapted("gpt2")
    cache = model(input_ids=ids[:1, :8], use_cache=True).past_key_values
    cache.batch_repeat_interleave(3)
    tails = ids[:, 8:]
    found = model(input_ids=tails, past_key_values=cache).logits
    sequences = torch.cat([ids[:1, :8].expand(3, -1), tails], 1)
    torch.testing.assert_close(
        found, model(input_ids=sequences).logits[:, 8:], atol=1e-5, rtol=1e-4
    )


@torch.no_grad()
def test_a_cache_filled_without_the_adapter_is_refused(adapted, padded):
    ids, _, _ = padded
    model = adapted("gpt2")
    with model.disable_adapter():
        cache = model(input_ids=ids[:, :5], use_cache=True).past_key_values
    with pytest.raises(InvalidInputError, match="filled while this adapter was off"):
        model(input_ids=ids[:, 5:], past_key_values=cache)
    # One step without the adapter in between, too.
    cache = model(input_ids=ids[:, :5], use_cache=True).past_key_values
    with model.disable_adapter():
        model(input_ids=ids[:, 5:6], past_key_values=cache)
    with pytest.raises(InvalidInputError, match="filled while this adapter was off"):
        model(input_ids=ids[:, 6:], past_key_values=cache)


@torch.no_grad()
def test_another_batch_or_a_hidden_past_is_refused(adapted, padded):
    ids, _, _ = padded
    model = adapted("gpt2")
    cache = model(input_ids=ids[:1, :5], use_cache=True).past_key_values
    with pytest.raises(InvalidInputError, match="3 sequences"):
        model(input_ids=ids[:, 5:], past_key_values=cache)
    cache = model(input_ids=ids[:, :5], use_cache=True).past_key_values
    mask = torch.ones_like(ids)
    mask[0, 3:5] = 0
    with pytest.raises(InvalidInputError, match="hides cached tokens"):
        model(input_ids=ids[:, 5:], attention_mask=mask, past_key_values=cache)


def test_an_error_leaves_no_frame_behind(adapted, padded):
    from ed_interp.adapters.bias_injection.state import FRAME

    model = adapted("gpt2")
    with pytest.raises(IndexError):
        model(input_ids=torch.tensor([[5000]]))
    assert FRAME.get() is None
    cache = DynamicCache()
    model(input_ids=padded[0], past_key_values=cache)
    assert FRAME.get() is None
