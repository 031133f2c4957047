"""Muon moves all directions of weights at one pace, whatever the shape, and the same way every time."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from tilestream.codecs.pyramid.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (8, 8), (1, 7), (3, 1)])
def test_singular_values_become_alike(shape: tuple[int, int]) -> None:
    left, _, right = torch.linalg.svd(
        torch.randn(shape, generator=torch.Generator().manual_seed(0)), full_matrices=False
    )
    spread = torch.logspace(0, -1, min(shape))
    found = torch.linalg.svdvals(orthogonal(left * spread @ right))
    assert 0.6 < float(found.min()) <= float(found.max()) < 1.3
    assert torch.count_nonzero(orthogonal(torch.zeros(shape))) == 0


def fitted(kind: type[torch.optim.Optimizer], lr: float) -> float:
    """Return the error of a convolution of channels that differ a hundredfold in size."""
    chance = torch.Generator().manual_seed(0)
    pixels = torch.randn(2, 4, 12, 12, generator=chance) * torch.logspace(0, -2, 4)[:, None, None]
    wanted = torch.nn.functional.conv2d(pixels, torch.randn(6, 4, 3, 3, generator=chance))
    weights = torch.nn.Parameter(torch.zeros(6, 4, 3, 3))
    optimiser = kind([weights], lr=lr)
    for step in range(120):
        optimiser.zero_grad()
        loss = (torch.nn.functional.conv2d(pixels, weights) - wanted).square().mean()
        loss.backward()
        optimiser.param_groups[0]["lr"] = lr * (1 - step / 120)
        optimiser.step()
    return float(loss.detach())


def test_it_is_quicker_than_gradient_descent_and_the_same_again() -> None:
    ours = fitted(Muon, 0.5)
    assert ours == fitted(Muon, 0.5)
    assert ours < 0.1 * min(fitted(torch.optim.SGD, lr) for lr in (0.3, 1.0, 2.0))


def test_what_has_no_gradient_stays() -> None:
    one, other = (torch.nn.Parameter(torch.ones(2, 3)) for _ in range(2))
    optimiser = Muon([one, other])
    one.square().sum().backward()
    optimiser.step()
    assert (one < 1).all()
    assert torch.equal(other, torch.ones(2, 3))
