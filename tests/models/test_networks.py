"""What every network can do, whatever it computes: learn, freeze, be stored, and be made the same again."""

import math

import pytest

torch = pytest.importorskip("torch")

from tilestream.models.fpnvit import FPNTransformer  # noqa: E402
from tilestream.models.mvit import MultiscaleTransformer  # noqa: E402
from tilestream.models.weights import load_weights, random_weights  # noqa: E402
from tilestream.models.windowed import WindowedTransformer  # noqa: E402

NETWORKS = {
    "fpn-vit": (
        lambda: FPNTransformer(dim=8, depth=1, heads=2, levels=3, patch_px=2, window=2, width=6, channels=2),
        (2, 16, 32),
    ),
    "mvit": (lambda: MultiscaleTransformer(dims=(8, 16), depths=(1, 2), heads=(1, 2), channels=2, px=32), (2, 32, 40)),
    "windowed": (lambda: WindowedTransformer(5, dim=8, depth=2, heads=2, window=2), (5, 3, 5)),
}
UNSEEN = ("norm_k.bias",)
"""Parameters that shift all scores of a query alike, which a softmax does not see; published networks have them."""


@pytest.fixture(params=NETWORKS)
def made(request):
    """A small network in float64, and a batch for it."""
    make, shape = NETWORKS[request.param]
    network = make()
    random_weights(network, seed=1)
    x = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return network.double(), x


def test_vectors_have_the_length_that_is_told_and_depend_on_their_image_alone(made):
    network, x = made
    vectors = network(x)
    assert vectors.shape == (3, network.dim)
    for k in range(3):
        torch.testing.assert_close(network(x[k : k + 1])[0], vectors[k], rtol=1e-10, atol=1e-10)
    assert not torch.allclose(vectors[0], vectors[1])


def test_a_tile_gives_the_same_bits_in_any_batch(made):
    network, x = made
    network, x = network.float(), x.float().repeat(3, 1, 1, 1)
    with torch.inference_mode():
        alone = torch.cat([network(x[k : k + 1]) for k in range(9)])
        for cut in ((9,), (4, 5), (1, 6, 2)):
            assert torch.equal(torch.cat([network(part) for part in x.split(cut)]), alone)
        assert torch.equal(network(x.contiguous(memory_format=torch.channels_last)), alone)


def test_gradients_reach_every_parameter(made):
    network, x = made
    weights = torch.randn(3, network.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    (network(x.requires_grad_()) * weights).sum().backward()
    assert x.grad.ne(0).all()
    for name, parameter in network.named_parameters():
        if not name.endswith(UNSEEN):
            assert parameter.grad.abs().max() > 1e-9, name


def test_gradients_are_those_of_finite_differences(made):
    network, x = made
    some = [p for p in network.parameters() if p.numel() < 40][:3]
    assert some

    def value(x, *_):
        return network(x).sum(1)

    assert torch.autograd.gradcheck(value, (x[:1].requires_grad_(), *some), fast_mode=True)


def test_a_frozen_network_still_passes_gradients_on(made):
    network, x = made
    network.requires_grad_(False)(x.requires_grad_()).square().sum().backward()
    assert x.grad.ne(0).any()
    assert all(p.grad is None for p in network.parameters())


def test_weights_come_back_from_a_file(made, tmp_path):
    network, x = made
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    with torch.no_grad():
        before = network(x)
        for parameter in network.parameters():
            parameter.mul_(-0.5)
        assert not torch.allclose(network(x), before)
    load_weights(network, tmp_path / "weights.pt", model="it")
    with torch.no_grad():
        assert torch.equal(network(x), before)


def test_it_learns(made):
    network, x = made
    wanted = torch.randn(3, network.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = (network(x) - wanted).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_it_computes_in_half_types(made):
    network, x = made
    exact = network(x)
    network, x = network.float(), x.float()
    with torch.inference_mode():
        torch.testing.assert_close(network(x).double(), exact, rtol=1e-4, atol=1e-4)
        for found in (_autocast(network, x), network.bfloat16()(x.bfloat16())):
            error = (found.double() - exact).norm() / exact.norm()
            assert math.isfinite(error)
            assert error < 0.1


def _autocast(network, x):
    with torch.autocast("cpu", torch.bfloat16):
        return network(x)
