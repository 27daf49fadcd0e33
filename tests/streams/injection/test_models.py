"""Every kind of model: adapters, TransformerLens, threads, precisions, compiled; and capture."""

import contextlib
import threading
import warnings

import pytest
import torch

import ed_interp
from ed_interp.errors import CaptureError, InvalidInputError
from ed_interp.models.runners import Inputs
from ed_interp.streams.capture import capture
from ed_interp.streams.injection import Ablate, Add, Clamp, Replace, Transform, Where, inject

SITE = "blocks.1.hook_resid_post"


def vector(width=32, seed=0):
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))


def states_at(hooked, ids, *names):
    sites = [hooked.site(name) for name in names]
    reads = torch.arange(ids.shape[1]).expand(ids.shape[0], -1)
    return hooked.runner.run(Inputs(ids), sites=sites, reads=reads, logit_reads=reads).states


def some_ids(rows=2, width=8):
    return torch.randint(3, 101, (rows, width), generator=torch.Generator().manual_seed(3))


KINDS = ["resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"]


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "gemma3", "llama", "mistral", "qwen3"])
@pytest.mark.parametrize("kind", ["embed", *KINDS])
def test_what_is_written_stays_in_the_stream(family, kind, build_model):
    hooked = ed_interp.load(build_model(family))
    ids = some_ids()
    name = "hook_embed" if kind == "embed" else f"blocks.1.hook_{kind}"
    names = [name, *(f"blocks.1.hook_{other}" for other in KINDS)]
    before = states_at(hooked, ids, *names)
    with inject(hooked, Add(vector(), name, where=Where(positions=3))):
        after = states_at(hooked, ids, *names)
    change = after - before
    assert (change[:, 3, 0] - vector()).abs().max() < 1e-4
    assert change[:, :3].abs().max() < 1e-6  # causal
    assert change[:, 4:, 0].abs().max() < 1e-6
    pre, attention, middle, mlp, post = after[:, :, 1:].unbind(2)
    # The residual path carries it too: the block still is a sum.
    assert (pre + attention - middle).abs().max() < 1e-4
    if kind == "resid_post":  # written behind the sum
        post = post - (change[:, :, 0])
    assert (middle + mlp - post).abs().max() < 1e-4


def test_parallel_blocks_have_no_middle_to_write(build_model):
    with (
        pytest.raises(CaptureError, match="in parallel"),
        inject(build_model("neox"), Add(vector(), "blocks.0.hook_resid_mid")),
    ):
        raise AssertionError("not reached")


def test_a_middle_that_is_no_sum_is_refused(build_model):
    model = build_model("bloom").eval()  # its attention returns the stream, not a term of it
    with (
        pytest.raises(CaptureError, match="not the sum of the block's input"),
        inject(model, Add(vector(), "blocks.0.hook_resid_mid")),
    ):
        model(some_ids())


@pytest.mark.parametrize("nested", [False, True])
def test_a_middle_is_written_behind_what_leads_to_it(nested, build_model):
    hooked = ed_interp.load(build_model("llama"))
    middle = "blocks.1.hook_resid_mid"
    first = Replace(vector(seed=1), middle)
    rest = [
        Add(vector(seed=2), "blocks.1.hook_attn_out"),
        Add(vector(seed=3), "blocks.1.hook_resid_pre"),
    ]
    with contextlib.ExitStack() as stack:
        for group in ([first], rest, [Add(vector(), middle)]) if nested else [[first, *rest]]:
            stack.enter_context(inject(hooked, *group))
        found = states_at(hooked, some_ids(), middle)
    expected = vector(seed=1) + (vector() if nested else 0)
    assert (found - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("family", "paths"), [("gemma2", ["packed"]), ("llama", ["packed", "prefix"])]
)
def test_capture_reads_what_was_written_on_every_path(family, paths, build_model, random_prompts):
    model = build_model(family)
    population = random_prompts()
    names = [SITE, "blocks.2.hook_resid_post"]
    chosen = Where(positions=[0, 2]) | Where(positions=slice(5, 9))
    kinds = [Add(vector(), SITE, where=chosen), Clamp(vector(seed=1), SITE, value=2.0)]
    plain = capture(model, population, sites=names, path="separate")
    with inject(model, *kinds):
        found = {
            path: capture(model, population, sites=names, path=path)
            for path in ("separate", *paths)
        }
    separate = found["separate"]
    assert (separate[SITE] - plain[SITE]).abs().max() > 0.5
    for path in paths:
        for name in names:
            assert (found[path][name] - separate[name]).abs().max() < 1e-4
        score = found[path].scores()["logprob"] - separate.scores()["logprob"]
        assert score.abs().max() < 1e-3
    along = separate[SITE] @ (vector(seed=1) / vector(seed=1).norm())
    assert (along - 2.0).abs().max() < 1e-4


def test_ends_that_a_packed_pass_does_not_know_are_refused_and_auto_goes_round(
    build_model, random_prompts
):
    model = build_model("gpt2")
    last = Replace(vector(), SITE, where=Where(positions=-1))
    population = random_prompts()
    with inject(model, last):
        with pytest.raises(CaptureError, match="the end of the prompt is unknown"):
            capture(model, population, sites=[SITE], path="packed", answers=False)
        found = capture(model, population, sites=[SITE], answers=False)
    assert found.path == "separate"
    assert (found[SITE] - vector()).abs().max() == 0.0


def lora(model):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(task_type="CAUSAL_LM", r=4, init_lora_weights=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return get_peft_model(model, config).eval()


def test_adapters_are_steered_as_they_are(build_model):
    model = lora(build_model("gpt2"))
    ids = some_ids()
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    options = {"do_sample": False, "max_new_tokens": 4, "output_logits": True, "pad_token_id": 0}
    options["return_dict_in_generate"] = True

    def logits(ids, mask, **more):
        out = model.generate(input_ids=ids, attention_mask=mask, **options, **more).logits
        return torch.stack(out, 1)

    plain = logits(ids, mask)
    what = [
        Add(vector(), SITE, coefficient=torch.tensor([1.0, -1.0])),
        Add(vector(seed=1), SITE, where=Where(phase="generation")),
    ]
    with inject(model, *what):
        steered = logits(ids, mask)
        uncached = logits(ids, mask, use_cache=False)
    assert (steered - plain).abs().max() > 0.05
    assert (steered - uncached).abs().max() < 1e-4
    alone = [Add(vector(), SITE), what[1]]
    with inject(model, *alone):
        single = logits(ids[:1, 3:], mask[:1, 3:])
    assert (single[0] - steered[0]).abs().max() < 1e-4
    assert torch.equal(logits(ids, mask), plain)


@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PrefixTuningConfig"])
def test_virtual_tokens_have_no_position(kind, build_model):
    import peft

    config = getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(build_model("gpt2"), config).eval()
        ids = some_ids()
        mask = torch.ones_like(ids)
        mask[1, :4] = 0
        seen = []

        def look(states, selected):
            seen.append((states.shape[1], selected))
            return states

        at = [Where(positions=[0, -1]), Where(phase="generation"), Where(window=(-2, 1))]
        with inject(model, *(Transform(SITE, look, where=where) for where in at)):
            model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=3, do_sample=False,
                min_new_tokens=3, pad_token_id=0,
            )  # fmt: skip
    virtual = 5 if kind == "PromptTuningConfig" else 0
    width, ends = seen[0]
    assert width == 8 + virtual
    marked = ends[:, virtual:].nonzero().tolist()
    assert marked == [[0, 0], [0, 7], [1, 4], [1, 7]]  # the padded row begins at column 4
    assert not ends[:, :virtual].any()
    window = next(mask for width, mask in seen[1:] if width > 1)
    assert window.nonzero().tolist() == [[row, virtual + col] for row in (0, 1) for col in (6, 7)]
    # In each of the two passes behind the prompt all that was generated is selected.
    assert sum(bool(selected.all()) for width, selected in seen if width == 1) == 3


@pytest.fixture(scope="module")
def lenses():
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    hooked = ed_interp.load("icl-gpt2")
    bridge = ed_interp.to_transformer_lens(hooked)
    torch.manual_seed(0)
    config = HookedTransformerConfig(
        n_layers=2, d_model=16, n_heads=2, d_head=8, n_ctx=32, d_vocab=101, act_fn="gelu_new",
        normalization_type="LN", device="cpu", seed=0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated there, and still in use
        return hooked, bridge, HookedTransformer(config)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bridge_is_written_as_the_model_it_wraps(kind, lenses):
    hooked, bridge, _ = lenses
    ids = some_ids()
    what = [
        Add(vector(128), f"blocks.1.hook_{kind}", where=Where(positions=[1, -2])),
        Ablate(vector(128, seed=1), SITE, where=Where(tokens=[int(ids[0, 4])])),
    ]
    with torch.no_grad():
        with inject(hooked, *what):
            ours = hooked.model(ids).logits
        with inject(bridge, *what):
            theirs = bridge(ids)
        plain = bridge(ids)
    assert (ours - theirs).abs().max() < 1e-3
    assert (plain - theirs).abs().max() > 0.05


def test_a_hooked_transformer_is_written_by_all_of_its_calls(lenses):
    lens = lenses[2]
    hooked = ed_interp.load(lens)
    ids = some_ids()
    with torch.no_grad():
        plain = lens(ids)
        before = states_at(hooked, ids, SITE, "blocks.0.hook_resid_post")
        with inject(lens, Add(vector(16), SITE, where=Where(positions=slice(2, None)))):
            written = lens(ids)
            after = states_at(hooked, ids, SITE, "blocks.0.hook_resid_post")
            cached = lens.run_with_cache(ids)[1]
            early = hooked.runner.run(
                Inputs(ids), sites=[hooked.site("blocks.0.hook_resid_post")], reads=ids[:, :1] * 0
            )
            with pytest.raises(InvalidInputError, match="must be token ids"):
                lens("text")
        assert torch.equal(lens(ids), plain)
    assert "forward" not in lens.__dict__
    assert (written - plain).abs().max() > 0.01
    expected = torch.zeros(2, 8, 2, 16)
    expected[:, 2:, 0] = vector(16)
    assert (after - before - expected).abs().max() < 1e-5
    assert (cached[SITE] - after[:, :, 0]).abs().max() < 1e-6
    assert torch.equal(early.states[:, 0, 0], before[:, 0, 1])


def test_hooked_transformer_generation_knows_its_prompt(lenses):
    lens = lenses[2]
    ids = some_ids(1)
    what = Add(vector(16), SITE, coefficient=20.0, where=Where(phase="generation"))
    options = {"max_new_tokens": 5, "do_sample": False, "verbose": False, "stop_at_eos": False}
    with inject(lens, what):
        cached = lens.generate(ids, **options)
        uncached = lens.generate(ids, use_past_kv_cache=False, **options)
    assert torch.equal(cached, uncached)
    plain = lens.generate(ids, **options)
    assert torch.equal(plain[:, :9], cached[:, :9])
    assert not torch.equal(plain, cached)


def test_threads_are_not_mixed_up(build_model):
    model = build_model("gpt2").eval()
    ids = some_ids()
    with torch.no_grad():
        plain = model(ids).logits
        expected = []
        for factor in (1.0, -2.0):
            with inject(model, Add(vector(), SITE, coefficient=factor)):
                expected.append(model(ids).logits)
    found, errors = {}, []
    barrier = threading.Barrier(3)

    def work(index, factor):
        try:
            with torch.no_grad():
                for turn in range(5):
                    barrier.wait(20)
                    if factor is None:
                        found[index, turn] = model(ids).logits
                        continue
                    with inject(model, Add(vector(), SITE, coefficient=factor)):
                        found[index, turn] = model(ids).logits
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=item) for item in enumerate((1.0, -2.0, None))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for (index, _), logits in found.items():
        assert torch.equal(logits, [*expected, plain][index])
    assert "generate" not in model.__dict__
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_another_thread_is_steered_on_request_only(build_model):
    model = build_model("gpt2").eval()
    ids = some_ids()
    found = []

    def work():
        with torch.no_grad():
            found.append(model(ids).logits)

    def run(**options):
        with inject(model, Add(vector(), SITE), **options):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()

    with pytest.raises(InvalidInputError, match="all_threads=True"):
        run()
    run(all_threads=True)
    work()
    assert torch.equal(found[0], found[2])
    assert (found[1] - found[0]).abs().max() > 0.05


def test_compiled_models_are_refused(build_model):
    model = build_model("gpt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of its own
        whole = torch.compile(model)
        part = build_model("gpt2")
        part.transformer.h[0].compile()
    for compiled in (whole, part):
        with (
            pytest.raises(InvalidInputError, match=r"torch\.compile"),
            inject(compiled, Add(vector(), SITE)),
        ):
            raise AssertionError("not reached")
    with inject(whole._orig_mod, Add(vector(), SITE)), torch.no_grad():
        model(some_ids())


def test_gradient_checkpointing_is_refused(build_model):
    model = build_model("gpt2").train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its name changes between versions of transformers
        model.gradient_checkpointing_enable()
    with (
        pytest.raises(InvalidInputError, match="gradient checkpointing"),
        inject(model, Add(vector(), SITE)),
    ):
        model(some_ids())
    with inject(model, Add(vector(), SITE)), torch.no_grad():
        model(some_ids())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_keep_their_type_and_ablate_in_float32(dtype, build_model):
    hooked = ed_interp.load(build_model("llama").to(dtype))
    ids = some_ids()
    reads = torch.arange(8).expand(2, -1)
    with inject(hooked, Ablate(vector(), SITE)):
        states = hooked.runner.run(Inputs(ids), sites=[hooked.site(SITE)], reads=reads).states
        assert hooked.model(ids).logits.dtype == dtype
    unit = vector() / vector().norm()
    along = (states @ unit).abs() / states.norm(dim=-1)
    assert along.max() < {torch.bfloat16: 5e-3, torch.float16: 1e-3, torch.float64: 1e-6}[dtype]


def test_a_gradient_reaches_the_vector(build_model):
    model = build_model("gpt2").eval()
    steering = vector().requires_grad_()
    with inject(model, Add(steering, SITE, where=Where(positions=2))):
        model(some_ids()).logits[:, -1].sum().backward()
    assert steering.grad is not None
    assert steering.grad.abs().max() > 0
