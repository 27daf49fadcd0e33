"""The same numbers however the tokens are fed: cache, padding, chunks, beams, samples, by hand."""

import pytest
import torch

import ed_interp
from ed_interp.errors import InvalidInputError
from ed_interp.streams.injection import Ablate, Add, Clamp, Replace, Where, inject

FAMILIES = ["gpt2", "gemma2", "gemma3", "llama", "mistral", "qwen3", "neox", "opt", "phi", "bloom"]
SITE = "blocks.1.hook_resid_post"
NEW = 6
LENGTHS = (9, 4, 12)


def vector(width=32, seed=0):
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))


def prompts():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(3, 101, (length,), generator=generator) for length in LENGTHS]


def left_padded(rows, pad=0):
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for row, tokens in enumerate(rows):
        ids[row, width - len(tokens) :] = tokens
        mask[row, width - len(tokens) :] = 1
    return ids, mask


def interventions():
    """One of each kind of selection, so that any slip in a position shows."""
    return (
        Add(vector(), SITE, coefficient=0.7),
        Add(vector(seed=1), SITE, where=Where(phase="generation"), decay=2.0),
        Replace(vector(seed=2), "blocks.0.hook_resid_post", where=Where(positions=[1, -2])),
        Clamp(vector(seed=3), SITE, value=1.5, where=Where(window=(-1, 3))),
        Ablate(vector(seed=4), "blocks.0.hook_attn_out", where=~Where(positions=slice(None, 3))),
        Add(vector(seed=5), "blocks.1.hook_resid_pre", where=Where(tokens=range(3, 101, 2))),
    )


def generate(model, ids, mask, **options):
    settings = {"do_sample": False, "max_new_tokens": NEW, "min_new_tokens": NEW} | options
    out = model.generate(
        ids,
        attention_mask=mask,
        pad_token_id=0,
        output_scores=True,
        output_logits=True,
        return_dict_in_generate=True,
        **settings,
    )
    return out.sequences, torch.stack(out.logits, 1)


def steered(model, ids, mask, *, what=None, **options):
    with inject(model, *(interventions() if what is None else what)):
        return generate(model, ids, mask, **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_cached_uncached_padded_and_alone_agree(family, build_model):
    model = build_model(family).eval()
    ids, mask = left_padded(prompts())
    tokens, logits = steered(model, ids, mask)
    plain = generate(model, ids, mask)[1]
    assert (logits - plain).abs().max() > 0.05  # it does something
    again, uncached = steered(model, ids, mask, use_cache=False)
    assert torch.equal(tokens, again)
    assert (logits - uncached).abs().max() < 2e-4
    for row, prompt in enumerate(prompts()):
        alone, single = steered(model, prompt[None], torch.ones_like(prompt)[None])
        assert torch.equal(alone[0, len(prompt) :], tokens[row, ids.shape[1] :])
        assert (single[0] - logits[row]).abs().max() < 2e-4
        # Teacher forcing: one plain pass over the same tokens, told where the prompt ends.
        with inject(model, *interventions(), prompt_length=len(prompt)), torch.no_grad():
            forced = model(alone).logits[0, len(prompt) - 1 : -1]
        assert (forced - single[0]).abs().max() < 2e-4


@pytest.mark.parametrize("family", ["gpt2", "gemma3", "llama"])
@pytest.mark.parametrize("size", [1, 5])
def test_prefill_in_chunks_changes_nothing(family, size, build_model):
    model = build_model(family).eval()
    ids, mask = left_padded(prompts())
    whole = steered(model, ids, mask)[1]
    assert (steered(model, ids, mask, prefill_chunk_size=size)[1] - whole).abs().max() < 2e-4


def test_a_cache_fed_by_hand_equals_generate(build_model):
    model = build_model("llama").eval()
    prompt = prompts()[0][None]
    tokens, logits = steered(model, prompt, torch.ones_like(prompt))
    with inject(model, *interventions(), prompt_length=9), torch.no_grad():
        out = model(tokens[:, :4], use_cache=True)
        out = model(tokens[:, 4:9], past_key_values=out.past_key_values, use_cache=True)
        found = [out.logits[:, -1]]
        for step in range(NEW - 1):
            fed = tokens[:, 9 + step : 10 + step]
            out = model(fed, past_key_values=out.past_key_values, use_cache=True)
            found.append(out.logits[:, -1])
    assert (torch.stack(found, 1) - logits).abs().max() < 2e-4


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "llama"])
def test_beams_cached_uncached_and_alone_agree_in_their_scores(family, build_model):
    model = build_model(family).eval()
    ids, mask = left_padded(prompts())
    strengths = torch.tensor([0.0, 1.0, -2.0])
    what = [
        Add(vector(), SITE, coefficient=strengths),
        Add(torch.stack([vector(seed=s) for s in (5, 6, 7)]), SITE, where=Where(positions=-1)),
        Clamp(vector(seed=3), SITE, value=strengths, gate=torch.tensor([True, False, True])),
    ]
    beams = {"num_beams": 3, "num_return_sequences": 2}

    def scores(ids, mask, what, **options):
        with inject(model, *what):
            out = model.generate(
                ids,
                attention_mask=mask,
                pad_token_id=0,
                do_sample=False,
                max_new_tokens=NEW,
                min_new_tokens=NEW,
                output_scores=True,
                return_dict_in_generate=True,
                **beams,
                **options,
            )
        return out.sequences, out.sequences_scores

    tokens, found = scores(ids, mask, what)
    again, uncached = scores(ids, mask, what, use_cache=False)
    assert torch.equal(tokens, again)
    assert (found - uncached).abs().max() < 1e-4
    for row, prompt in enumerate(prompts()):
        own = [
            Add(vector(), SITE, coefficient=float(strengths[row])),
            Add(vector(seed=5 + row), SITE, where=Where(positions=-1)),
            Clamp(vector(seed=3), SITE, value=float(strengths[row]), gate=float(row != 1)),
        ]
        sequences, single = scores(prompt[None], torch.ones_like(prompt)[None], own)
        assert (single - found[2 * row : 2 * row + 2]).abs().max() < 1e-4
        assert torch.equal(sequences[:, len(prompt) :], tokens[2 * row : 2 * row + 2, -NEW:])


def test_samples_with_a_seed_are_the_same_with_and_without_cache(build_model):
    model = build_model("gpt2").eval()
    ids, mask = left_padded(prompts())
    what = [Add(vector(), SITE, coefficient=torch.tensor([0.5, 1.0, -1.0]))]
    found = []
    for cache in (True, False):
        torch.manual_seed(5)
        found.append(
            steered(
                model, ids, mask, what=what, do_sample=True, num_return_sequences=2, use_cache=cache
            )
        )
    assert torch.equal(found[0][0], found[1][0])
    assert (found[0][1] - found[1][1]).abs().max() < 2e-4
    # The two samples of a prompt share its coefficient: their first logits are equal.
    first = found[0][1][:, 0]
    assert torch.equal(first[0::2], first[1::2])
    assert not torch.equal(found[0][0][0], found[0][0][1])


def test_prompt_lookup_decoding_agrees(build_model):
    model = build_model("llama").eval()
    prompt = prompts()[1].repeat(4)[None]
    mask = torch.ones_like(prompt)
    tokens, logits = steered(model, prompt, mask)
    again, looked = steered(model, prompt, mask, prompt_lookup_num_tokens=3)
    assert torch.equal(tokens, again)
    assert (logits - looked).abs().max() < 2e-4


def test_padding_that_generate_infers_is_padding(build_model):
    model = build_model("gpt2").eval()
    ids, mask = left_padded(prompts())
    with inject(model, *interventions()):
        out = model.generate(ids, pad_token_id=0, do_sample=False, max_new_tokens=NEW)
    assert torch.equal(out[:, :], steered(model, ids, mask, min_new_tokens=None)[0])


def test_a_static_cache_agrees(build_model):
    model = build_model("llama").eval()
    ids, mask = left_padded(prompts())
    whole = steered(model, ids, mask)[1]
    static = steered(model, ids, mask, cache_implementation="static")[1]
    assert (whole - static).abs().max() < 2e-4


def test_rows_that_do_not_fit_the_batch_are_refused_and_the_model_restored(build_model):
    model = build_model("gpt2").eval()
    ids, mask = left_padded([prompts()[0]] * 4)
    before = generate(model, ids, mask)[1]
    with (
        pytest.raises(InvalidInputError, match=r"one row per prompt \(4\), .* got 2"),
        inject(model, Add(vector(), SITE, coefficient=torch.tensor([1.0, 2.0]))),
    ):
        generate(model, ids, mask)
    assert torch.equal(generate(model, ids, mask)[1], before)
    assert "generate" not in model.__dict__


def test_guidance_is_refused(build_model):
    model = build_model("gpt2").eval()
    with (
        pytest.raises(InvalidInputError, match="guidance_scale"),
        inject(model, Add(vector(), SITE)),
    ):
        model.generate(prompts()[0][None], guidance_scale=2.0, max_new_tokens=2, pad_token_id=0)


def test_the_context_knows_a_bundled_model_by_text():
    hooked = ed_interp.load("icl-gpt2")
    ids = hooked.tokenizer("a", return_tensors="pt").input_ids
    direction = vector(hooked.d_model)
    with inject(hooked, Add(direction, SITE, coefficient=0.0)):
        zero = generate(hooked.model, ids, torch.ones_like(ids))[1]
    assert torch.equal(zero, generate(hooked.model, ids, torch.ones_like(ids))[1])
