"""Pre-flight: a clean difference passes, noise is warned of, and the numbers are what they say."""

import dataclasses

import pytest
import torch

from ed_interp.errors import InvalidInputError
from ed_interp.probes.directions.pairs import Contrast, read_states
from ed_interp.probes.directions.steerability import Preflight, agreement_of, preflight


@pytest.fixture(scope="module")
def made(hooked, contrast):
    """States of 40 pairs: noise, plus ``shift`` along the first axis in the positive class."""
    read = read_states(hooked, contrast)

    def make(shift, pairs=40):
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(2, pairs, 2, 32, generator=generator)
        noise[0, :, :, 0] += shift
        return dataclasses.replace(read, positive=noise[0], negative=noise[1])

    return make


def test_a_clear_difference_passes(hooked, made):
    found = preflight(hooked, made(6.0))
    assert found.warnings() == ()
    assert found.verdict.startswith("no warning signs for steering")
    row = found.best
    assert row.auc > 0.95
    assert row.agreement is not None
    assert row.agreement > 0.2
    assert row.stability > 0.8


def test_noise_is_warned_of(hooked, made):
    found = preflight(hooked, made(0.0))
    # Along the very texts it was fitted to, the mean difference of noise separates well; held out
    # it does not.
    states = made(0.0)
    along = [side[:, 0].double() @ states.gap[0] for side in (states.positive, states.negative)]
    assert float((along[0][:, None] > along[1]).double().mean()) > 0.7
    assert all(0.3 < row.auc < 0.7 for row in found.rows)
    assert len(found.warnings()) == 3
    assert found.verdict.startswith("steering is likely to fail")
    assert "wrong way" in found.verdict


def test_agreement_is_the_mean_cosine():
    table = torch.randn(7, 5, generator=torch.Generator().manual_seed(1)).double()
    units = table / table.norm(dim=1, keepdim=True)
    cosines = (units @ units.T)[~torch.eye(7, dtype=torch.bool)]
    assert agreement_of(table) == pytest.approx(float(cosines.mean()))
    assert agreement_of(table[:1].repeat(4, 1)) == pytest.approx(1.0)


def test_seeds_and_files(hooked, made, tmp_path):
    states = made(1.0)
    first, second = preflight(hooked, states, seed=3), preflight(hooked, states, seed=3)
    assert first == second
    assert preflight(hooked, states, seed=4) != first
    assert list(first.to_frame().columns)[:2] == ["site", "auc"]
    folder = first.save(tmp_path / "look")
    assert Preflight.load(folder) == first
    assert (folder / "preflight.parquet").is_file()
    assert first.verdict in first._repr_html_().replace("&#39;", "'")


def test_classes_without_pairs(hooked, made):
    states = dataclasses.replace(made(6.0), paired=False)
    states = dataclasses.replace(states, negative=states.negative[:25])
    row = preflight(hooked, states).best
    assert row.agreement is None
    assert row.auc > 0.95


def test_too_few(hooked, contrast):
    with pytest.raises(InvalidInputError, match="4 or more texts of each class"):
        preflight(hooked, contrast.subset([0, 1, 2]))
    with pytest.raises(InvalidInputError, match="halves must be 1 or greater, got 0"):
        preflight(hooked, contrast, halves=0)
    same = Contrast.of([("dog", "cat")] * 5, read=0)
    assert preflight(hooked, same).best.agreement == pytest.approx(1.0)
