"""Attention maps of a hierarchy against their definition, written slowly in NumPy; ranks, edges and refusals."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import rankdata

from tests.models.test_handcrafted import image_of
from tilestream.errors import ConfigError, StageError
from tilestream.types import Batch, Channel

torch = pytest.importorskip("torch")

from tests.models.attending import REGION_HEADS, TILE_HEADS, TILE_PX, TOKENS, pair  # noqa: E402
from tilestream.models.attended import make_attended  # noqa: E402
from tilestream.models.attention import percentiles  # noqa: E402
from tilestream.models.attention_stage import attention  # noqa: E402

PAIR = "tests.models.attending:pair"
STRIDE = TILE_PX // TOKENS
HALO = 3 * TILE_PX // 2


def ranks_of_pixels(values, pixels):
    """The definition: each token is `pixels` pixels, which share their mean rank."""
    drawn = np.repeat(values, pixels)
    return (rankdata(drawn) * 100 / len(drawn))[::pixels]


def cut(image, y, x, edge):
    """A square of an image `(c, y, x)`, 0 beyond it, and which of its pixels are inside."""
    found, inside = np.zeros((len(image), edge, edge), image.dtype), np.zeros((edge, edge), bool)
    part = image[:, max(y, 0) : max(y + edge, 0), max(x, 0) : max(x + edge, 0)]
    top, left = max(-y, 0), max(-x, 0)
    found[:, top : top + part.shape[1], left : left + part.shape[2]] = part
    inside[top : top + part.shape[1], left : left + part.shape[2]] = True
    return found, inside


def reference(image, y, x, region_px, *, heads=(REGION_HEADS, TILE_HEADS)):
    """The map of the region of `image` at y, x: mean, heads of regions, heads of tiles, pairs."""
    tile_network, region_network = pair()
    tiles, edge = region_px // TILE_PX, region_px // STRIDE
    sums = {"tile": np.zeros((heads[1], edge, edge)), "region": np.zeros((heads[0], edge, edge))}
    weights = {"tile": np.zeros((edge, edge)), "region": np.zeros((edge, edge))}
    for shift in (0, 8, 16, 24):  # px: halves of a tile
        pixels, inside = cut(image, y + shift, x + shift, region_px)
        maps = {"tile": np.zeros((heads[1], edge, edge)), "region": np.zeros((heads[0], edge, edge))}
        counts, grid = np.zeros((tiles, tiles), bool), np.zeros((24, tiles, tiles), "f4")
        for i, j in itertools.product(range(tiles), repeat=2):
            here = np.s_[i * TILE_PX : (i + 1) * TILE_PX, j * TILE_PX : (j + 1) * TILE_PX]
            if not inside[here].any():
                continue
            counts[i, j] = True
            tile = torch.from_numpy((pixels[:, *here][None] / 255 - 0.5) / 0.5).float()
            with torch.inference_mode():
                grid[:, i, j] = tile_network(tile)[0].numpy()
                seen = tile_network.forward_attention(tile)[0].numpy()
            for head in range(heads[1]):
                ranks = ranks_of_pixels(seen[head].ravel(), STRIDE**2).reshape(TOKENS, TOKENS)
                maps["tile"][head, i * TOKENS : (i + 1) * TOKENS, j * TOKENS : (j + 1) * TOKENS] = ranks
        if not counts.any():
            continue
        with torch.inference_mode():
            seen = region_network.forward_attention(torch.from_numpy(grid)[None], torch.from_numpy(counts)[None])[0]
        for head in range(heads[0]):
            ranks = np.zeros((tiles, tiles))
            ranks[counts] = ranks_of_pixels(seen[head].numpy()[counts], TILE_PX**2)
            maps["region"][head] = np.kron(ranks, np.ones((TOKENS, TOKENS)))
        there, step = np.kron(counts, np.ones((TOKENS, TOKENS))), shift // STRIDE
        for kind in ("region", "tile") if shift in (0, 8) else ("region",):
            sums[kind][:, step:, step:] += maps[kind][:, : edge - step, : edge - step]
            weights[kind][step:, step:] += there[: edge - step, : edge - step]
    with np.errstate(invalid="ignore"):
        region, tile = (sums[kind] / weights[kind] for kind in ("region", "tile"))
        both = weights["region"] + weights["tile"]
        pairs = [
            (region[i] * weights["region"] + tile[j] * weights["tile"]) / both
            for i, j in itertools.product(range(heads[0]), range(heads[1]))
        ]
    return np.stack([np.mean(pairs, axis=0), *region, *tile, *pairs])


def batch_at(image, y, x, region_px):
    pixels, inside = cut(image, y - HALO, x - HALO, region_px + 2 * HALO)
    interleaved = np.ascontiguousarray(pixels.transpose(1, 2, 0))[None].transpose(0, 3, 1, 2)
    return Batch(
        pixels=interleaved, valid=None if inside.all() else inside[None], valid_share=np.ones(1, "f4"),
        rows=np.zeros(1, "i8"), tile_yx=np.array([[y - HALO, x - HALO]]),
    )  # fmt: skip


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (3, 150, 203), np.uint8)


@pytest.mark.parametrize(("y", "x"), [(64, 64), (0, 0), (0, 128), (128, 64), (128, 192)])
@pytest.mark.parametrize("region_px", [64])
def test_the_map_of_a_region_is_the_definition(image, y, x, region_px):
    stage = attention(PAIR, region_px=region_px)
    found = stage(batch_at(image, y, x, region_px))
    halo = HALO // STRIDE
    core = found[0, :, halo:-halo, halo:-halo]
    expected = reference(image, y, x, region_px)
    inside = np.zeros(core.shape[1:], bool)
    inside[: -(-(150 - y) // STRIDE), : -(-(203 - x) // STRIDE)] = True
    assert np.isfinite(core[:, inside]).all()
    np.testing.assert_allclose(core[:, inside], expected[:, inside], atol=0.02)  # ties of attention are up to rounding
    np.testing.assert_array_equal(np.isnan(core), np.isnan(expected))
    assert np.isnan(found[0, :, :halo]).all()
    assert np.isnan(found[0, :, :, -halo:]).all()


def test_copies_see_the_pixels_beyond_the_region(image):
    stage = attention(PAIR, region_px=64)
    changed = image.copy()
    changed[:, 128:, 128:] = 255 - changed[:, 128:, 128:]
    halo = HALO // STRIDE
    one, other = (stage(batch_at(pixels, 64, 64, 64))[0, :, halo:-halo, halo:-halo] for pixels in (image, changed))
    assert not np.array_equal(one, other)
    np.testing.assert_array_equal(one[:, :2, :2], other[:, :2, :2])  # no moved copy reaches there


@pytest.mark.parametrize("pixels", [1, 4, 9])
def test_ranks_are_those_of_pixels_and_ties_share_theirs(pixels):
    rng = np.random.default_rng(1)
    values = rng.integers(0, 6, (5, 16)).astype("f4")  # many ties
    mask = rng.random((5, 16)) < 0.7
    found = percentiles(torch.from_numpy(values), torch.from_numpy(mask), pixels=pixels).numpy()
    for row, one in enumerate(values):
        expected = ranks_of_pixels(one[mask[row]], pixels).reshape(-1)
        np.testing.assert_allclose(found[row, mask[row]], expected, rtol=1e-6)
    assert (found[~mask] == 0).all()
    everywhere = percentiles(torch.from_numpy(values), pixels=pixels).numpy()
    np.testing.assert_allclose(everywhere.mean(axis=1), 50 + 50 / (16 * pixels), rtol=1e-6)


def test_a_row_with_a_value_that_is_not_finite_has_no_ranks():
    values = torch.tensor([[1.0, float("nan"), 2.0], [1.0, 2.0, float("inf")], [3.0, 2.0, 1.0]])
    found = percentiles(values)
    assert found[:2].isnan().all()
    assert found[2].isfinite().all()
    masked = percentiles(values, torch.tensor([[True, False, True]]))
    assert masked[0].tolist() == [50.0, 0.0, 100.0]


def test_names_and_what_the_store_is_told():
    stage = attention(PAIR, region_px=64)
    names = stage.output_names(image_of())
    assert names[:6] == ("mean", "64_0", "64_1", "64_2", "16_0", "16_1")
    assert names[6:] == tuple(f"64_{i}_16_{j}" for i in range(3) for j in range(2))
    contract = stage.contract
    assert (contract.px, contract.halo_px, contract.stride, contract.keeps_place) == (64 + 48, 24, 4, True)
    assert (contract.stored, contract.value_range, contract.dim) == ("uint8", (0.0, 100.0), 12)
    spec = stage.for_image(image_of())
    assert attention(**spec.params).contract == contract


def test_a_network_of_tiles_alone_has_maps_too(image):
    stage = attention("tests.models.attending:tiles_only", region_px=32)
    assert stage.output_names(image_of()) == ("mean", "16_0", "16_1")
    halo = HALO // STRIDE
    found = stage(batch_at(image, 32, 32, 32))[0, :, halo:-halo, halo:-halo]
    whole = attention(PAIR, region_px=32, maps=("tile",))(batch_at(image, 32, 32, 32))[0, :, halo:-halo, halo:-halo]
    np.testing.assert_array_equal(found[1:], whole)
    np.testing.assert_allclose(found[0], whole.mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"encoder": "hipt"}, "vit256_small_dino.pth"),
        ({"encoder": "tests.models.attending:without_attention"}, "has no `forward_attention`"),
        ({"encoder": PAIR, "region_px": 60}, "a multiple of 16 px"),
        ({"encoder": PAIR, "region_px": 64, "maps": ["mean", "mean"]}, "each once"),
        ({"encoder": PAIR, "region_px": 64, "maps": ["heads"]}, "some of mean, region, tile, pairs"),
        ({"encoder": "tests.models.attending:tiles_only", "region_px": 64, "maps": ["pairs"]}, "some of mean, tile"),
        ({"encoder": PAIR, "region_px": 64, "digests": {"encoder": "0"}}, "while a run is at work"),
    ],
)
def test_what_is_refused(given, words):
    with pytest.raises(ConfigError, match=words):
        attention(**given)


def test_without_torch_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"attention of `hipt`: got no package `torch`.*'\.\[torch\]'"):
        make_attended("hipt", random_weights=1)


def test_an_image_of_four_channels_is_refused():
    image = image_of()
    four = replace(image, channels=(*image.channels, Channel(name="near infrared")))
    with pytest.raises(StageError, match="4 channels"):
        attention(PAIR, region_px=64).for_image(four)


def test_one_pass_gives_vectors_and_attention_to_the_bit():
    tile_network, _ = pair()
    tiles = torch.rand(3, 3, TILE_PX, TILE_PX, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        vectors, seen = tile_network.forward_both(tiles)
        assert torch.equal(vectors, tile_network(tiles))
        assert torch.equal(seen, tile_network.forward_attention(tiles))
