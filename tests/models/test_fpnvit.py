"""The transformer over pyramid levels: its size, what its paths carry, and a task that needs both of them."""

import pytest

torch = pytest.importorskip("torch")

from tilestream.errors import ConfigError, StageError  # noqa: E402
from tilestream.models.fpnvit import FPNTransformer  # noqa: E402
from tilestream.models.weights import random_weights  # noqa: E402

SMALL = {"dim": 16, "depth": 1, "heads": 2, "levels": 3, "patch_px": 2, "window": 2, "width": 16, "channels": 1}


@pytest.mark.parametrize(
    "params",
    [
        {},
        SMALL,
        {**SMALL, "lateral": False},
        {**SMALL, "top_down": False},
        {**SMALL, "levels": 1, "depth": 3, "window": 3, "width": 5, "channels": 4, "patch_px": 3},
    ],
)
def test_the_count_of_parameters_is_the_formula(params):
    network = FPNTransformer(**params)
    p = {"dim": 384, "depth": 12, "levels": 3, "patch_px": 16, "window": 4, "width": 256, "channels": 3, **params}
    d, f, n_levels = p["dim"], p["width"], p["levels"]
    laterals = n_levels if p.get("lateral", True) else 1
    expected = (p["channels"] * p["patch_px"] ** 2 + 1) * d + (p["window"] ** 2 + n_levels) * d
    expected += p["depth"] * (12 * d * d + 13 * d) + 2 * d
    expected += laterals * (d * f + f) + n_levels * (9 * f * f + f)
    assert sum(one.numel() for one in network.parameters()) == expected
    if not params:
        assert expected == 23_662_848


def test_coarser_levels_are_means_of_two_by_two():
    # tiles whose means of 2 x 2 agree differ on the finest level only
    network = FPNTransformer(**SMALL)
    random_weights(network, seed=1)
    generator = torch.Generator().manual_seed(2)
    one = torch.rand(1, 1, 16, 16, generator=generator)
    other = one.reshape(1, 1, 8, 2, 8, 2).flip(3).reshape(1, 1, 16, 16)
    with torch.inference_mode():
        (fine, *coarse), (fine_other, *coarse_other) = network.forward_maps(one), network.forward_maps(other)
    assert [tuple(m.shape) for m in (fine, *coarse)] == [(1, 16, 8, 8), (1, 16, 4, 4), (1, 16, 2, 2)]
    assert not torch.allclose(fine, fine_other)
    for a, b in zip(coarse, coarse_other, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("paths", "sees_far"), [({}, True), ({"top_down": False}, False)])
def test_a_fine_cell_learns_of_what_is_far_from_the_levels_above_alone(paths, sees_far):
    network = FPNTransformer(**SMALL, **paths)
    random_weights(network, seed=1)
    x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(3)).requires_grad_()
    (seen,) = torch.autograd.grad(network.forward_maps(x)[0][0, :, 0, 0].sum(), x)
    assert seen[0, 0, :4, :4].any()
    assert bool(seen[0, 0, 8:, 8:].any()) is sees_far


def task(n, generator):
    """Tiles with a bright or dark corner, and stripes of 1 px across or along it where the corner is not in reach.

    The label is whether it is bright and across, or dark and along. Stripes vanish in means of 2 x 2; no window of the
    finest level, nor two of them side by side, show both corner and stripes. Each alone says nothing of the label.
    """
    stripes = torch.tensor([1.0, -1.0]).repeat(8).expand(16, 16)
    is_bright, is_across, is_turned = (torch.randint(2, (n,), generator=generator).bool() for _ in range(3))
    x = torch.where(is_across[:, None, None], stripes, stripes.T).clone()
    x[:, :8, :8] = 0
    x[:, :4, :4] = torch.where(is_bright, 2.0, -2.0)[:, None, None]
    x = torch.where(is_turned[:, None, None], x.flip(1, 2), x)
    return (x + 0.1 * torch.randn(x.shape, generator=generator))[:, None], (is_bright ^ is_across).float()


def accuracy(seed, **paths):
    """Share of new tiles that a network gets right which was trained for some steps."""
    generator = torch.Generator().manual_seed(seed)
    network = FPNTransformer(**SMALL, **paths)
    head = torch.nn.Linear(network.dim, 1)
    random_weights(network, seed=seed)
    random_weights(head, seed=seed)
    optimiser = torch.optim.Adam([*network.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(STEPS):
        x, label = task(32, generator)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(head(network(x))[:, 0], label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    x, label = task(512, generator)
    found = head(network(x)).detach()[:, 0] > 0  # in inference tiles would go through one by one
    return (found == label.bool()).float().mean().item()


STEPS = 40


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_lateral_and_top_down_paths_matter_where_detail_means_something_in_its_surroundings(seed):
    assert accuracy(seed) > 0.95
    for path in ("lateral", "top_down"):
        assert accuracy(seed, **{path: False}) < 0.7


@pytest.mark.parametrize("shape", [(1, 1, 16, 12), (1, 3, 16, 16), (1, 16, 16), (1, 1, 16, 0)])
def test_tiles_of_another_form_are_refused(shape):
    with pytest.raises(StageError, match=r"\(n, 1, h, w\), h and w multiples of 16"):
        FPNTransformer(**SMALL)(torch.zeros(shape))


@pytest.mark.parametrize("params", [{"heads": 3}, {"levels": 0}, {"window": 0}])
def test_networks_that_cannot_be_made_are_refused(params):
    with pytest.raises(ConfigError, match="FPN transformer"):
        FPNTransformer(**{**SMALL, **params})
