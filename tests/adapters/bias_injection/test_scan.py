"""The chunked recurrence against the loop it stands for."""

import pytest
import torch

from ed_interp.adapters.bias_injection.scan import states

LENGTHS = [0, 1, 2, 15, 16, 17, 63, 64, 65, 300]


def loop(u, step, start):
    found = [start]
    for t in range(u.shape[1]):
        found.append(step(found[-1]) + u[:, t])
    return torch.stack(found, 1)


def case(kind, time):
    torch.manual_seed(time)
    u = torch.randn(2, time, 3, requires_grad=True)
    start = torch.randn(2, 3, requires_grad=True)
    if kind == "decay":
        given = torch.tensor([0.0, 0.6, 0.999], requires_grad=True)
        return u, given, start, lambda s: given * s
    matrix = torch.diag(torch.tensor([0.1, 0.9, 0.8])) + 0.05 * torch.randn(3, 3)
    matrix.requires_grad_()
    return u, matrix, start, lambda s: s @ matrix.T


@pytest.mark.parametrize("kind", ["decay", "dense"])
@pytest.mark.parametrize("time", LENGTHS)
def test_states_and_gradients_are_those_of_the_loop(kind, time):
    u, given, start, step = case(kind, time)
    found, expected = states(u, given, start), loop(u, step, start)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
    weight = torch.randn_like(found)
    inputs = [u, given, start] if time else [start]
    pairs = zip(
        torch.autograd.grad((found * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
        strict=True,
    )
    for one, other in pairs:
        torch.testing.assert_close(one, other, atol=1e-4 * float(1 + other.abs().max()), rtol=1e-4)


def test_a_very_short_memory_does_not_overflow_over_a_long_sequence():
    # The trick of cumulative sums divides by decay ** time here, which is 0.
    u = torch.randn(1, 3000, 2, requires_grad=True)
    found = states(u, torch.tensor([1e-3, 0.5]), torch.zeros(1, 2))
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(u.grad).all()


def test_the_recurrence_is_float32_under_autocast():
    u, decay, start = torch.rand(1, 200, 2), torch.tensor([0.99, 0.999]), torch.zeros(1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        found = states(u, decay, start)
    torch.testing.assert_close(found, states(u, decay, start))
