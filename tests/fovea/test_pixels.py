"""Pixels of tokens: each read once, kept while there is room, the same from memory and from a file."""

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_allclose, assert_array_equal

import tilestream as ts
from tests.fovea.trace import gaze_trace
from tilestream.errors import BudgetError, ConfigError, DamagedError
from tilestream.fovea import Fovea, GazeStream, LevelsInMemory, LevelsOfPyramid, Normalising, SeenTokens, TokenPixels
from tilestream.kernels import mip
from tilestream.metrics import collect
from tilestream.pyramid.tokenlevels import token_level
from tilestream.types import PlanLevel, Shape

HOW = Normalising(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
FOVEA = Fovea(fixations_yx=(300, 300), e0_px=30, max_level=3)


def picture(height, width):
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


def in_memory(pixels):
    planes = np.moveaxis(pixels, 2, 0)
    return [planes, *mip(planes, levels=3)]


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """A tiled file without compression, so that what is read can be told by its bytes."""
    path = tmp_path_factory.mktemp("gaze") / "slide.tif"
    pixels = picture(640, 600)
    tifffile.imwrite(path, pixels, tile=(64, 64), photometric="rgb")
    return path, pixels


def of_file(path, **keywords):
    pyramid = ts.open_pyramid(str(path), **keywords)
    return TokenPixels(LevelsOfPyramid(pyramid, HOW), patch_px=16)


def test_a_file_and_memory_show_the_same(slide) -> None:
    path, pixels = slide
    shape = Shape(y=640, x=600)
    tokens = FOVEA.tokens(shape, patch_px=16)
    memory = TokenPixels(LevelsInMemory(in_memory(pixels), HOW), patch_px=16).read(tokens)
    file = of_file(path).read(tokens)
    assert file.pixels.shape == memory.pixels.shape == (len(tokens), 3, 16, 16)
    inside = file.share == 1
    assert inside.sum() > 60
    # levels in memory are made of whole numbers, those of a file are rounded once: half a unit of 255 apart
    assert_allclose(file.pixels[inside], memory.pixels[inside], atol=1.01 / 255 / 0.2)
    level_0 = inside & (tokens[:, 0] == 0)
    assert_array_equal(tokens[:, 0] == 0, tokens[:, 3] == 16)
    expected = (pixels[tokens[level_0][0, 1] :, tokens[level_0][0, 2] :][:16, :16] / 255 - HOW.mean) / HOW.std
    assert_allclose(file.pixels[level_0][0], np.moveaxis(expected, 2, 0), atol=2e-6)
    _, y, x, size = tokens.T
    share = np.minimum(640 - y, size) * np.minimum(600 - x, size) / size**2
    assert_allclose(memory.share, share, atol=1e-6)
    assert_allclose(file.share, share, atol=0.07), "to a pixel of the token"
    assert (share < 1).any()


def test_a_gaze_reads_the_difference_and_trembling_reads_nothing(slide) -> None:
    """Counted at the source: bytes of the file, without any cache in between."""
    path, _ = slide
    stream = GazeStream(FOVEA, Shape(y=640, x=600), patch_px=16)
    tokens = of_file(path, cache_bytes=0)
    with collect() as first:
        move = stream.move((300, 300), 0.0)
        before = tokens.read(move.tokens)
    assert first.counts["bytes_read"] > 64 * 64 * 3
    assert tokens.fetched == len(move.tokens)
    with collect() as trembling:
        for k in range(1, 20):
            move = stream.move((300 + 2 * np.sin(k), 300 + 2 * np.cos(k)), k / 60)
            found = tokens.read(move.tokens)
    assert "bytes_read" not in trembling.counts
    assert "blocks_decoded" not in trembling.counts
    assert_array_equal(found.pixels, before.pixels)
    with collect() as moved:
        move = stream.move((330, 300), 1.0)
        tokens.read(move.tokens)
    assert 0 < moved.counts["bytes_read"] < first.counts["bytes_read"] / 2
    assert tokens.fetched == len(before.pixels) + move.is_new.sum()


def test_what_is_seen_again_is_still_there() -> None:
    pixels = picture(512, 512)
    tokens = TokenPixels(LevelsInMemory(in_memory(pixels), HOW), patch_px=16)
    stream = GazeStream(FOVEA, Shape(y=512, x=512), patch_px=16)
    stream_tokens = [stream.move(at, step).tokens for step, at in enumerate([(100, 100), (400, 300), (100, 100)])]
    for seen in stream_tokens:
        tokens.read(seen)
    assert tokens.fetched == len(tokens) == len(np.unique(np.concatenate(stream_tokens), axis=0))


class Numbers:
    """Tokens whose pixels are their place."""

    channels = 1

    def __init__(self) -> None:
        self.seen = []

    def __call__(self, tokens, patch_px):
        self.seen.extend(map(tuple, tokens.tolist()))
        pixels = np.broadcast_to(tokens[:, 1].astype(np.float32)[:, None, None, None], (len(tokens), 1, 2, 2))
        damage = {row: "torn" for row, token in enumerate(tokens) if token[1] == 6}
        return SeenTokens(pixels=pixels, share=np.ones(len(tokens), np.float32), damage=damage)


def listed(*places):
    return np.array([[0, 2 * y, 0, 2] for y in places], np.int64).reshape(-1, 4)


def test_room_is_bounded_and_the_longest_unseen_goes() -> None:
    fetch = Numbers()
    tokens = TokenPixels(fetch, patch_px=2, keep_bytes=4 * 16)
    for places in ([0, 1, 2], [1, 3], [4, 5], [0]):
        found = tokens.read(listed(*places))
        assert_array_equal(found.pixels[:, 0, 0, 0], 2 * np.array(places))
        assert len(tokens) <= 4
    # 0 went for 4, since it had not been seen for longest, and 2 for 5
    assert [place[1] // 2 for place in fetch.seen] == [0, 1, 2, 3, 4, 5, 0]
    assert tokens.read(listed(1, 3, 2)).damage == {1: "torn"}
    assert tokens.read(listed(3)).damage == {0: "torn"}, "kept with what is known of it"
    tokens.read(listed(5, 6, 7, 8))
    assert tokens.read(listed(5, 6, 7, 8)).damage == {}


def test_reading_ahead_never_costs_what_is_seen() -> None:
    fetch = Numbers()
    tokens = TokenPixels(fetch, patch_px=2, keep_bytes=4 * 16)
    tokens.read(listed(0, 1))
    assert tokens.read_ahead(listed(10, 11, 12)) == 2, "there is room for so many"
    assert tokens.read_ahead(listed(13, 14)) == 2
    fetched = tokens.fetched
    tokens.read(listed(0, 1, 13, 14))
    assert tokens.fetched == fetched
    assert tokens.read_ahead(listed(15)) == 0


def test_predicted_tokens_need_no_reading() -> None:
    from tilestream.fovea import GazePredictor

    pixels = picture(512, 512)
    late = []
    for predictor in (None, GazePredictor()):
        stream = GazeStream(FOVEA, Shape(y=512, x=512), patch_px=16, predictor=predictor)
        tokens, waited = TokenPixels(LevelsInMemory(in_memory(pixels), HOW), patch_px=16, keep_bytes=400 * 3072), 0
        for t_s, at in gaze_trace(512, seconds=2, seed=1):
            before = tokens.fetched
            move = stream.move(at, t_s)
            tokens.read(move.tokens)
            waited += tokens.fetched - before
            tokens.read_ahead(move.ahead)
        late.append(waited)
    assert late[1] < 0.75 * late[0]


def test_what_does_not_fit_is_refused_with_the_number() -> None:
    tokens = TokenPixels(Numbers(), patch_px=2, keep_bytes=4 * 16)
    with pytest.raises(BudgetError, match=r"5 tokens of 16 bytes.*Raise `keep_bytes` to 80"):
        tokens.read(listed(0, 1, 2, 3, 4))
    with pytest.raises(ConfigError, match=r"`keep_bytes`.*16 bytes"):
        TokenPixels(Numbers(), patch_px=2, keep_bytes=15)


def test_levels_are_as_deep_as_there_are_tokens(slide) -> None:
    """One that holds the whole image is its mean, though nothing but level 0 is stored."""
    path, pixels = slide
    whole = of_file(path).read(np.array([[6, 0, 0, 1024]], np.int64))
    assert_allclose(whole.share, 640 * 600 / 1024**2, atol=0.05)
    mean = (pixels[:64, :64].mean(axis=(0, 1)) / 255 - HOW.mean) / HOW.std
    assert_allclose(whole.pixels[0, :, 0, 0], mean, atol=0.5 / 255 / 0.2)
    with pytest.raises(ConfigError, match="level"):
        TokenPixels(LevelsInMemory(in_memory(pixels), HOW), patch_px=16).read(np.array([[6, 0, 0, 1024]], np.int64))


def test_tokens_of_a_plan_at_another_resolution(slide) -> None:
    """Those of half the resolution are the image's of one level more."""
    path, _ = slide
    pyramid = ts.open_pyramid(str(path))
    half = token_level(pyramid.info, PlanLevel(stored=0, shape=Shape(y=640, x=600), scale_yx=(1.0, 1.0)), 1)
    tokens = FOVEA.scaled((2, 2)).tokens(half.shape, patch_px=16)
    found = LevelsOfPyramid(pyramid, HOW, base=half)(tokens, 16)
    same = LevelsOfPyramid(pyramid, HOW)(tokens * [1, 2, 2, 2] + [1, 0, 0, 0], 16)
    assert_array_equal(found.pixels, same.pixels)


@pytest.mark.parametrize("sizes", [(), (64, 16), (64, 32, 15), (65, 32)])
def test_levels_that_are_no_halves_are_refused(sizes) -> None:
    with pytest.raises(ConfigError, match=r"`levels` of `LevelsInMemory`.*mip"):
        LevelsInMemory([np.zeros((3, size, size), np.uint8) for size in sizes], HOW)
    grey = LevelsInMemory([np.full((65, 65), 51, np.uint8), np.full((33, 33), 102, np.uint8)], Normalising())
    found = grey(np.array([[0, 0, 0, 8], [1, 48, 48, 16]], np.int64), 8)
    assert_allclose(found.pixels[:, 0, 0, 0], (0.2, 0.4), rtol=1e-6)


def test_damage_is_told_and_the_rest_is_seen(slide) -> None:
    from dataclasses import replace

    class Torn:
        def __init__(self, source) -> None:
            self.source, self.info = source, source.info

        def read_block(self, level, iy, ix, out=None):
            if (iy, ix) == (0, 0):
                raise DamagedError("no EOI marker")
            return self.source.read_block(level, iy, ix, out)

    pyramid = ts.open_pyramid(str(slide[0]), cache_bytes=0)
    torn = replace(pyramid, source=Torn(pyramid.source))
    tokens = TokenPixels(LevelsOfPyramid(torn, HOW), patch_px=16)
    found = tokens.read(np.array([[0, 0, 32, 16], [0, 0, 48, 16], [0, 0, 64, 16], [0, 64, 64, 16]], np.int64))
    assert list(found.damage) == [0, 1], "not their neighbour, which is read together with them"
    assert "no EOI marker" in found.damage[0]
    assert_array_equal(found.share, [0, 0, 1, 1])
    assert not found.pixels[:2].any(), "the mean colour, as of all that is not valid"
    assert found.pixels[2].any()
