"""Choices with a gradient, beside what they are the expectation of."""

from __future__ import annotations

from itertools import permutations
from math import erf, exp, pi, sqrt

import numpy as np
import pytest
import torch

from tilestream.torch.perturbed import perturbed_top_k
from tilestream.torch.sampling import draw, importance, sampled_sum

LOGITS = torch.tensor([0.3, -1.0, 1.2, 0.1, -0.4], dtype=torch.float64)


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def probability(p: torch.Tensor, order: tuple[int, ...]) -> float:
    """How probable it is that tiles are drawn in this order."""
    left, found = 1.0, 1.0
    for number in order:
        found *= float(p[number]) / left
        left -= float(p[number])
    return found


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_over_all_draws_the_weights_have_the_attention_as_their_mean(k):
    p = torch.softmax(LOGITS, 0)
    mean = torch.zeros(5, dtype=torch.float64)
    for order in permutations(range(5), k):
        mean[list(order)] += probability(p, order) * importance(p[list(order)])
    assert torch.allclose(mean, p, atol=1e-12)


@pytest.mark.parametrize("k", [1, 3])
def test_over_all_draws_value_and_gradients_are_those_of_full_attention(k, monkeypatch):
    features = torch.randn((5, 3), generator=chance(1), dtype=torch.float64)

    def of(total):
        logits, seen = LOGITS.clone().requires_grad_(), features.clone().requires_grad_()
        value = total(torch.log_softmax(logits, 0), seen)
        (value * torch.tensor([1.0, -2.0, 0.5])).sum().backward()
        return value.detach(), logits.grad, seen.grad

    exact = of(lambda log_p, seen: log_p.exp() @ seen)
    mean = [torch.zeros_like(one) for one in exact]
    p = torch.softmax(LOGITS, 0)
    for order in permutations(range(5), k):
        monkeypatch.setattr("tilestream.torch.sampling.draw", lambda *_, order=order: torch.tensor(order))
        one = of(lambda log_p, seen: sampled_sum(log_p, k, lambda rows: seen[rows], chance()))
        for total, part in zip(mean, one, strict=True):
            total += probability(p, order) * part
    for total, wanted in zip(mean, exact, strict=True):
        assert torch.allclose(total, wanted, atol=1e-12)


def test_tiles_are_drawn_by_their_attention_and_never_twice():
    generator, counts, pairs = chance(), np.zeros(5), 4000
    p = torch.softmax(LOGITS, 0)
    for _ in range(pairs):
        order = draw(LOGITS, 2, generator).tolist()
        assert len(set(order)) == 2
        counts[order[0]] += 1
    expected = p.numpy()
    assert np.abs(counts / pairs - expected).max() < 5 * np.sqrt((expected * (1 - expected)).max() / pairs)


def test_where_all_are_drawn_the_sum_is_exact():
    features = torch.randn((5, 3), generator=chance(1), dtype=torch.float64)
    log_p = torch.log_softmax(LOGITS, 0)
    found = sampled_sum(log_p, 9, lambda rows: features[rows], chance())
    assert torch.allclose(found, log_p.exp() @ features, atol=1e-12)


@pytest.mark.parametrize(("gap", "sigma"), [(0.0, 1.0), (0.7, 1.0), (-0.4, 0.3)])
def test_of_two_tiles_shares_and_gradient_are_those_of_a_normal_distribution(gap, sigma):
    scores = torch.tensor([gap, 0.0], dtype=torch.float64, requires_grad=True)
    draws = 40_000
    shares = perturbed_top_k(scores, 1, sigma=sigma, draws=draws, generator=chance())
    shares[0].backward()
    z = gap / (sigma * sqrt(2))
    slope = exp(-z * z / 2) / sqrt(2 * pi) / (sigma * sqrt(2))
    assert abs(float(shares[0].detach()) - (1 + erf(z / sqrt(2))) / 2) < 5 * 0.5 / sqrt(draws)
    tolerance = 5 / sigma / sqrt(draws)
    assert scores.grad is not None
    assert torch.allclose(scores.grad, torch.tensor([slope, -slope], dtype=torch.float64), atol=tolerance)


def test_the_gradient_is_the_slope_of_the_expectation():
    scores, weights, sigma, draws = LOGITS.clone(), torch.tensor([1.0, 3.0, -2.0, 0.5, 2.0]).double(), 0.7, 60_000

    def value(at: torch.Tensor) -> torch.Tensor:
        return perturbed_top_k(at, 2, sigma=sigma, draws=draws, generator=chance()) @ weights

    at = scores.clone().requires_grad_()
    value(at).backward()
    step = 0.2
    for number in range(5):
        unit = step * torch.eye(5, dtype=torch.float64)[number]
        slope = float(value(scores + unit) - value(scores - unit)) / (2 * step)
        assert abs(float(at.grad[number]) - slope) < 0.06


def test_shares_add_up_to_k_and_without_much_noise_are_the_top():
    shares = perturbed_top_k(LOGITS, 3, sigma=1e-6, draws=20, generator=chance())
    assert shares.tolist() == [1.0, 0.0, 1.0, 1.0, 0.0]
    assert float(perturbed_top_k(LOGITS, 3, sigma=2.0, draws=20, generator=chance()).sum()) == pytest.approx(3)
