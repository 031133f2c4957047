"""MViTv2: its definition in loops, its size, and inputs of other sizes."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.torchvisions import stand_in  # noqa: E402
from tilestream.errors import StageError  # noqa: E402
from tilestream.models.mvit import (  # noqa: E402
    MultiscaleTransformer,
    PoolingAttention,
    mvitv2_tiny,
    own_names,
    relative_table,
)
from tilestream.models.weights import random_weights  # noqa: E402


def attention(*, dim=3, out=4, heads=2, q_stride=1, kv_stride=2, cells=4):
    found = PoolingAttention(dim, out, heads=heads, q_stride=q_stride, kv_stride=kv_stride, cells=cells).double()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64, generator=generator))
    return found.requires_grad_(False)


def in_loops(layer, x, q_stride, kv_stride):
    """The definition, one query at a time: pooled projections, relative positions, softmax, the query added."""
    h, w, _ = x.shape
    heads, width = layer.heads, layer.rel_pos_h.shape[1]
    projected = (x.reshape(h * w, -1) @ layer.qkv.weight.T + layer.qkv.bias).reshape(h, w, 3, heads, width)

    def pooled(which, head, name, stride):
        kernel, norm = getattr(layer, f"pool_{name}").weight[:, 0], getattr(layer, f"norm_{name}")
        found = {}
        for y in range(0, h, stride):
            for z in range(0, w, stride):
                total = torch.zeros(width, dtype=torch.float64)
                for dy in (-1, 0, 1):
                    for dz in (-1, 0, 1):
                        if 0 <= y + dy < h and 0 <= z + dz < w:
                            total += kernel[:, dy + 1, dz + 1] * projected[y + dy, z + dz, which, head]
                centred = total - total.mean()
                scaled = centred / torch.sqrt(centred.square().mean() + 1e-6)
                found[y, z] = scaled * norm.weight + norm.bias
        return found

    # distances are counted in tokens of the finer of the two grids, from that between the first query and the last key
    step = min(q_stride, kv_stride)
    zero_y, zero_x = (max(range(0, edge, kv_stride)) // step for edge in (h, w))
    out = {}
    for head in range(heads):
        q, k, v = (
            pooled(i, head, name, stride)
            for i, (name, stride) in enumerate((("q", q_stride), ("k", kv_stride), ("v", kv_stride)))
        )
        for (qy, qx), query in q.items():
            scores = []
            for (ky, kx), key in k.items():
                along = layer.rel_pos_h[zero_y + (qy - ky) // step] + layer.rel_pos_w[zero_x + (qx - kx) // step]
                scores.append(query @ key / math.sqrt(width) + query @ along)
            share = torch.softmax(torch.stack(scores), 0)
            out.setdefault((qy, qx), []).append(share @ torch.stack(list(v.values())) + query)
    grid = [torch.cat(out[place]) @ layer.proj.weight.T + layer.proj.bias for place in sorted(out)]
    return torch.stack(grid).reshape(len({y for y, _ in out}), len({z for _, z in out}), -1)


@pytest.mark.parametrize(("q_stride", "kv_stride"), [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2)])
def test_pooling_attention_is_its_definition(q_stride, kv_stride):
    layer = attention(q_stride=q_stride, kv_stride=kv_stride)
    x = torch.randn(2, 4, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    found = layer(x)
    for one, expected in zip(found, x, strict=True):
        torch.testing.assert_close(one, in_loops(layer, expected, q_stride, kv_stride), rtol=1e-9, atol=1e-9)


def test_distances_count_rows_and_columns_apart():
    layer = attention(q_stride=1, kv_stride=2, cells=8)
    x = torch.randn(1, 8, 8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    turned = attention(q_stride=1, kv_stride=2, cells=8)
    turned.rel_pos_h, turned.rel_pos_w = layer.rel_pos_w, layer.rel_pos_h
    for name in ("q", "k", "v"):
        pool = getattr(turned, f"pool_{name}")
        pool.weight.copy_(pool.weight.transpose(2, 3).clone())
    torch.testing.assert_close(turned(x.transpose(1, 2)).transpose(1, 2), layer(x))
    assert not torch.allclose(layer(x.transpose(1, 2)).transpose(1, 2), layer(x))


def test_tables_are_used_as_they_are_on_the_grid_they_were_learned_on():
    table = torch.arange(7.0)[:, None]
    assert relative_table(table, 4, 4)[:, :, 0].tolist() == [[3 + q - k for k in range(4)] for q in range(4)]
    assert relative_table(table, 4, 2)[:, :, 0].tolist() == [[2 + q - 2 * k for k in range(2)] for q in range(4)]
    assert relative_table(table, 2, 4)[:, :, 0].tolist() == [[3 + 2 * q - k for k in range(4)] for q in range(2)]


@pytest.mark.parametrize("cells", [1, 2, 3, 5, 8, 20])
def test_tables_are_interpolated_linearly_for_other_grids(cells):
    table = torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    found = relative_table(table, cells, cells)
    # the new distances lie evenly in the width of the old ones, each in the middle of its share
    distances = 2 * cells - 1
    places = (np.arange(distances) + 0.5) * 7 / distances - 0.5
    for channel in range(2):
        expected = np.interp(places, np.arange(7), table[:, channel].numpy())
        for q in range(cells):
            for k in range(cells):
                assert found[q, k, channel].item() == pytest.approx(expected[q - k + cells - 1], abs=1e-12)


def counted(dims, depths, heads, px, channels=3):
    """Parameters by the definition."""
    total = channels * 49 * dims[0] + dims[0]
    dim, cells = dims[0], px // 4
    for stage, (out, depth, count) in enumerate(zip(dims, depths, heads, strict=True)):
        width = out // count
        for block in range(depth):
            q_stride, kv_stride = (2 if stage and not block else 1), max(4 >> stage, 1)
            distances = 2 * max(cells // q_stride, cells // kv_stride) - 1
            total += 2 * dim + (dim * out + out if dim != out else 0)  # norm, shortcut
            total += 3 * (dim * out + out) + out * out + out  # qkv, proj
            total += 3 * (9 * width + 2 * width) + 2 * distances * width  # pooling with norms, relative positions
            total += 2 * out + 8 * out * out + 5 * out  # norm, mlp
            dim, cells = out, cells // q_stride
    return total + 2 * dim


def test_the_tiny_one_has_the_published_number_of_parameters():
    # the paper's table says 24 M, its code 24,173,320, both with the classifier of 1000 classes
    network = mvitv2_tiny()
    own = sum(p.numel() for p in network.parameters())
    assert own == counted((96, 192, 384, 768), (1, 2, 5, 2), (1, 2, 4, 8), 224) == 23_404_320
    whole = own + 768 * 1000 + 1000
    assert whole == 24_173_320
    assert round(whole / 1e6) == 24
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 224, 224)).shape == (1, 768)


def as_published(state):
    """The names of the authors' files: blocks 0, 1 and 2, 3 to 7, 8 and 9 are those of the four stages."""
    first, theirs = {"0": 0, "1": 1, "2": 3, "3": 8}, {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] == "stages":
            parts = ["blocks", str(first[parts[1]] + int(parts[3])), *parts[4:]]
        theirs[".".join(parts).replace("shortcut_proj_attn", "proj")] = tensor
    return theirs


def test_names_of_the_authors_become_ours():
    state = {name: number for number, name in enumerate(mvitv2_tiny().state_dict())}
    theirs = {**as_published(state), "head.projection.bias": -1}
    assert {"blocks.1.proj.weight", "blocks.8.proj.bias", "blocks.9.attn.proj.weight"} < set(theirs)
    assert "blocks.2.proj.weight" not in theirs
    assert own_names(theirs) == {**state, "head.projection.bias": -1}
    assert own_names(state) == state


def test_it_gives_what_timms_gives():
    stand_in()
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("mvitv2_tiny", pretrained=False)
    assert sum(p.numel() for p in theirs.parameters()) == 24_173_320
    theirs.reset_classifier(0)
    ours = mvitv2_tiny()
    random_weights(ours, seed=2)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs.eval()(x), atol=1e-5, rtol=0)


def test_the_grid_halves_from_stage_to_stage():
    network = MultiscaleTransformer(dims=(4, 8, 12), depths=(1, 1, 1), heads=(1, 2, 3), px=32)
    random_weights(network, seed=0)
    with torch.inference_mode():
        for height, width in ((16, 16), (32, 48), (80, 16)):
            tokens = network.forward_tokens(torch.zeros(2, 3, height, width))
            assert tokens.shape == (2, height // 16, width // 16, 12)


@pytest.mark.parametrize("shape", [(1, 3, 32, 30), (1, 2, 32, 32), (3, 32, 32), (1, 3, 0, 32)])
def test_images_of_another_form_are_refused(shape):
    network = MultiscaleTransformer(dims=(4, 8), depths=(1, 1), heads=(1, 2), px=32)
    with pytest.raises(StageError, match=r"\(n, 3, h, w\), h and w multiples of 8"):
        network(torch.zeros(shape))
