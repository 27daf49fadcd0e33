"""Names of estimators, options, estimators of other packages, and the chain they inherit."""

import math
from importlib.metadata import EntryPoint, EntryPoints

import pytest
import torch
from torch import Tensor

from ed_interp.errors import InvalidInputError, UnknownNameError
from ed_interp.probes.emergence.estimators import (
    Estimator,
    PairEstimator,
    Terms,
    available_estimators,
    flags_of,
    get_estimator,
    mutual_information,
    registry,
)
from ed_interp.probes.emergence.estimators.smoothed import Smoothed


class Constant(PairEstimator):
    """Gives every row as many bits as its first column says."""

    def __init__(self, *, factor: float = 1.0) -> None:
        self.factor = factor

    @property
    def name(self) -> str:
        return "constant"

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


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two estimators of another package, a broken one, and one that claims a built-in name."""

    def point(name: str, value: str) -> EntryPoint:
        return EntryPoint(name=name, value=value, group=registry.GROUP)

    class Local(EntryPoint):
        def load(self) -> object:
            return {"constant": Constant, "nothing": NotAnEstimator}[self.name]

    found = EntryPoints(
        [
            Local("constant", "here:Constant", registry.GROUP),
            Local("nothing", "here:NotAnEstimator", registry.GROUP),
            point("broken", "no_such_module_at_all:Thing"),
            point("smoothed", "no_such_module_at_all:Thing"),
        ]
    )
    monkeypatch.setattr(registry, "entry_points", lambda *, group: found.select(group=group))


def test_smoothed_is_built_in() -> None:
    assert "smoothed" in available_estimators()
    made = get_estimator("smoothed", beta=0.5)
    assert isinstance(made, Smoothed)
    assert isinstance(made, Estimator)
    assert (made.name, made.beta) == ("smoothed", 0.5)


def test_unknown_names_list_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean smoothed"):
        get_estimator("smooth")
    with pytest.raises(UnknownNameError, match="unknown estimator"):
        mutual_information(torch.randn(5, 1), torch.randn(5, 1), estimator="zzz")


def test_unknown_options_list_the_known() -> None:
    with pytest.raises(InvalidInputError, match="its options are: noise, beta"):
        get_estimator("smoothed", sigma=1.0)


@pytest.mark.usefixtures("others")
def test_other_packages_add_estimators_but_take_no_name_over() -> None:
    assert available_estimators()[0] == "smoothed"
    assert set(available_estimators()) >= {"constant", "broken", "nothing"}
    assert isinstance(get_estimator("smoothed"), Smoothed)
    assert isinstance(get_estimator("constant", factor=2.0), Constant)
    with pytest.raises(InvalidInputError, match="cannot be imported"):
        get_estimator("broken")
    with pytest.raises(InvalidInputError, match="PairEstimator"):
        get_estimator("nothing")


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
    by_pairs = PairEstimator.chain(smoothed, states)  # type: ignore[arg-type]
    native = smoothed.chain(states)
    # The first blocks see the same noise; later ones see other draws of it.
    assert torch.allclose(by_pairs.bits[:, 0], native.bits[:, 0], atol=1e-5)
    assert torch.allclose(by_pairs.bits, native.bits, atol=0.1)
    assert torch.allclose(by_pairs.limit, native.limit)


def test_flags() -> None:
    def flags(bits: float, ci_low: float, **options: bool | int) -> tuple[str, ...]:
        return flags_of(**{"bits": bits, "ci_low": ci_low, "limit": 10.0, "rows": 1024, **options})

    assert flags(5.0, 4.5) == ()
    assert flags(9.6, 9.5) == ("saturated",)
    assert flags(0.3, -0.1) == ("lost",)
    assert flags(0.05, 0.04) == ("lost",)
    assert flags(0.0, 0.0, constant=True) == ("constant",)
    assert flags(5.0, 4.5, rows=99, half_precision=True) == ("few-rows", "half-precision")
    with pytest.raises(InvalidInputError, match="not a number"):
        flags(float("nan"), 0.0)
