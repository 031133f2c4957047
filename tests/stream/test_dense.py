"""Maps of whole images: what a box holds is what the stage gives for the image in one piece."""

import itertools
import math

import numpy as np
import pytest
from scipy import ndimage

import tilestream as ts
from tilestream.errors import ConfigError, StageError
from tilestream.plan.dense import DenseGrid
from tilestream.stream.dense import DenseStage, map_box
from tilestream.stream.mapform import map_form
from tilestream.types import Box, StageContract

SHAPE = 301, 437
RNG = np.random.default_rng(8)
IMAGE = RNG.integers(0, 256, (2, *SHAPE), np.uint8)


class Filter:
    """A stage of a function `(c, y, x) -> (k, y, x)`, in the test's hands."""

    def __init__(self, function, planes, **contract):
        given = {"name": "it", "px": 64, "output": "dense", **contract}
        self.function, self.planes, self.contract, self.calls = function, planes, StageContract(**given), []

    def output_names(self, image):
        return tuple(f"it_{k}" for k in range(self.planes))

    def __call__(self, batch):
        self.calls.append(len(batch.rows))
        return np.stack([self.function(pixels) for pixels in batch.pixels])


def median(pixels):
    """Looks 2 px around, and treats the edge of what it is given as its own."""
    return ndimage.median_filter(pixels, (1, 5, 5), mode="reflect")


def mean(pixels):
    return ndimage.uniform_filter(pixels.astype("f4"), (0, 5, 5), mode="reflect")


def squares(pixels, stride=4):
    """What a network with a stride does: a value a square, of its neighbours too; rows beyond the image are 0."""
    c, h, w = pixels.shape
    small = pixels.reshape(c, h // stride, stride, w // stride, stride).astype("f4").mean(axis=(2, 4))
    return ndimage.uniform_filter(small, (0, 3, 3), mode="constant").max(axis=0, keepdims=True)


def dense_of(stage, pyramid, *, blend=False, batch=7, where="all", **plan):
    plan = ts.plan_tiles(pyramid, where=where, **plan)
    contract = stage.contract
    trim = -(-contract.halo_px // contract.stride) * contract.stride
    grid = DenseGrid(
        plan=plan, stride=contract.stride, trim_px=trim, is_blended=blend, keeps_place=contract.keeps_place
    )
    size = grid.window_px
    sample = stage.function(np.zeros((len(pyramid.channels), *size.yx), pyramid.dtype))[None]
    form = map_form(contract, stage.output_names(None), sample, is_blended=blend)
    return DenseStage(stage=stage, grid=grid, form=form, batch=batch)


def whole(pyramid, dense):
    shape = dense.grid.shape
    return map_box(pyramid, dense, Box(y=0, x=0, height=shape.y, width=shape.x))


@pytest.mark.parametrize(("tile", "halo"), [(64, 2), (64, 7), (33, 2), (400, 2), (500, 30)])
def test_a_map_is_that_of_the_image_in_one_piece(tile, halo):
    pyramid = ts.open_pyramid(IMAGE)
    part = whole(pyramid, dense_of(Filter(median, 2, halo_px=2), pyramid, tile_px=tile, halo_px=halo))
    np.testing.assert_array_equal(part.base.pixels.transpose(2, 0, 1), median(IMAGE))
    assert part.base.valid is None
    assert part.tiles == part.computed == math.ceil(SHAPE[0] / tile) * math.ceil(SHAPE[1] / tile)


@pytest.mark.parametrize("halo", [8, 20])
def test_blended_maps_of_a_stage_that_looks_no_further_than_its_contract_are_that_too(halo):
    pyramid = ts.open_pyramid(IMAGE)
    part = whole(pyramid, dense_of(Filter(mean, 2, halo_px=2), pyramid, tile_px=48, halo_px=halo, blend=True))
    np.testing.assert_allclose(part.base.pixels.transpose(2, 0, 1), mean(IMAGE), atol=2e-5)
    rounded = whole(pyramid, dense_of(Filter(median, 2, halo_px=2), pyramid, tile_px=48, halo_px=halo, blend=True))
    np.testing.assert_array_equal(rounded.base.pixels.transpose(2, 0, 1), median(IMAGE))


@pytest.mark.parametrize("batch", [1, 5, 64])
@pytest.mark.parametrize("blend", [False, True])
def test_a_map_does_not_depend_on_how_it_is_cut_nor_on_who_decodes_ahead(blend, batch, monkeypatch):
    """A stage that differs with the position in its tile shows every seam."""
    ramp = Filter(lambda pixels: pixels[:1] * np.float32(0.5) + np.arange(pixels.shape[2], dtype="f4"), 1)
    pyramid = ts.open_pyramid(IMAGE)
    dense = dense_of(ramp, pyramid, tile_px=40, halo_px=12, blend=blend)
    pixels = whole(pyramid, dense).base.pixels
    dense = dense_of(ramp, pyramid, tile_px=40, halo_px=12, blend=blend, batch=batch)
    owned = 0
    monkeypatch.setattr("tilestream.stream.dense.usable_cores", lambda: 4)
    for y, x in itertools.product(range(0, 301, 77), range(0, 437, 130)):
        box = Box(y=y, x=x, height=min(77, 301 - y), width=min(130, 437 - x))
        part = map_box(pyramid, dense, box, tasks=1)
        np.testing.assert_array_equal(part.base.pixels, pixels[box.slices_yx])
        owned += part.tiles
    assert owned == len(dense.grid.plan)


@pytest.mark.parametrize("tile", [64, 400, 500])
def test_tiles_that_keep_their_place_reach_beyond_the_image(tile):
    halo, seen = 20, []

    def place(pixels):
        """The column in the window."""
        seen.append(pixels[:, :, -halo:].any() or pixels[:, -halo:].any())
        return np.zeros((1, *pixels.shape[1:]), "f4") + np.arange(pixels.shape[2], dtype="f4")

    pyramid = ts.open_pyramid(IMAGE)
    part = whole(pyramid, dense_of(Filter(place, 1, keeps_place=True), pyramid, tile_px=tile, halo_px=halo))
    expected = np.arange(SHAPE[1]) % tile + halo
    np.testing.assert_array_equal(part.base.pixels[:, :, 0], np.broadcast_to(expected, SHAPE))
    assert part.base.valid is None
    assert not all(seen)  # black where there is no image


def test_blending_leaves_no_step_at_the_border_of_tiles():
    ramp = Filter(lambda pixels: np.zeros((1, *pixels.shape[1:]), "f4") + np.arange(pixels.shape[2], dtype="f4"), 1)
    pyramid = ts.open_pyramid(IMAGE)
    steps = {}
    for blend in (False, True):
        part = whole(pyramid, dense_of(ramp, pyramid, tile_px=40, halo_px=12, blend=blend))
        steps[blend] = np.abs(np.diff(part.base.pixels[150, 40:400, 0])).max()
    assert steps[False] > 30
    assert steps[True] < 5


@pytest.mark.parametrize("shape", [SHAPE, (64, 64), (30, 31), (4, 9)])
def test_a_stride_gives_a_pixel_a_square(shape):
    image = IMAGE[:, : shape[0], : shape[1]]
    pyramid = ts.open_pyramid(image)
    dense = dense_of(Filter(squares, 1, stride=4, halo_px=4), pyramid, tile_px=64, halo_px=8)
    part = whole(pyramid, dense)
    padded = np.pad(image, ((0, 0), (0, -shape[0] % 4), (0, -shape[1] % 4)))
    np.testing.assert_array_equal(part.base.pixels[..., 0], squares(padded)[0])
    assert dense.grid.cell_yx == (4, 4)


def test_what_is_not_valid_is_skipped_and_spoils_what_looks_at_it():
    image = IMAGE.astype("f4")
    image[:, :, 200:] = np.nan
    image[:, 100, 50] = np.nan
    pyramid = ts.open_pyramid(image)
    stage = Filter(mean, 2, halo_px=2, void_px=2)
    part = whole(pyramid, dense_of(stage, pyramid, tile_px=50, halo_px=2))
    valid = np.ones(SHAPE, np.bool_)
    valid[:, 198:] = False
    valid[98:103, 48:53] = False
    np.testing.assert_array_equal(part.base.valid, valid)
    expected = mean(np.nan_to_num(image))
    np.testing.assert_array_equal(part.base.pixels[valid], expected.transpose(1, 2, 0)[valid])
    assert np.isnan(part.base.pixels[~valid]).all()
    assert sum(stage.calls) == part.computed == 7 * 4
    assert part.empty == 7 * 5
    assert part.failed == {}


def test_values_that_are_not_finite_are_no_values_and_their_tiles_counted():
    def holed(pixels):
        out = pixels[:1].astype("f4")
        out[pixels[:1] == 7] = np.nan
        return out

    pyramid = ts.open_pyramid(IMAGE)
    for blend in (False, True):
        part = whole(pyramid, dense_of(Filter(holed, 1), pyramid, tile_px=64, halo_px=4, blend=blend))
        np.testing.assert_array_equal(part.base.valid, IMAGE[0] != 7)
        assert part.failed == {"`it`: values that are not finite": tuple(range(part.tiles))}
        assert part.lost == 0


def test_tiles_outside_the_selection_are_not_computed_and_their_pixels_are_void():
    pyramid = ts.open_pyramid(IMAGE)
    wanted = np.zeros((5, 7), np.bool_)
    wanted[1, 2] = wanted[3, 3] = True
    from dataclasses import replace

    stage = Filter(mean, 2, halo_px=2)
    for blend in (False, True):
        dense = dense_of(stage, pyramid, tile_px=64, halo_px=10, blend=blend)
        dense = replace(dense, grid=replace(dense.grid, plan=replace(dense.grid.plan, wanted=wanted)))
        part = whole(pyramid, dense)
        inside = np.kron(wanted, np.ones((64, 64), np.bool_))[: SHAPE[0], : SHAPE[1]]
        np.testing.assert_array_equal(part.base.valid, inside)
        assert part.tiles == part.computed == 2


def test_scores_become_class_numbers_and_blended_ones_too():
    def scores(pixels):
        smooth = mean(pixels)[0]
        return np.stack([smooth, 255 - smooth, np.full_like(smooth, 120)])

    pyramid = ts.open_pyramid(IMAGE)
    stage = Filter(scores, 3, halo_px=2, classes=("dark", "light", "neither"))
    part = whole(pyramid, dense_of(stage, pyramid, tile_px=64, halo_px=2))
    assert part.base.pixels.dtype == np.uint8
    assert part.base.kind == "labels"
    assert part.base.void == 255
    np.testing.assert_array_equal(part.base.pixels[..., 0], scores(IMAGE).argmax(axis=0))
    blended = whole(pyramid, dense_of(stage, pyramid, tile_px=64, halo_px=16, blend=True))
    assert (blended.base.pixels == part.base.pixels).mean() > 0.999


def test_numbers_of_no_class_are_refused_but_not_where_nothing_is_valid():
    def numbers(pixels):
        return (pixels[:1] // 100).astype(np.int32)

    pyramid = ts.open_pyramid(IMAGE)
    part = whole(pyramid, dense_of(Filter(numbers, 1, classes=("a", "b", "c")), pyramid, tile_px=64))
    np.testing.assert_array_equal(part.base.pixels[..., 0], IMAGE[0] // 100)
    with pytest.raises(StageError, match="class numbers from 0 to 2"):
        whole(pyramid, dense_of(Filter(numbers, 1, classes=("a", "b")), pyramid, tile_px=64))


@pytest.mark.parametrize(("stored", "most"), [("uint8", 254), ("uint16", 65534)])
def test_a_declared_range_is_scaled_and_clipped_into_integers(stored, most):
    def values(pixels):
        return pixels[:1].astype("f4") / 200 - 0.1

    stage = Filter(values, 1, stored=stored, value_range=(0.0, 1.0))
    dense = dense_of(stage, ts.open_pyramid(IMAGE), tile_px=64)
    part = whole(ts.open_pyramid(IMAGE), dense)
    (channel,) = dense.form.channels
    assert part.base.void == most + 1
    assert part.base.pixels.max() == most
    told = part.base.pixels[..., 0] * channel.scale + channel.offset
    np.testing.assert_allclose(told, np.clip(values(IMAGE)[0], 0, 1), atol=0.51 / most)


@pytest.mark.parametrize("blend", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_whole_numbers_are_clipped_into_a_declared_range_too(dtype, blend):
    stage = Filter(lambda pixels: pixels[:1].astype(dtype), 1, value_range=(-5.0, 200.0))
    pyramid = ts.open_pyramid(IMAGE)
    part = whole(pyramid, dense_of(stage, pyramid, tile_px=64, halo_px=8, blend=blend))
    assert part.base.pixels.dtype == dtype
    np.testing.assert_array_equal(part.base.pixels[..., 0], np.minimum(IMAGE[0], 200))


@pytest.mark.parametrize(
    ("contract", "plan", "words"),
    [
        ({"halo_px": 8}, {"tile_px": 48, "halo_px": 4}, "at least the 8 px"),
        ({"stride": 4}, {"tile_px": 50}, "multiples of the stage's stride, 4 px"),
        ({}, {"tile_px": 48, "step_px": 24}, "cores that lie side by side"),
        ({"halo_px": 8}, {"tile_px": 48, "halo_px": 8, "blend": True}, "leaves an overlap to blend in"),
        ({"classes": ("a", "b")}, {"tile_px": 48, "halo_px": 8, "blend": True}, "a score for each class"),
        ({"stored": "uint8"}, {"tile_px": 48}, "a type that holds them"),
    ],
)
def test_what_does_not_fit_together_is_refused(contract, plan, words):
    stage = Filter(lambda pixels: pixels[:1].astype("f4"), 1, **contract)
    with pytest.raises(ConfigError, match=words):
        dense_of(stage, ts.open_pyramid(IMAGE), **plan)


def test_a_stage_that_changes_its_mind_or_raises_is_an_error_with_its_name():
    pyramid = ts.open_pyramid(IMAGE)
    stage = Filter(median, 2, halo_px=2)
    dense = dense_of(stage, pyramid, tile_px=64, halo_px=2)
    for function, words in (
        (lambda pixels: median(pixels)[:1], r"expected uint8 of shape \(1, 2, 68, 68\)"),
        (lambda pixels: median(pixels).astype("f4"), "got float32"),
        (lambda pixels: pixels[9], "IndexError"),
    ):
        stage.function = function
        with pytest.raises(StageError, match=words):
            whole(pyramid, dense)


def test_only_tiles_on_which_a_stage_raises_are_left_out():
    pyramid = ts.open_pyramid(IMAGE)

    def picky(pixels):
        if pixels[0, 0, 0] == IMAGE[0, 128, 64]:
            raise ValueError("not this one")
        return pixels[:1]

    same = [IMAGE[0, y, x] == IMAGE[0, 128, 64] for y in range(0, 301, 64) for x in range(0, 437, 64)]
    part = whole(pyramid, dense_of(Filter(picky, 1), pyramid, tile_px=64))
    assert part.failed == {"`it`: ValueError: not this one": tuple(np.flatnonzero(same))}
    assert part.lost == sum(same)
    assert not part.base.valid[128:192, 64:128].any()
    assert part.base.valid[:128, :64].all()


def test_blended_values_beyond_what_can_be_summed_ask_for_a_range():
    pyramid = ts.open_pyramid(IMAGE)
    stage = Filter(lambda pixels: pixels[:1].astype("f4") * 1e6, 1)
    with pytest.raises(StageError, match="states no `value_range`"):
        whole(pyramid, dense_of(stage, pyramid, tile_px=64, halo_px=8, blend=True))
    stage = Filter(lambda pixels: pixels[:1].astype("f4") * 1e6, 1, value_range=(0, 1e9))
    part = whole(pyramid, dense_of(stage, pyramid, tile_px=64, halo_px=8, blend=True))
    np.testing.assert_allclose(part.base.pixels[..., 0], IMAGE[0] * 1e6, rtol=1e-6, atol=1e9 * 2.0**-37)
