"""Names of estimators, options, estimators of other packages, and the chain they inherit."""

import dataclasses
import math
import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest
import torch
from torch import Tensor

from ed_interp.errors import InvalidInputError, UnknownNameError
from ed_interp.options import option
from ed_interp.probes.emergence.estimators import (
    GENERAL_FLAGS,
    Estimator,
    Terms,
    available_estimators,
    flag_meanings,
    flags_of,
    get_estimator,
    mutual_information,
    noise_scale,
    parse_settings,
    register,
    registry,
)
from ed_interp.probes.emergence.estimators.base import Batch
from ed_interp.probes.emergence.estimators.smoothed import PROFILE_BETAS, Smoothed

BUILT_IN = {
    *("auto", "gaussian", "infonce", "ksg", "latent"),
    *("mine", "mine-heldout", "nwj", "smile", "smoothed"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant(Estimator):
    """Gives every row as many bits as its first column says."""

    factor: float = option(1.0, "Factor of the columns.", min=0)

    def pair(
        self,
        x: Tensor,
        y: Tensor,
        *,
        weights: Tensor | None = None,
        seed: int = 0,
        max_bytes: int = 0,
    ) -> Terms:
        rows = len(x)
        shares = torch.full((rows,), 1 / rows).double() if weights is None else weights
        return Terms(
            terms=self.factor * (x[:, 0] + y[:, 0])[None],
            weights=shares / shares.sum(),
            limit=torch.tensor(math.log2(rows)),
            settings={"factor": self.factor},
        )


class NotAnEstimator:
    """Lacks everything."""


class WithoutPair(Estimator):
    """Lacks the one method that it must have."""


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimators of another package: one that works, some broken, one with a built-in name."""

    class Local(EntryPoint):
        def load(self) -> object:
            return getattr(sys.modules[__name__], self.attr)

    points = EntryPoints(
        [
            Local("constant", "here:Constant", registry.GROUP),
            Local("nothing", "here:NotAnEstimator", registry.GROUP),
            Local("no-pair", "here:WithoutPair", registry.GROUP),
            EntryPoint("broken", "no_such_module_at_all:Thing", registry.GROUP),
            EntryPoint("smoothed", "no_such_module_at_all:Thing", registry.GROUP),
        ]
    )
    monkeypatch.setattr(registry, "entry_points", lambda *, group: points.select(group=group))
    monkeypatch.setattr(registry, "_KNOWN", dict(registry._KNOWN))


def test_every_built_in_estimator_is_a_file_of_its_name() -> None:
    assert set(available_estimators()) >= BUILT_IN
    for name in BUILT_IN:
        estimator = get_estimator(name)
        assert isinstance(estimator, Estimator)
        assert estimator.name == name
        file = type(estimator).__module__.rpartition(".")[2]
        assert file == name.replace("-", "_")
        # Options are data: what is recorded makes the same estimator again.
        assert type(estimator).from_dict(estimator.to_dict()) == estimator
        assert all(field.metadata.get("help") for field in dataclasses.fields(estimator))
        assert all(meaning for meaning in estimator.flags.values())
        assert not set(estimator.flags) & set(GENERAL_FLAGS)
    made = get_estimator("smoothed", beta=0.5)
    assert isinstance(made, Smoothed)
    assert (made.name, made.beta) == ("smoothed", 0.5)


def test_unknown_names_list_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean smoothed"):
        get_estimator("smooth")
    with pytest.raises(UnknownNameError, match="unknown estimator"):
        mutual_information(torch.randn(5, 1), torch.randn(5, 1), estimator="zzz")
    for name in ("rows", "registry", "neural", "no.such", ""):  # files, but no estimators
        with pytest.raises(UnknownNameError, match="unknown estimator"):
            get_estimator(name)


def test_unknown_options_list_the_known() -> None:
    with pytest.raises(InvalidInputError, match="its options are noise, beta"):
        get_estimator("smoothed", sigma=1.0)
    with pytest.raises(InvalidInputError) as caught:
        parse_settings("ksg", ["k=5"])
    assert str(caught.value) == (
        "estimator 'ksg' has no option 'k'; its options are neighbours, norm, margins"
    )
    with pytest.raises(InvalidInputError, match="'auto' has no option 'k'; it has no options"):
        get_estimator("auto", k=1)


def test_texts_become_options_of_their_types() -> None:
    assert parse_settings("ksg", ("neighbours=5", " margins = rank ")) == {
        "neighbours": 5,
        "margins": "rank",
    }
    assert parse_settings("smoothed", ["noise=0.5", "samples=none"]) == {
        "noise": 0.5,
        "samples": None,
    }
    assert parse_settings("smoothed", ["noise=0.5, 1e-3,0"]) == {"noise": (0.5, 1e-3, 0.0)}
    trained = parse_settings("mine-heldout", ["hidden=64", "debias=False", "lr=1e-4", "batch=8"])
    assert trained == {"hidden": (64,), "debias": False, "lr": 1e-4, "batch": 8}
    assert get_estimator("mine-heldout", **trained).hidden == (64,)
    for name, text, message in (
        ("ksg", "neighbours", "must be NAME=VALUE, got 'neighbours'"),
        ("ksg", "neighbours=few", "neighbours must be a whole number, got 'few'"),
        ("ksg", "neighbours=0", "neighbours must be 1 or greater, got 0"),
        ("ksg", "margins=5", "margins must be one of raw or rank, got '5'"),
        ("infonce", "debias=maybe", "debias must be true or false, got 'maybe'"),
        ("smoothed", "noise=loud", "noise must be .* got 'loud'"),
        ("mine", "hidden=8,x", "hidden must be a whole number, got 'x'"),
    ):
        with pytest.raises(InvalidInputError, match=message) as caught:
            get_estimator(name, **parse_settings(name, [text]))
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("others")
def test_other_packages_add_estimators_but_take_no_name_over() -> None:
    assert set(available_estimators()) >= {*BUILT_IN, "constant", "broken", "nothing"}
    assert isinstance(get_estimator("smoothed"), Smoothed)
    made = get_estimator("constant", factor=2.0)
    assert isinstance(made, Constant)
    assert made.name == "constant"
    assert parse_settings("constant", ["factor=3"]) == {"factor": 3.0}
    for name, message in (
        ("broken", "cannot be imported"),
        ("nothing", "must be a class that inherits .*Estimator"),
        ("no-pair", "must have the method pair"),
    ):
        with pytest.raises(InvalidInputError, match=message) as caught:
            get_estimator(name)
        assert "\n" not in str(caught.value)
    with pytest.raises(InvalidInputError, match="must be new, got 'ksg', which is built in"):
        register("ksg")(Constant)


@pytest.mark.usefixtures("others")
def test_a_registered_class_needs_no_package() -> None:
    kind = register("my-own")(dataclasses.make_dataclass("Own", (), bases=(Constant,), frozen=True))
    assert isinstance(get_estimator("my-own", factor=2), kind)
    assert "my-own" in available_estimators()


@pytest.mark.usefixtures("others")
def test_an_inherited_chain_is_its_pairs() -> None:
    states = torch.arange(2 * 3 * 4 * 1, dtype=torch.float32).reshape(2, 3, 4, 1)
    found = get_estimator("constant").chain(states)
    assert found.terms.shape == (2, 2, 4)
    assert torch.equal(found.terms, states[:, :-1, :, 0] + states[:, 1:, :, 0])
    assert torch.allclose(found.limit, torch.tensor(2.0).double())
    weighted = get_estimator("constant").chain(states, weights=torch.tensor([1.0, 0, 0, 0]))
    assert torch.equal(weighted.bits, found.terms[:, :, 0].double())
    assert float(weighted.limit[0]) == 0.0
    by_name = mutual_information(states[0, 0], states[0, 1], estimator="constant", factor=3.0)
    assert by_name.settings == {"factor": 3.0}
    assert by_name.bits == pytest.approx(3 * float(found.bits[0, 0]))


def test_the_inherited_chain_agrees_with_the_native_one() -> None:
    states = torch.randn(2, 3, 20, 4, generator=torch.Generator().manual_seed(0))
    smoothed = Smoothed(noise=0.7, samples=400)
    batch = Batch([list(chain) for chain in states], (2,), None)
    by_pairs = Estimator.run(smoothed, batch, seed=0, max_bytes=10**9)
    native = smoothed.chain(states)
    # The first blocks see the same noise; later ones see other draws of it.
    assert torch.allclose(by_pairs.bits[:, 0], native.bits[:, 0], atol=1e-5)
    assert torch.allclose(by_pairs.bits, native.bits, atol=0.1)
    assert torch.allclose(by_pairs.limit, native.limit)


def test_settings_that_depend_on_the_population_are_made_definite() -> None:
    chosen = get_estimator("smoothed", beta=0.5, samples=6)
    assert chosen.added_noise is None
    definite = chosen.for_population(d=64, n=200)
    assert definite == Smoothed(noise=noise_scale(64, 200, 0.5), samples=6)
    assert definite.added_noise == definite.noise
    assert definite.for_population(d=3, n=5) is definite
    # The levels of a noise profile keep every other option.
    betas, variants = zip(*definite.variants(), strict=True)
    assert betas == PROFILE_BETAS
    assert variants[0] == Smoothed(beta=PROFILE_BETAS[0], samples=6)
    plain = get_estimator("gaussian")
    assert plain.for_population(d=64, n=200) is plain
    assert plain.reporting(True).resuming("folder") is plain
    assert (plain.variants(), plain.added_noise, plain.together) == ((), None, False)
    assert get_estimator("infonce").together


def test_flags() -> None:
    def flags(bits: float, ci_low: float, **options: bool | int) -> tuple[str, ...]:
        return flags_of(**{"bits": bits, "ci_low": ci_low, "limit": 10.0, "rows": 1024, **options})

    assert flags(5.0, 4.5) == ()
    assert flags(9.6, 9.5) == ("saturated",)
    assert flags(0.3, -0.1) == ("lost",)
    assert flags(0.05, 0.04) == ("lost",)
    assert flags(0.0, 0.0, constant=True) == ("constant",)
    assert flags(5.0, 4.5, rows=99, half_precision=True) == ("few-rows", "half-precision")
    assert flags(11.0, 10.5, own=("shrunk",)) == ("saturated", "above-limit", "shrunk")
    with pytest.raises(InvalidInputError, match="finite number"):
        flags(float("nan"), 0.0)


def test_flags_have_their_meanings_at_the_estimator() -> None:
    meanings = flag_meanings("gaussian", "mine", "of another package, not installed")
    assert set(meanings) > {*GENERAL_FLAGS, "shrunk", "training-maximum", "discrete"}
    assert "ties" not in meanings
    assert flag_meanings("auto")["ties"] == get_estimator("ksg").flags["ties"]
