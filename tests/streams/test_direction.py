"""Directions: algebra, provenance, where they belong."""

import copy

import pytest
import torch

import ed_interp
from ed_interp.errors import CaptureError, InvalidInputError, UnknownNameError
from ed_interp.streams.direction import Direction, mean_of

ONE, TWO = "blocks.0.hook_resid_post", "blocks.1.hook_attn_out"


@pytest.fixture(scope="module")
def hooked(build_model):
    return ed_interp.load(build_model("llama"))


@pytest.fixture(scope="module")
def make(hooked):
    def build(seed=0, sites=(ONE, TWO), **options):
        generator = torch.Generator().manual_seed(seed)
        vectors = {site: torch.randn(32, generator=generator) for site in sites}
        return Direction.of(hooked, vectors, method=f"made {seed}", **options)

    return build


def same(one, other, tolerance=1e-6):
    assert list(one.vectors) == list(other.vectors)
    return all((one[site] - other[site]).abs().max() < tolerance for site in one.vectors)


def test_algebra(make):
    a, b, c = (make(seed) for seed in range(3))
    assert same(a + b, b + a)
    assert same((a + b) - b, a)
    assert same(a - a, a * 0.0)
    assert same(2 * a, a + a)
    assert same(a / 4, 0.25 * a)
    assert same(-a + a + a, a)
    assert same(3 * (a - b), 3 * a - 3 * b, 1e-5)
    assert same(mean_of([a, b, c]), (a + b + c) / 3)
    assert a.unit().norm() == pytest.approx({ONE: 1.0, TWO: 1.0})


def test_projection_and_cosine(make):
    a, b = make(0), make(1)
    along, away = a.projected_on(b), a.away_from(b)
    assert same(along + away, a)
    assert all(abs(value) < 1e-6 for value in away.cosine(b).values())
    assert all(abs(abs(value) - 1) < 1e-6 for value in along.cosine(b).values())
    assert same(along.projected_on(b), along, 1e-5)
    assert same(a.projected_on(5 * b), along, 1e-5)  # its length does not matter
    assert a.cosine(a) == pytest.approx({ONE: 1.0, TWO: 1.0})
    assert a.cosine(-2 * a) == pytest.approx({ONE: -1.0, TWO: -1.0})
    squares = {site: a.norm()[site] ** 2 for site in (ONE, TWO)}
    parts = {site: along.norm()[site] ** 2 + away.norm()[site] ** 2 for site in (ONE, TWO)}
    assert parts == pytest.approx(squares)


def test_a_result_says_what_it_was_made_of(make):
    a, b = make(0, data="abc"), make(1, settings={"pairs": 7})
    made = 2.0 * (a - b)
    assert made.provenance.method == "2 * (made 0 - made 1)"
    (difference,) = made.provenance.of
    assert [part.method for part in difference.of] == ["made 0", "made 1"]
    assert difference.of[0].data == "abc"
    assert difference.of[1].settings == {"pairs": 7}
    assert made.provenance.model.fingerprint == a.provenance.model.fingerprint


def test_sites_are_in_order_of_depth_and_can_be_restricted(make):
    direction = make(0, sites=(TWO, ONE))
    assert [site.name for site in direction.sites] == sorted([ONE, TWO])
    assert list(direction.restricted(TWO).vectors) == [TWO]
    assert torch.equal(direction.restricted(TWO)[TWO], direction[TWO])
    with pytest.raises(InvalidInputError, match=r"no vector at blocks\.2.*choose from"):
        direction.restricted("blocks.2.hook_resid_post")
    with pytest.raises(InvalidInputError, match="one site or more"):
        direction.restricted()


def test_it_shows_itself(make):
    direction = make(0)
    frame = direction.to_frame()
    assert list(frame["site"]) == list(direction.vectors)
    assert frame["norm"].tolist() == pytest.approx(list(direction.norm().values()))
    assert ONE in direction._repr_html_()
    assert "made 0" in repr(direction)


def test_the_vectors_cannot_be_swapped(make):
    direction = make(0)
    with pytest.raises(TypeError):
        direction.vectors[ONE] = torch.zeros(32)


@pytest.mark.parametrize(
    ("vectors", "error", "message"),
    [
        ({ONE: torch.ones(31)}, InvalidInputError, "must have 32 numbers"),
        ({ONE: torch.full((32,), float("nan"))}, InvalidInputError, "must be finite, got NaN"),
        ({}, InvalidInputError, "one site or more, got none"),
        ({"blocks.1.hook_residpost": torch.ones(32)}, UnknownNameError, "did you mean"),
        ({"blocks.7.hook_resid_post": torch.ones(32)}, UnknownNameError, "has 3 blocks"),
    ],
)
def test_bad_vectors_are_refused(vectors, error, message, hooked):
    with pytest.raises(error, match=message):
        Direction.of(hooked, vectors, method="bad")


def test_what_cannot_be_computed_is_refused(make, build_model):
    a = make(0)
    with pytest.raises(InvalidInputError, match="at the same sites"):
        _ = a + make(1, sites=(ONE,))
    zero = a - a
    with pytest.raises(InvalidInputError, match="which is zero"):
        zero.unit()
    with pytest.raises(InvalidInputError, match="which is zero"):
        a.cosine(zero)
    with pytest.raises(InvalidInputError, match="which is zero"):
        a.projected_on(zero)
    with pytest.raises(InvalidInputError, match="must not be 0"):
        _ = a / 0
    with pytest.raises(InvalidInputError, match="must be finite"):
        _ = a * 1e39
    other = Direction.of(build_model("mistral"), {ONE: torch.ones(32)}, method="elsewhere")
    with pytest.raises(InvalidInputError, match="no common basis"):
        _ = a.restricted(ONE) + other
    with pytest.raises(InvalidInputError, match="one direction or more"):
        mean_of([])


def test_it_knows_its_model(make, hooked, build_model):
    direction = make(0)
    direction.check(hooked)
    for family, reason in {
        "gpt2": "another architecture: llama, here gpt2",
        "mistral": "another architecture",
    }.items():
        with pytest.raises(InvalidInputError, match=reason) as caught:
            direction.check(ed_interp.load(build_model(family)))
        assert "\n" not in str(caught.value)
    changed = copy.deepcopy(hooked.model)
    changed.model.layers[1].mlp.up_proj.weight.data[3, 3] += 1e-3
    with pytest.raises(InvalidInputError, match="other weights"):
        direction.check(ed_interp.load(changed))
    moved = direction.transferred_to(changed)
    moved.check(ed_interp.load(changed))
    assert moved.provenance.of == (direction.provenance,)
    with pytest.raises(InvalidInputError, match="other weights"):
        moved.check(hooked)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_same_model_in_another_precision_is_the_same(dtype, make, hooked):
    rounded = ed_interp.load(copy.deepcopy(hooked.model).to(dtype))
    assert rounded.fingerprint != hooked.fingerprint or dtype is torch.float64
    make(0).check(rounded)
    other = copy.deepcopy(hooked.model)
    torch.manual_seed(9)
    for parameter in other.parameters():
        parameter.data = torch.randn_like(parameter)
    with pytest.raises(InvalidInputError, match="other weights"):
        make(0).check(ed_interp.load(other.to(dtype)))


def test_it_knows_its_tokenizer(make, hooked, tiny_tokenizer):
    named = ed_interp.load(hooked.model, tokenizer=tiny_tokenizer)
    direction = Direction.of(named, {ONE: torch.ones(32)}, method="with tokenizer")
    direction.check(hooked)  # without a tokenizer nothing speaks against it
    other = ed_interp.load("icl-gpt2").tokenizer
    with pytest.raises(InvalidInputError, match="another tokenizer"):
        direction.check(ed_interp.load(hooked.model, tokenizer=other))


def test_it_cannot_go_where_it_does_not_fit(make, build_model):
    middle = Direction.of(
        build_model("llama"), {"blocks.0.hook_resid_mid": torch.ones(32)}, method="middle"
    )
    with pytest.raises(CaptureError, match="in parallel"):
        middle.transferred_to(build_model("neox"))
    with pytest.raises(InvalidInputError, match="must have the width of the direction, 32"):
        make(0).transferred_to("icl-gpt2")


def test_vectors_read_after_the_final_norm_fit_no_site(make, hooked):
    import dataclasses

    direction = make(0)
    after = dataclasses.replace(direction.provenance, stream="after the final norm")
    with pytest.raises(
        InvalidInputError, match=r"read before the final norm, .* got after the final norm"
    ):
        dataclasses.replace(direction, provenance=after).check(hooked)
