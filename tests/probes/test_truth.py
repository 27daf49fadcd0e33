"""Populations of known information: values against independent derivations, and their samples."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from ed_interp.errors import InvalidInputError, UnknownNameError
from ed_interp.probes.emergence.truth import (
    FAMILIES,
    KnownInformation,
    calibration_tasks,
    ground_truth_tasks,
    maps,
)
from ed_interp.probes.emergence.truth.laws import (
    AdditiveUniform,
    Canonical,
    Clusters,
    gaussian,
    student_extra_bits,
    table_bits,
)
from ed_interp.probes.emergence.truth.laws import integrate as integrate_law

SUITE = 26


@pytest.fixture(scope="module")
def suite() -> tuple[KnownInformation, ...]:
    return ground_truth_tasks(extended=True)


def test_the_suite_has_the_tasks_it_should(suite: tuple[KnownInformation, ...]) -> None:
    assert len(ground_truth_tasks()) == SUITE
    assert len({task.name for task in suite}) == len(suite) > SUITE
    assert max(task.d_x for task in suite) == 50


def test_every_value_agrees_with_the_mean_of_its_log_density_ratio(
    suite: tuple[KnownInformation, ...],
) -> None:
    for task in suite:
        mean, error = integrate_law(task.law, rows=4000, seed=3)
        assert abs(mean - task.bits) <= 4.5 * math.hypot(error, task.error) + 1e-9, task.name


def test_samples_have_the_promised_shape_and_repeat(suite: tuple[KnownInformation, ...]) -> None:
    for task in suite:
        x, y = task.sample(50, seed=4)
        assert (*x.shape, *y.shape) == (50, task.d_x, 50, task.d_y), task.name
        assert bool(torch.isfinite(x).all())
        assert bool(torch.isfinite(y).all())
        assert torch.equal(x, task.sample(50, seed=4)[0])
        assert not torch.equal(x, task.sample(50, seed=5)[0])


def test_additive_noise_equals_a_numerical_integral() -> None:
    for width in (0.1, 0.5, 0.75):

        def density(y: float, width: float = width) -> float:
            return (min(1.0, y + width) - max(0.0, y - width)) / (2 * width)

        entropy, _ = integrate.quad(
            lambda y: -density(y) * math.log2(density(y)), -width, 1 + width, points=[width, 1]
        )
        expected = entropy - math.log2(2 * width)
        assert AdditiveUniform(width).exact_bits() == pytest.approx(expected, abs=1e-6)


def test_student_value_equals_a_numerical_integral() -> None:
    # One column each, no correlation: double integral of the joint density of 3 degrees.
    joint = stats.multivariate_t(shape=np.eye(2), df=3)
    grid = np.sinh(np.linspace(-7, 7, 901))
    step = np.cosh(np.linspace(-7, 7, 901)) * 14 / 900
    points = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1)
    p = joint.pdf(points)
    margin = stats.t.pdf(grid, 3)
    value = (p * np.log2(p / np.outer(margin, margin)) * np.outer(step, step)).sum()
    assert student_extra_bits(3.0, 1, 1) == pytest.approx(value, abs=1e-4)
    assert student_extra_bits(math.inf, 5, 5) == 0


def test_gaussian_in_two_forms_agrees() -> None:
    rho = np.diag([0.8, 0.3])
    joint = np.block([[np.eye(2), rho], [rho, np.eye(2)]])
    assert gaussian(joint, 2).exact_bits() == pytest.approx(
        Canonical((0.8, 0.3), 2, 2).exact_bits()
    )
    x, y = Canonical((0.8, 0.3), 2, 2).draw(200, np.random.default_rng(0))
    assert np.allclose(
        gaussian(joint, 2).pointwise(x, y), Canonical((0.8, 0.3), 2, 2).pointwise(x, y)
    )


def test_maps_of_single_columns_rise_everywhere() -> None:
    x = np.linspace(-4, 4, 4001)[:, None]
    for one in (
        maps.asinh,
        maps.half_cube,
        maps.normal_cdf,
        maps.wiggly_x,
        maps.wiggly_y,
        maps.bimodal,
    ):
        assert bool((np.diff(one(x)[:, 0]) > 0).all()), one.__name__


def test_turns_keep_lengths_and_can_be_undone() -> None:
    x = np.random.default_rng(0).standard_normal((100, 4))
    turned = maps.spiral(0, 2, 0.7)(x)
    assert np.allclose((turned**2).sum(1), (x**2).sum(1))
    assert not np.allclose(turned, x)
    assert np.allclose(maps.spiral(0, 2, -0.7)(turned), x)
    rotation = maps.rotation(6, 3)
    assert np.allclose(rotation @ rotation.T, np.eye(6))


def test_clusters_tell_what_their_table_tells() -> None:
    table = np.array([[0.4, 0.1], [0.1, 0.4]])
    centres = np.array([[0.0], [1.0]])
    assert Clusters(table, centres, centres, 0.01, 0.01).exact_bits() == table_bits(table)
    wide = Clusters(table, centres, centres, 0.5, 0.5)
    assert wide.exact_bits() is None
    assert table_bits(np.full((3, 3), 1 / 9)) == 0


@pytest.mark.parametrize("widths", [(1, 1), (3, 5), (40, 40)])
def test_calibration_populations_tell_the_bits_asked_for(widths: tuple[int, int]) -> None:
    tasks = calibration_tasks(*widths, bits=(0.0, 1.0, 3.0))
    assert {task.family for task in tasks} == set(FAMILIES)
    for task in tasks:
        asked = float(task.name.rpartition("-")[2])
        assert task.bits == pytest.approx(asked, abs=0.12), task.name
        assert (task.d_x, task.d_y) == widths
        mean, error = integrate_law(task.law, rows=3000, seed=2)
        assert abs(mean - task.bits) <= 4.5 * math.hypot(error, task.error) + 1e-9, task.name
        assert task.sample(20, seed=0)[0].shape == (20, widths[0])


def test_truth_behind_noise_is_that_of_noisy_rows() -> None:
    for family in ("gaussian", "mixture", "clusters"):
        task = calibration_tasks(4, bits=(3.0,), families=(family,))[0]
        assert task.through_noise(0.0, 0.0) == (task.bits, task.error)
        values = [task.through_noise(s, s) for s in (0.1, 0.5, 2.0)]
        bits = [value[0] for value in values if value is not None]
        assert len(bits) == 3
        assert task.bits >= bits[0] > bits[1] > bits[2] >= -0.02
    # Gaussian: the plain formula on many rows with noise added.
    task = calibration_tasks(4, bits=(3.0,), families=("gaussian",))[0]
    x, y = task.sample(100_000, seed=0, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    x, y = (z + 0.5 * torch.randn(z.shape, generator=generator).double() for z in (x, y))
    logs = [torch.linalg.slogdet(torch.cov(z.T))[1] for z in (x, y, torch.cat([x, y], 1))]
    measured = float(logs[0] + logs[1] - logs[2]) / (2 * math.log(2))
    truth = task.through_noise(0.5, 0.5)
    assert truth is not None
    assert measured == pytest.approx(truth[0], abs=0.02)
    assert (
        calibration_tasks(4, bits=(3.0,), families=("student",))[0].through_noise(1.0, 1.0) is None
    )


def test_bad_input_is_refused() -> None:
    task = calibration_tasks(2, bits=(1.0,), families=("gaussian",))[0]
    with pytest.raises(InvalidInputError, match="rows must be 1 or greater"):
        task.sample(0, seed=0)
    with pytest.raises(InvalidInputError, match="floating point"):
        task.sample(3, seed=0, dtype=torch.int64)
    with pytest.raises(InvalidInputError, match="true values"):
        calibration_tasks(2, bits=(-1.0,))
    with pytest.raises(InvalidInputError, match="d_x and d_y must be 1 or greater"):
        calibration_tasks(0)
    with pytest.raises(UnknownNameError, match="gaussian"):
        calibration_tasks(2, families=("gausian",))
