"""Causal emergence and O-information on systems whose values are known in closed form."""

import math

import pytest
import torch
from torch import Tensor

from ed_interp.errors import InvalidInputError
from ed_interp.probes.emergence.causal import causal_emergence, causal_profile, o_information

ROWS = 20_000


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bits(rho_squared: float) -> float:
    return -0.5 * math.log2(1 - rho_squared)


def test_a_mean_that_persists_while_parts_do_not_is_emergent() -> None:
    # Independent parts; only their normalised sum is carried over, with correlation 0.9.
    d, rho = 8, 0.9
    w = torch.ones(d, 1, dtype=torch.float64) / math.sqrt(d)
    before, fresh = normal(ROWS, d), normal(ROWS, d, seed=1)
    carried = rho * before @ w + math.sqrt(1 - rho**2) * normal(ROWS, 1, seed=2)
    after = fresh - fresh @ w @ w.T + carried @ w.T
    found = causal_emergence(before, after, macro=w)
    assert found.macro == pytest.approx(bits(rho**2), abs=0.04)
    assert found.psi == pytest.approx(bits(rho**2) - d * bits(rho**2 / d), abs=0.05)
    assert found.gamma == pytest.approx(bits(rho**2 / d), abs=0.04)
    expected = bits(rho**2 / d) - d * bits(rho**2 / d**2)
    assert found.delta == pytest.approx(expected, abs=0.05)


def test_copies_are_not_emergent() -> None:
    # Every part carries itself: the parts predict all that the whole does.
    before = normal(ROWS, 4)
    after = 0.8 * before + 0.6 * normal(ROWS, 4, seed=1)
    found = causal_emergence(before, after, macro=torch.eye(4, dtype=torch.float64))
    assert found.macro == pytest.approx(4 * bits(0.64), abs=0.04)
    assert found.psi == pytest.approx(0, abs=0.04)
    assert found.delta == pytest.approx(0, abs=0.05)
    # One source in all parts: its information is counted once per part.
    shared = normal(ROWS, 1) + 0.1 * before
    later = shared + 0.1 * normal(ROWS, 4, seed=2)
    assert causal_emergence(shared, later).psi < -5


def test_independence_gives_zero_at_few_rows_too() -> None:
    found = [
        causal_emergence(normal(60, 10, seed=s), normal(60, 10, seed=s + 100), macro=3)
        for s in range(60)
    ]
    mean = sum(one.psi for one in found) / len(found)
    assert abs(mean) < 0.1  # without the correction about 10 * 3 / (2 * 60) / ln 2 = 0.36 a part
    o = [o_information(normal(40, 10, seed=s)).bits for s in range(60)]
    assert abs(sum(o) / len(o)) < 0.1


def test_o_information_of_synergy_and_of_redundancy() -> None:
    pair = normal(ROWS, 2)
    synergy = o_information(
        torch.cat([pair, pair.sum(1, keepdim=True) + normal(ROWS, 1, seed=1)], 1)
    )
    assert synergy.total_correlation == pytest.approx(0.5 * math.log2(3), abs=0.04)
    assert synergy.dual_total_correlation == pytest.approx(1.0, abs=0.04)
    assert synergy.bits == pytest.approx(0.5 * math.log2(3) - 1, abs=0.04)
    # Three noisy views of one source, variance 2 each, covariance 1: determinant 4.
    views = normal(ROWS, 1) + normal(ROWS, 3, seed=1)
    redundancy = o_information(views)
    assert redundancy.total_correlation == pytest.approx(0.5 * math.log2(8 / 4), abs=0.04)
    dual = 0.5 * (math.log2(4) + 3 * math.log2(3 / 4))
    assert redundancy.dual_total_correlation == pytest.approx(dual, abs=0.04)
    assert redundancy.bits > 0


def test_scale_of_the_parts_does_not_matter() -> None:
    before = normal(500, 4)
    after = before + normal(500, 4, seed=1)
    scale = torch.tensor([1.0, 10.0, 0.1, 3.0], dtype=torch.float64)
    one = o_information(after).bits
    assert o_information(after * scale + 5).bits == pytest.approx(one, abs=1e-9)
    v = torch.ones(4, 1, dtype=torch.float64)
    plain = causal_emergence(before, after, macro=v)
    scaled = causal_emergence(before * scale, after * scale, macro=v / scale[:, None])
    assert scaled.psi == pytest.approx(plain.psi, abs=1e-9)


class Captured:
    """States of 3 sites: the second block copies what the first wrote."""

    def at(self, shots: int) -> Tensor:
        first = normal(300, 8, seed=shots)
        second = first + normal(300, 8, seed=shots + 1)
        return torch.stack([first, second, second], 1)


def test_a_profile_has_a_row_per_block() -> None:
    found = causal_profile(Captured(), shots=0, parts=4, normalisation="none")
    frame = found.to_frame()
    assert list(frame["layer"]) == [0, 1]
    assert frame["macro"][1] > 10 > frame["macro"][0] > 0
    assert found.settings["parts"] == 4
    above = [str(row.layer) for row in found.rows if row.psi > 0]
    assert found.headline().endswith(f"in blocks {', '.join(above)}." if above else "blocks.")
    assert len(found.tables()[0].rows) == 2
    assert {mark.name for mark in found.charts()[0].panels[0].marks} >= {"psi", "o-information"}
    chosen = causal_profile(
        Captured(), shots=0, parts=torch.eye(8)[:, :3].double(), normalisation="none"
    )
    assert chosen.settings["parts"] == 3


def test_bad_input_is_refused() -> None:
    x = normal(50, 4)
    with pytest.raises(InvalidInputError, match="between 1 and 4"):
        causal_emergence(x, x, macro=5)
    with pytest.raises(InvalidInputError, match="the same parts"):
        causal_emergence(x, x[:, :3])
    with pytest.raises(InvalidInputError, match=r"macro must have the shape \(4, columns\)"):
        causal_emergence(x, x, macro=normal(3, 1))
    with pytest.raises(InvalidInputError, match="at least 3 columns"):
        o_information(x[:, :2])
    with pytest.raises(InvalidInputError, match="more than 5 rows"):
        o_information(x[:4])
    with pytest.raises(InvalidInputError, match="no column may be a sum"):
        o_information(torch.cat([x, x.sum(1, keepdim=True)], 1))
    with pytest.raises(InvalidInputError, match="got 40"):
        causal_profile(Captured(), shots=0, parts=40)
