"""SOAP takes fewer steps than Adam where the inputs of a layer are alike, and the same ones every time."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from tilestream.codecs.pyramid.soap import Soap


def fitted(kind: type[torch.optim.Optimizer], steps: int) -> tuple[float, torch.Tensor]:
    """Return the error of a layer of inputs that hold nearly the same, and its weights."""
    chance = torch.Generator().manual_seed(0)
    inputs = torch.randn(256, 1, generator=chance) + 0.05 * torch.randn(256, 6, generator=chance)
    wanted = inputs @ torch.randn(6, 4, generator=chance)
    weights = torch.nn.Parameter(torch.zeros(4, 6))
    bias = torch.nn.Parameter(torch.ones(4))
    optimiser = kind([weights, bias], lr=2e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        loss = (inputs @ weights.T + bias - wanted).square().mean()
        loss.backward()
        optimiser.step()
    return float(loss.detach()), weights.detach()


def test_inputs_that_are_alike_cost_fewer_steps_than_adam() -> None:
    (ours, weights), (again, same), (adam, _) = fitted(Soap, 150), fitted(Soap, 150), fitted(torch.optim.Adam, 150)
    assert ours < adam / 2
    assert ours == again
    assert torch.equal(weights, same)


def test_what_has_no_gradient_stays() -> None:
    one, other = (torch.nn.Parameter(torch.ones(2, 3)) for _ in range(2))
    optimiser = Soap([one, other])
    for _ in range(3):
        optimiser.zero_grad()
        one.square().sum().backward()
        optimiser.step()
    assert (one < 1).all()
    assert torch.equal(other, torch.ones(2, 3))


@pytest.mark.parametrize("seed", [7, 57, 81])
def test_a_layer_of_which_most_inputs_are_dead_stays_finite(seed: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    living = int(torch.randint(1, 5, (1,), generator=chance))
    columns = torch.randperm(24, generator=chance)[:living]
    weights = torch.nn.Parameter(torch.zeros(2, 24))
    weights.grad = torch.zeros(2, 24)
    weights.grad[:, columns] = torch.randn(2, living, generator=chance)
    weights.grad *= 10 ** float(torch.empty(1).uniform_(-23, -4, generator=chance))
    optimiser = Soap([weights])
    for _ in range(2):
        optimiser.step()
    assert torch.isfinite(weights).all()
