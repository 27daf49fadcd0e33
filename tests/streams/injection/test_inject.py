"""What each intervention does to a state, per row and in which order; bad input; restoring."""

import math

import pytest
import torch

import ed_interp
from ed_interp.errors import CaptureError, InvalidInputError, UnknownNameError
from ed_interp.models.runners import Inputs
from ed_interp.streams.direction import Direction
from ed_interp.streams.injection import Ablate, Add, Clamp, Replace, Transform, Where, inject

SITE = "blocks.1.hook_resid_post"
OTHER = "blocks.0.hook_resid_post"
IDS = torch.randint(3, 101, (3, 6), generator=torch.Generator().manual_seed(4))


def vector(seed=0):
    return torch.randn(32, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def hooked(build_model):
    return ed_interp.load(build_model("llama").eval())


@pytest.fixture(scope="module")
def states(hooked):
    """The states at one site, under interventions."""

    def read(*what, site=SITE, ids=IDS, **options):
        reads = torch.arange(ids.shape[1]).expand(ids.shape[0], -1)
        with inject(hooked, *what, **options):
            found = hooked.runner.run(Inputs(ids), sites=[hooked.site(site)], reads=reads)
        return found.states[:, :, 0]

    return read


def close(one, other, tolerance=2e-5):
    return (one - other).abs().max() < tolerance


def test_no_intervention_and_zero_strength_are_exactly_nothing(states):
    plain = states()
    assert torch.equal(states(Add(vector(), SITE, coefficient=0.0)), plain)
    assert torch.equal(states(Add(vector() - vector(), SITE)), plain)
    for kind in (Ablate, Replace):
        assert torch.equal(states(kind(vector(), SITE, coefficient=0.0)), plain)
        assert torch.equal(states(kind(vector(), SITE, gate=torch.zeros(3))), plain)


def test_the_four_formulas(states):
    plain, v = states(), vector()
    u = v / v.norm()
    along = (plain @ u)[..., None]
    assert close(states(Add(v, SITE, coefficient=2.5)), plain + 2.5 * v)
    assert close(states(Ablate(v, SITE)), plain - along * u)
    assert close(states(Ablate(v * 1e-20, SITE)), plain - along * u)  # its length does not matter
    assert close(states(Ablate(v, SITE, coefficient=0.5)), plain - 0.5 * along * u)
    clamped = states(Clamp(v, SITE, value=-3.0))
    assert close(clamped, plain + (-3.0 - along) * u)
    assert close(clamped @ u, torch.tensor(-3.0))
    assert torch.equal(states(Replace(v, SITE)), v.expand_as(plain))
    assert close(states(Replace(v, SITE, coefficient=0.25)), 0.75 * plain + 0.25 * v)


def test_algebra_of_interventions(states):
    v, w = vector(), vector(1)
    assert close(states(Add(v, SITE), Add(w, SITE)), states(Add(v + w, SITE)))
    assert close(states(Add(v, SITE), Add(-v, SITE)), states())
    assert close(states(Ablate(v, SITE), Ablate(v, SITE)), states(Ablate(v, SITE)))
    assert close(states(Clamp(v, SITE, value=0.0)), states(Ablate(v, SITE)))


def test_the_order_is_that_of_the_arguments_and_of_the_contexts(states, hooked):
    v, w = vector(), vector(1)
    one = states(Replace(v, SITE), Add(w, SITE))
    assert close(one, (v + w).expand_as(one))
    assert close(states(Add(w, SITE), Replace(v, SITE)), v.expand_as(one))
    with inject(hooked, Replace(v, SITE)):
        assert close(states(Add(w, SITE)), one)
    with inject(hooked, Add(w, SITE)):
        assert close(states(Replace(v, SITE)), v.expand_as(one))
        assert close(states(), states(Add(torch.zeros(32), SITE)))
    # The same at different sites: a later site sees what an earlier one did.
    expected = states(Add(v, OTHER), site=OTHER)
    assert close(expected, states(Add(w, SITE), Add(v, OTHER), site=OTHER))


def test_everything_is_per_row(states):
    plain, v = states(), vector()
    factors = torch.tensor([0.0, 1.0, -2.0])
    found = states(Add(v, SITE, coefficient=factors))
    assert close(found, plain + factors[:, None, None] * v)
    gate = torch.tensor([True, False, True])
    assert close(states(Add(v, SITE, gate=gate)), plain + gate[:, None, None] * v)
    vectors = torch.stack([vector(seed) for seed in (1, 2, 3)])
    assert close(states(Add(vectors, SITE)), plain + vectors[:, None])
    assert close(states(Ablate(vectors, SITE))[1], states(Ablate(vectors[1], SITE))[1])
    values = torch.tensor([1.0, 2.0, 3.0])
    along = states(Clamp(v, SITE, value=values)) @ (v / v.norm())
    assert close(along, values[:, None].expand(3, 6))
    # A row does not know what happens to the others.
    assert close(found[2:], states(Add(v, SITE, coefficient=-2.0), ids=IDS[2:]))


def test_a_vector_per_position(states):
    plain = states()
    table = torch.stack([vector(seed) for seed in range(4)])[None]
    found = states(Add(table, SITE, coefficient=2.0))
    assert close(found[:, :4], plain[:, :4] + 2 * table)
    assert torch.equal(found[:, 4:], plain[:, 4:])
    per_row = torch.stack([table[0] * factor for factor in (1, 2, 3)])
    found = states(Replace(per_row, SITE, where=Where(positions=slice(1, None))))
    assert torch.equal(found[:, 1:4], per_row[:, 1:])
    assert torch.equal(found[:, 0], plain[:, 0])


def test_decay_counts_generated_tokens(states):
    plain, v = states(), vector()
    lengths = torch.tensor([2, 6, 4])
    found = states(Add(v, SITE, decay=3.0), prompt_length=lengths)
    for row, length in enumerate(lengths.tolist()):
        for position in range(6):
            strength = math.exp(-max(0, position - length + 1) / 3.0)
            assert close(found[row, position], plain[row, position] + strength * v)


def test_a_direction_writes_at_all_of_its_sites_or_at_one(states, hooked):
    vectors = {SITE: vector(), OTHER: vector(1)}
    direction = Direction.of(hooked, vectors, method="by hand")
    both = states(Add(direction))
    assert close(both, states(Add(vector(), SITE), Add(vector(1), OTHER)))
    assert close(states(Add(direction, SITE)), states(Add(vector(), SITE)))
    assert close(states(Add(-direction)), states(Add(direction, coefficient=-1.0)))


def test_a_transform_gets_states_and_selection_and_decides_only_there(states):
    plain = states()
    found = states(Transform(SITE, lambda h, chosen: h * 0 + 7.0, where=Where(positions=[1, 3])))
    assert torch.equal(found[:, [1, 3]], torch.full((3, 2, 32), 7.0))
    assert torch.equal(found[:, [0, 2, 4, 5]], plain[:, [0, 2, 4, 5]])
    with pytest.raises(InvalidInputError, match=r"the function of Transform .* must return"):
        states(Transform(SITE, lambda h, chosen: h[:, :1]))


def untouched(model):
    hooks = [module._forward_hooks or module._forward_pre_hooks for module in model.modules()]
    return not any(hooks) and "generate" not in model.__dict__


def test_the_model_is_restored_on_any_exit(states, hooked):
    plain = states()
    before = {name: tensor.clone() for name, tensor in hooked.model.state_dict().items()}
    for error in (RuntimeError("stop"), KeyboardInterrupt()):
        with pytest.raises(type(error)), inject(hooked, Add(vector(), SITE)):
            raise error
        assert untouched(hooked.model)
    with pytest.raises(ZeroDivisionError):
        states(Transform(SITE, lambda h, chosen: 1 / 0))
    with pytest.raises(InvalidInputError, match="hold"), inject(hooked, Add(vector(), SITE)):
        raise InvalidInputError("hold")
    # A pass that failed half way leaves nothing behind for the next one.
    with inject(hooked, Add(vector(), SITE)):
        with pytest.raises(IndexError), torch.no_grad():
            hooked.model(torch.tensor([[500]]))
        states()
    assert untouched(hooked.model)
    assert torch.equal(states(), plain)
    after = hooked.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


BIG = torch.full((32,), 40000.0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Add(vector(), "blocks.1.hook_residpost"), UnknownNameError, "did you mean"),
        (lambda: Add(vector(), "blocks.9.hook_resid_post"), UnknownNameError, "has 3 blocks"),
        (lambda: Add(torch.ones(31), SITE), InvalidInputError, "must have 32 numbers.*got 31"),
        (lambda: Add(torch.ones(3, 31), SITE), InvalidInputError, "got 31"),
        (lambda: Add(vector() / 0, SITE), InvalidInputError, "must be finite, got NaN"),
        (lambda: Add(vector()), InvalidInputError, "must be given a site"),
        (lambda: Add(torch.tensor(1.0), SITE), InvalidInputError, "must have the shape"),
        (lambda: Add(vector(), SITE, coefficient=math.nan), InvalidInputError, "finite, got nan"),
        (lambda: Add(vector(), SITE, gate=torch.ones(2, 2)), InvalidInputError, "one number per"),
        (
            lambda: Add(vector(), SITE, decay=0.0),
            InvalidInputError,
            "decay must be .* above 0.* got 0",
        ),
        (
            lambda: Ablate(torch.zeros(32), SITE),
            InvalidInputError,
            "must have a direction, got zeros",
        ),
        (lambda: Clamp(vector(), SITE, value=math.inf), InvalidInputError, "finite, got inf"),
        (
            lambda: Add(BIG * 1e30, SITE, coefficient=1e9),
            InvalidInputError,
            "at most .* in float32",
        ),
        (
            lambda: Add(vector(), SITE, coefficient=torch.ones(2)),
            InvalidInputError,
            "one row per prompt .3., .* got 2",
        ),
    ],
)
def test_bad_input_is_one_line_and_the_model_is_restored(make, error, message, hooked):
    with pytest.raises(error, match=message) as caught, inject(hooked, make()), torch.no_grad():
        hooked.model(IDS)
    assert "\n" not in str(caught.value)
    assert untouched(hooked.model)


def test_what_half_precision_cannot_hold_is_refused_before_use(build_model):
    half = ed_interp.load(build_model("llama").to(torch.float16))
    with (
        pytest.raises(InvalidInputError, match=r"at most 6.55e\+04 in float16, got 8e\+04"),
        inject(half, Add(BIG, SITE, coefficient=2.0)),
    ):
        raise AssertionError("not reached")
    with inject(half, Add(BIG, SITE, coefficient=1.0)), torch.no_grad():
        half.model(IDS)
    with (
        pytest.raises(InvalidInputError, match="float16"),
        inject(half, Clamp(BIG, SITE, value=7e4)),
    ):
        raise AssertionError("not reached")


def test_a_direction_of_another_model_is_refused(build_model, hooked):
    direction = Direction.of(build_model("gpt2"), {SITE: vector()}, method="by hand")
    with (
        pytest.raises(InvalidInputError, match="another architecture"),
        inject(hooked, Add(direction)),
    ):
        raise AssertionError("not reached")


def test_a_context_in_which_nothing_happens_is_an_error(build_model, hooked):
    what = Add(vector(), SITE)
    with pytest.raises(InvalidInputError, match="was not called"), inject(hooked, what):
        pass
    with inject(hooked, what, strict=False):
        pass
    with inject(hooked):
        pass
    with pytest.raises(InvalidInputError, match="was not called"), inject(hooked, what):
        build_model("llama")(IDS)  # another object


def run_without_the_last_block(model):
    model.model.layers = model.model.layers[:2]
    model.model.config.num_hidden_layers = 2
    model(IDS)


def test_hooks_that_do_not_fire_and_blocks_without_their_model_are_errors(build_model):
    model = build_model("llama").eval()
    gone = Add(vector(), "blocks.2.hook_resid_post")
    with (
        pytest.raises(CaptureError, match=r"did not fire.*blocks\.2"),
        inject(model, gone),
    ):
        run_without_the_last_block(model)
    model = build_model("gpt2").eval()
    with pytest.raises(CaptureError, match="without a forward pass"), inject(model, gone):
        model.transformer.h[2](torch.zeros(1, 3, 32))


def test_a_mask_that_cannot_belong_to_the_tokens_is_refused(build_model):
    model = build_model("llama").eval()
    with torch.no_grad():
        cache = model(IDS, use_cache=True).past_key_values
        with (
            pytest.raises(
                InvalidInputError, match="attention_mask must cover 6 cached and 2 new tokens"
            ),
            inject(model, Add(vector(), SITE)),
        ):
            model(IDS[:, :2], attention_mask=torch.ones(3, 2), past_key_values=cache)


def test_the_handle_counts_forward_passes(hooked):
    with inject(hooked, Add(vector(), SITE)) as injection, torch.no_grad():
        hooked.model(IDS)
        hooked.model(IDS)
    assert injection.calls == 2
