from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from tests.models.plainvit import PlainViT, random_state  # noqa: E402
from tilestream.errors import StageError  # noqa: E402
from tilestream.models.positions import resized_positions  # noqa: E402
from tilestream.models.vit import GridEmbed, PatchEmbed, VisionTransformer  # noqa: E402


def tiny(**options):
    """Two blocks over the 4 x 4 tokens of 16 px."""
    options = {"dim": 24, "depth": 2, "heads": 3, "grid_yx": (4, 4), **options}
    module = VisionTransformer(PatchEmbed(patch_px=4, channels=3, dim=24), **options)
    module.load_state_dict(random_state(module))
    return module


def over_grids(**options):
    module = VisionTransformer(GridEmbed(channels=10, dim=24), dim=24, depth=2, heads=2, grid_yx=(4, 4), **options)
    module.load_state_dict(random_state(module))
    return module


def values(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("grid", [(4, 4), (6, 6), (3, 7), (2, 8), (1, 1)])
@pytest.mark.parametrize("make", [tiny, over_grids])
def test_any_grid_gives_what_torchs_own_layers_give(make, grid):
    module = make()
    shape = (2, 3, 4 * grid[0], 4 * grid[1]) if make is tiny else (2, 10, *grid)
    reference = PlainViT(module.state_dict(), depth=2, heads=3 if make is tiny else 2, side=4)
    x = values(*shape)
    tokens, attention = reference.run(x)
    torch.testing.assert_close(module.forward_tokens(x), tokens, atol=1e-5, rtol=0)
    torch.testing.assert_close(module(x), tokens[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(module.forward_attention(x), attention, atol=1e-6, rtol=0)


def test_the_two_rules_of_positions_differ_as_published():
    """On a random embedding, 14 to 16 tokens: 11 % RMS."""
    learned = values(1, 197, 384) * 0.02
    scale = resized_positions(learned, (14, 14), (16, 16), rule="scale")
    size = F.interpolate(learned[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2), size=(16, 16), mode="bicubic")
    plain = size.permute(0, 2, 3, 1).flatten(1, 2)
    relative = float((scale[:, 1:] - plain).square().mean().sqrt() / plain.square().mean().sqrt())
    assert 0.08 < relative < 0.14
    assert torch.equal(scale[:, :1], learned[:, :1])


def test_the_size_rule_is_bicubic_and_antialiased():
    learned = values(1, 1 + 6 * 5, 8)
    grid = learned[:, 1:].unflatten(1, (6, 5)).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, size=(3, 9), mode="bicubic", antialias=True).permute(0, 2, 3, 1).flatten(1, 2)
    found = resized_positions(learned, (6, 5), (3, 9), rule="size")
    torch.testing.assert_close(found[:, 1:], expected)
    without = F.interpolate(grid, size=(3, 9), mode="bicubic").permute(0, 2, 3, 1).flatten(1, 2)
    assert float((found[:, 1:] - without).abs().max()) > 0.05  # shrinking without it aliases


@pytest.mark.parametrize("rule", ["scale", "size"])
@pytest.mark.parametrize("to", [(6, 11), (11, 6)])
def test_positions_keep_their_axes(rule, to):
    """What varies along rows varies along rows only, also on grids that are not square."""
    rows = torch.linspace(0, 1, 4)[:, None].expand(4, 4)
    learned = torch.cat([torch.zeros(1, 1, 2), torch.stack([rows, rows.T], dim=2).reshape(1, 16, 2)], dim=1)
    grid = resized_positions(learned, (4, 4), to, rule=rule)[0, 1:].unflatten(0, to)
    along_y, along_x = grid[..., 0], grid[..., 1]
    torch.testing.assert_close(along_y, along_y[:, :1].expand(to))
    torch.testing.assert_close(along_x, along_x[:1].expand(to))
    assert (along_y[1:-1].diff(dim=0) > 0).all()
    assert (along_x[:, 1:-1].diff(dim=1) > 0).all()


def test_positions_are_kept_as_they_are_on_their_own_grid_only():
    learned = values(1, 17, 8)
    assert resized_positions(learned, (4, 4), (4, 4), rule="scale") is learned
    assert not torch.allclose(resized_positions(learned, (4, 4), (2, 8), rule="scale"), learned)


def test_masked_tokens_are_looked_at_by_none():
    module, x = over_grids(), values(2, 10, 4, 4)
    mask = torch.ones(2, 4, 4, dtype=torch.bool)
    assert torch.equal(module(x, mask), module(x, mask.clone()))
    torch.testing.assert_close(module(x, mask), module(x), atol=1e-6, rtol=0)
    mask[0, 1:3, 2], mask[1, 3] = False, False
    other = torch.where(mask[:, None], x, 1e4 * values(2, 10, 4, 4, seed=1))
    torch.testing.assert_close(module(other, mask), module(x, mask), atol=1e-6, rtol=0)
    assert not torch.allclose(module(other), module(x), atol=1e-2)
    assert not torch.allclose(module(x, mask), module(x), atol=1e-3)
    attention = module.forward_attention(other, mask)
    assert not attention.masked_select(~mask[:, None]).any()
    kept = module.forward_tokens(other, mask)[:, 1:].unflatten(1, (4, 4))[mask]
    torch.testing.assert_close(
        kept, module.forward_tokens(x, mask)[:, 1:].unflatten(1, (4, 4))[mask], atol=1e-5, rtol=0
    )


def test_a_masked_grid_is_that_of_the_tokens_that_count():
    """The class token with the others that count, by torch's own layers, is all that a masked grid is."""
    module, x = over_grids(), values(1, 10, 4, 4)
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, 0, 1], mask[0, 3, 2], mask[0, 2, 2] = True, True, True
    reference = PlainViT(module.state_dict(), depth=2, heads=2, side=4)
    tokens = reference.embed(x)[0] + reference.positions((4, 4))[:, 1:]
    few = torch.cat([module.cls_token + module.pos_embed[:, :1], tokens[:, mask.flatten()]], dim=1)
    for layer in reference.layers:
        few = layer(few)
    torch.testing.assert_close(module(x, mask), reference.norm(few)[:, 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("how", ["forward", "forward_tokens", "forward_attention"])
def test_a_grid_in_which_nothing_counts_raises(how):
    mask = torch.ones(3, 4, 4, dtype=torch.bool)
    mask[1] = False
    with pytest.raises(StageError, match=r"no token that counts in 1 of 3 grids"):
        getattr(over_grids(), how)(values(3, 10, 4, 4), mask)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("how", ["forward", "forward_tokens", "forward_attention"])
def test_a_tile_gives_the_same_bits_in_any_batch(how, autocast):
    module = VisionTransformer(PatchEmbed(patch_px=8, dim=96), dim=96, depth=2, heads=3, grid_yx=(4, 4))
    module.load_state_dict(random_state(module))
    x = values(9, 3, 40, 32)
    mask = values(9, 5, 4, seed=2) > -1
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        run = getattr(module, how)
        alone = torch.cat([run(x[k : k + 1], mask[k : k + 1]) for k in range(9)])
        for cut in ((9,), (4, 5), (1, 6, 2)):
            found = [run(*part) for part in zip(x.split(cut), mask.split(cut), strict=True)]
            assert torch.equal(torch.cat(found), alone)
        assert torch.equal(run(x.flip(0), mask.flip(0)).flip(0), alone)
        assert torch.equal(run(x.contiguous(memory_format=torch.channels_last), mask), alone)
        assert run(x[:0], mask[:0]).shape == (0, *alone.shape[1:])


@pytest.mark.parametrize(
    ("make", "shape", "mask", "says"),
    [
        (tiny, (1, 4, 16, 16), None, r"\(n, 3, h, w\), h and w multiples of 4"),
        (tiny, (1, 3, 18, 16), None, r"multiples of 4"),
        (over_grids, (1, 9, 4, 4), None, r"\(n, 10, gh, gw\)"),
        (over_grids, (1, 10, 4, 4), torch.ones(1, 4, 3, dtype=torch.bool), r"bool of shape \(1, 4, 4\)"),
        (over_grids, (1, 10, 4, 4), torch.ones(1, 4, 4), r"got torch.float32"),
    ],
)
def test_other_inputs_are_refused(make, shape, mask, says):
    with pytest.raises(StageError, match=says):
        make()(values(*shape), mask)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_stay_close(dtype):
    module, x = tiny(), values(4, 3, 24, 24)
    exact = module(x)
    with torch.autocast("cpu", dtype=dtype):
        mixed, attention = module(x), module.forward_attention(x)
    assert F.cosine_similarity(mixed.float(), exact).min() > 0.999
    assert attention.dtype == torch.float32
    half = tiny().to(dtype)(x.to(dtype))
    assert half.dtype == dtype
    assert F.cosine_similarity(half.float(), exact).min() > 0.999


def test_double_precision_is_kept():
    module, x = tiny().double(), values(1, 3, 24, 24).double()
    torch.testing.assert_close(module(x), module.forward_tokens(x)[:, 0], atol=1e-13, rtol=0)


@pytest.mark.parametrize("masked", [False, True])
def test_every_parameter_learns(masked):
    module = over_grids().train()
    mask = torch.ones(2, 6, 5, dtype=torch.bool)
    mask[:, 2] = not masked
    module(values(2, 10, 6, 5), mask).square().sum().backward()
    assert [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_gradients_of_the_vector_are_those_of_all_tokens():
    one, all_ = tiny(), tiny()
    x = values(2, 3, 16, 16)
    one(x).sin().sum().backward()
    all_.forward_tokens(x)[:, 0].sin().sum().backward()
    for (name, a), b in zip(one.named_parameters(), all_.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-4, msg=lambda text, of=name: f"{of}: {text}")


def test_it_starts_as_dino_does():
    module = VisionTransformer(PatchEmbed(dim=96), dim=96, depth=1, heads=3)
    assert 0.015 < float(module.pos_embed.detach().std()) < 0.025
    assert 0.015 < float(module.blocks[0].attn.qkv.weight.detach().std()) < 0.025
    assert not module.blocks[0].mlp.fc1.bias.any()
