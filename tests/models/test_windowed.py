"""Attention in shifted windows, beside plain attention in which only some tokens may see each other."""

import math

import pytest

torch = pytest.importorskip("torch")

from tilestream.errors import ConfigError, StageError  # noqa: E402
from tilestream.models.weights import random_weights  # noqa: E402
from tilestream.models.windowed import WindowBlock, WindowedTransformer, from_windows, to_windows  # noqa: E402

SIZES = [(4, 4), (8, 8), (5, 7), (1, 1), (3, 9), (1, 6)]


def made(*, seed=1, **params):
    network = WindowedTransformer(5, **{"dim": 8, "depth": 2, "heads": 2, "window": 4, **params})
    random_weights(network, seed=seed)
    return network.double()


def grids(n, h, w, seed=2):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 5, h, w, dtype=torch.float64, generator=generator)
    mask = torch.rand(n, h, w, generator=generator) < 0.7
    mask[:, h // 2, w // 2] = True
    return x, mask


def plain(block, x, mask):
    """A block with one attention over the whole grid: who sees whom, and with which bias, token by token."""
    h, w, dim = x.shape
    heads, window = block.attn.heads, block.window
    places = [(y, z) for y in range(h) for z in range(w)]
    shift = [window // 2 if block.is_shifted and cells > window else 0 for cells in (h, w)]
    window_of = [tuple((at + by) // window for at, by in zip(place, shift, strict=True)) for place in places]
    scores = torch.full((heads, h * w, h * w), -math.inf, dtype=torch.float64)
    q, k, v = block.attn.qkv(block.norm1(x).reshape(h * w, dim)).reshape(h * w, 3, heads, -1).permute(1, 2, 0, 3)
    for i, (qy, qx) in enumerate(places):
        for j, (ky, kx) in enumerate(places):
            if window_of[i] == window_of[j] and (mask[ky, kx] or i == j):
                number = (qy - ky + window - 1) * (2 * window - 1) + qx - kx + window - 1
                product = (q[:, i] * k[:, j]).sum(1) / math.sqrt(dim / heads)
                scores[:, i, j] = product + block.attn.offset_bias[number]
    mixed = torch.softmax(scores, 2) @ v  # heads, t, dim / heads
    x = x + block.attn.proj(mixed.transpose(0, 1).flatten(1)).reshape(h, w, dim)
    return x + block.mlp(block.norm2(x))


@pytest.mark.parametrize("is_shifted", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_a_block_is_attention_in_which_only_tokens_of_a_window_see_each_other(size, is_shifted):
    block = WindowBlock(6, heads=2, window=3, is_shifted=is_shifted)
    random_weights(block, seed=3)
    block.double().requires_grad_(False)
    x = torch.randn(2, *size, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    mask = grids(2, *size)[1]
    found = block(x, mask)
    for k in range(2):
        expected = plain(block, x[k], mask[k])
        torch.testing.assert_close(found[k][mask[k]], expected[mask[k]], rtol=1e-10, atol=1e-10)


def test_every_second_block_is_shifted_so_that_windows_meet():
    x, _ = grids(1, 8, 8)
    x.requires_grad_()

    def reach(depth):
        (grown,) = torch.autograd.grad(made(depth=depth).forward_tokens(x)[0, 0, 0].square().sum(), x)
        return grown[0].abs().sum(0) > 0

    assert reach(1).nonzero().amax(0).tolist() == [3, 3]
    assert reach(2).nonzero().amax(0).tolist() == [3, 3]  # the shifted window of the corner lies inside the first
    assert reach(3).all()


@pytest.mark.parametrize("size", SIZES)
def test_the_vector_is_the_mean_of_the_tokens_that_count(size):
    network, (x, mask) = made(), grids(2, *size)
    tokens = network.forward_tokens(x, mask)
    expected = torch.stack([one[counts].mean(0) for one, counts in zip(tokens, mask, strict=True)])
    torch.testing.assert_close(network(x, mask), expected)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_tokens_that_do_not_count_have_no_influence(value):
    network, (x, mask) = made(), grids(2, 5, 7)
    spoiled = torch.where(mask[:, None], x, value).requires_grad_()
    x.requires_grad_()
    assert torch.equal(network(x, mask), network(spoiled, mask))
    clean, other = (
        torch.autograd.grad(network(one, mask).square().sum(), [one, *network.parameters()]) for one in (x, spoiled)
    )
    assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(clean, other, strict=True))
    assert not other[0].permute(0, 2, 3, 1)[~mask].any()


def test_an_edge_is_like_tokens_that_do_not_count():
    network, (x, _) = made(), grids(1, 5, 6)
    larger = torch.nn.functional.pad(x, (0, 2, 0, 7))
    mask = torch.zeros(1, 12, 8, dtype=torch.bool)
    mask[:, :5, :6] = True
    torch.testing.assert_close(network(larger, mask), network(x))


@pytest.mark.parametrize(("h", "w", "window"), [(4, 6, 2), (3, 3, 3), (6, 3, 3), (2, 5, 1)])
def test_windows_are_cut_and_joined(h, w, window):
    x = torch.arange(2 * h * w * 3).reshape(2, h, w, 3)
    cut = to_windows(x, window)
    assert cut.shape == (2 * h * w // window**2, window**2, 3)
    first = x[0, :window, :window].reshape(-1, 3)
    assert torch.equal(cut[0], first)
    assert torch.equal(from_windows(cut, (h, w)), x)


@pytest.mark.parametrize(
    ("x", "mask", "named"),
    [
        (torch.zeros(2, 4, 3, 3), None, r"\(n, 5, gh, gw\)"),
        (torch.zeros(2, 5, 3, 3), torch.ones(2, 3, 3), "bool of shape"),
        (torch.zeros(2, 5, 3, 3), torch.ones(2, 3, dtype=torch.bool), r"bool of shape \(2, 3, 3\)"),
        (torch.zeros(2, 5, 3, 3), torch.eye(3, dtype=torch.bool)[None] * torch.tensor([True, False])[:, None, None],
         "no token that counts in 1 of 2 grids"),
    ],
)  # fmt: skip
def test_grids_of_another_form_are_refused(x, mask, named):
    with pytest.raises(StageError, match=named):
        made()(x.double(), mask)


@pytest.mark.parametrize("params", [{"heads": 3}, {"window": 0}])
def test_networks_that_cannot_be_made_are_refused(params):
    with pytest.raises(ConfigError, match="windowed transformer"):
        made(**params)
