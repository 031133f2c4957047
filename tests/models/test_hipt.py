from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from tests.models.plainvit import PlainViT, random_state  # noqa: E402
from tilestream.errors import StageError  # noqa: E402
from tilestream.models.hipt import SlideTransformer, vit4k, vit256  # noqa: E402
from tilestream.models.runners import one_torch_thread  # noqa: E402

STAGES = {"vit256": (vit256, 12, 6, 150, 21_665_664), "vit4k": (vit4k, 6, 6, 78, 2_781_504)}


@pytest.fixture(autouse=True)
def one_thread():
    with one_torch_thread(), torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def stages():
    """Both published networks and their references, with the same random weights."""
    made = {}
    for name, (make, depth, heads, _, _) in STAGES.items():
        module = make().eval()
        state = random_state(module, seed=len(name))
        module.load_state_dict(state, strict=True)
        made[name] = module, PlainViT(state, depth=depth, heads=heads)
    return made


def pixels(*shape, seed=1):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("name", STAGES)
def test_stages_have_the_published_tensors(name):
    make, depth, _, tensors, parameters = STAGES[name]
    state = make().state_dict()
    assert len(state) == tensors
    assert sum(tensor.numel() for tensor in state.values()) == parameters
    dim = state["cls_token"].shape[2]
    assert tuple(state["pos_embed"].shape) == (1, 197, dim)
    assert tuple(state[f"blocks.{depth - 1}.attn.qkv.weight"].shape) == (3 * dim, dim)
    assert ("phi.0.weight" in state) == (name == "vit4k")
    assert ("patch_embed.proj.weight" in state) == (name == "vit256")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("vit256", (1, 3, 256, 256)),
        ("vit256", (1, 3, 224, 224)),
        ("vit256", (1, 3, 192, 320)),
        ("vit4k", (2, 384, 16, 16)),
        ("vit4k", (2, 384, 14, 14)),
        ("vit4k", (2, 384, 7, 28)),  # 196 tokens that are not square
        ("vit4k", (2, 384, 11, 16)),
    ],
)
def test_a_stage_gives_what_its_definition_gives(stages, name, shape):
    module, reference = stages[name]
    x = pixels(*shape)
    tokens, attention = reference.run(x)
    torch.testing.assert_close(module(x), tokens[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(module.forward_tokens(x), tokens, atol=1e-5, rtol=0)
    torch.testing.assert_close(module.forward_attention(x), attention, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("rows", "columns", "tile_px"), [(16, 16, 16), (14, 14, 16), (5, 16, 32), (1, 2, 256)])
def test_the_vector_of_a_region_is_that_of_the_definition(stages, rows, columns, tile_px):
    """Pixels of a region, cut row by row, through both stages; small tiles keep large grids affordable."""
    region = pixels(1, 3, rows * tile_px, columns * tile_px)
    tiles = region.unfold(2, tile_px, tile_px).unfold(3, tile_px, tile_px)  # 1, 3, rows, columns, px, px
    tiles = tiles.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, tile_px, tile_px)
    vectors = []
    for k in (0, 1):
        first, second = stages["vit256"][k], stages["vit4k"][k]
        run = (lambda net, x: net(x)) if k == 0 else (lambda net, x: net.run(x)[0][:, 0])
        grid = run(first, tiles).reshape(1, rows, columns, 384).permute(0, 3, 1, 2)
        vectors.append(run(second, grid))
    assert float(vectors[1].std()) > 0.1
    torch.testing.assert_close(vectors[0], vectors[1], atol=1e-5, rtol=0)


def slide_stage():
    module = SlideTransformer().eval()
    module.load_state_dict(random_state(module, seed=3))
    return module


def test_the_slide_stage_gives_what_its_definition_gives():
    module, x = slide_stage(), pixels(1, 7, 192)
    state = module.state_dict()

    def linear(name, values):
        return values @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    tokens = linear("global_phi.0", x[0]).relu()
    for layer in ("global_transformer.layers.0.", "global_transformer.layers.1."):
        inner = tokens @ state[f"{layer}self_attn.in_proj_weight"].T + state[f"{layer}self_attn.in_proj_bias"]
        q, k, v = (part.reshape(7, 3, 64).transpose(0, 1) for part in inner.split(192, dim=1))
        mixed = (torch.softmax(q @ k.transpose(1, 2) / 8, dim=2) @ v).transpose(0, 1).reshape(7, 192)
        for step, values in (("1", linear(f"{layer}self_attn.out_proj", mixed)), ("2", None)):
            values = linear(f"{layer}linear2", linear(f"{layer}linear1", tokens).relu()) if values is None else values
            tokens = tokens + values  # post-norm
            centred = tokens - tokens.mean(1, keepdim=True)
            tokens = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
            tokens = tokens * state[f"{layer}norm{step}.weight"] + state[f"{layer}norm{step}.bias"]
    gate = linear("global_attn_pool.attention_a.0", tokens).tanh()
    gate = gate * linear("global_attn_pool.attention_b.0", tokens).sigmoid()
    weights = torch.softmax(linear("global_attn_pool.attention_c", gate)[:, 0], dim=0)
    expected = linear("global_rho.0", weights @ tokens).relu()
    torch.testing.assert_close(module(x)[0], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(module.forward_attention(x)[0], weights, atol=1e-6, rtol=0)


def test_slides_of_other_lengths_share_a_batch_and_order_does_not_matter():
    module = slide_stage()
    long, short = pixels(1, 9, 192), pixels(1, 4, 192, seed=2)
    both = torch.full((2, 9, 192), 1e6)
    both[0], both[1, :4] = long[0], short[0]
    mask = torch.arange(9)[None] < torch.tensor([[9], [4]])
    together = module(both, mask)
    torch.testing.assert_close(together, torch.cat([module(long), module(short)]), atol=1e-5, rtol=0)
    weights = module.forward_attention(both, mask)
    torch.testing.assert_close(weights.sum(1), torch.ones(2))
    assert not weights[1, 4:].any()
    torch.testing.assert_close(module(long.flip(1)), module(long), atol=1e-5, rtol=0)


def test_the_slide_stage_refuses_a_slide_without_regions():
    with pytest.raises(StageError, match="a slide without a region"):
        slide_stage()(pixels(2, 3, 192), torch.tensor([[True, False, True], [False, False, False]]))
    with pytest.raises(StageError, match=r"bool of shape \(2, 3\)"):
        slide_stage()(pixels(2, 3, 192), torch.ones(2, 4, dtype=torch.bool))


def test_every_parameter_of_the_slide_stage_learns():
    with torch.inference_mode(False):
        module = SlideTransformer()
        module(pixels(2, 5, 192).clone()).square().sum().backward()
        without = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]
        assert set(without) <= {"global_attn_pool.attention_c.bias"}  # a softmax does not see it
