import json

import numpy as np
import pytest
import xarray as xr
import zarr

from tests.codecs.exactfield import NAME, PATH
from tests.sources.madefields import info_of, save_fields, tiling_of
from tilestream.codecs.shardmap import decode_shard_map
from tilestream.codecs.tilecodec import FieldCodec
from tilestream.errors import ConfigError
from tilestream.registry import CODECS
from tilestream.sinks.fieldstore import field_layout, valid_layout
from tilestream.sinks.tiling import Tiling, check_tile, level_count
from tilestream.types import Shape


@pytest.fixture(autouse=True)
def exact_codec(monkeypatch):
    monkeypatch.setitem(CODECS, NAME, PATH)


def image(shape=(3, 70, 150), dtype="uint8"):
    return np.random.default_rng(5).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize(
    ("size", "tile_px", "levels"),
    [((1, 1), 512, 1), ((256, 256), 512, 1), ((257, 1), 512, 2), ((100_000, 80_000), 512, 10), ((64, 65), 64, 2)],
)
def test_levels_go_on_until_one_tile_holds_the_image(size, tile_px, levels):
    assert level_count(Shape(y=size[0], x=size[1]), tile_px) == levels


@pytest.mark.parametrize("tile_px", [0, 8, 250, 8192])
def test_an_edge_that_does_not_halve_is_refused(tile_px):
    with pytest.raises(ConfigError, match="multiple of 8"):
        check_tile(tile_px)


def test_class_numbers_are_not_for_fields():
    with pytest.raises(ConfigError, match="class numbers"):
        field_layout(info_of(image(), kind="labels"), FieldCodec(), tiling=tiling_of(image(), tile_px=64))


@pytest.mark.parametrize(
    ("step", "arrays", "masks"),
    [(4, [0, 4], [0, 1, 2, 3, 4]), (1, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]), (None, [0], [0])],
)
def test_a_tile_of_the_mask_lies_under_one_tile_of_the_image(step, arrays, masks):
    info = info_of(image((1, 1000, 777)))
    tiling = tiling_of(image((1, 1000, 777)), tile_px=64, step=step)
    fields, mask = field_layout(info, FieldCodec(), tiling=tiling), valid_layout(info, tiling=tiling)
    assert [level.index for level in fields.levels] == arrays
    assert [level.index for level in mask.levels] == masks
    for level in mask.levels:
        assert level.shards == fields.levels[level.index // tiling.step].shards


def test_any_zarr_client_reads_it(tmp_path):
    pixels = image()
    levels = save_fields(tmp_path / "a.zarr", pixels, tile_px=16)
    assert len(levels.pixels) == 5
    root = zarr.open_group(tmp_path / "a.zarr", mode="r")
    np.testing.assert_array_equal(root["0/image"][...], pixels)
    np.testing.assert_array_equal(root["4/image"][...], levels.pixels[4])
    assert [one["path"] for one in root.attrs["ome"]["multiscales"][0]["datasets"]] == ["0/image", "4/image"]
    assert [one["asset"] for one in root.attrs["multiscales"]["layout"]] == ["0", "4"]
    tree = xr.open_datatree(tmp_path / "a.zarr", engine="zarr")
    np.testing.assert_array_equal(tree["0/image"].values, pixels)
    assert tree["4/image"].dims == ("c", "y", "x")
    tree.close()


def test_the_record_says_what_it_is_of(tmp_path):
    pixels = image()
    pixels[:, :16, :16] = 255
    save_fields(tmp_path / "a.zarr", pixels, tile_px=16, modality="brightfield")
    own = json.loads((tmp_path / "a.zarr/zarr.json").read_bytes())["attributes"]["tilestream"]
    assert (own["store"], own["format"], own["codec"], own["tile_px"]) == ("field", 1, NAME, 16)
    assert (own["level_step"], own["levels"]) == (4, 5)
    assert own["settings"] == FieldCodec(field=NAME).settings
    assert own["quality"]["psnr"] == [None] * 5  # all of them exact
    assert own["quality"]["bpp"] == pytest.approx(8 * own["quality"]["bytes"] / pixels[0].size, abs=1e-4)
    written = decode_shard_map(own["shards"]["0"], (5, 10))
    assert not written[0, 0]
    assert written.sum() == 49


@pytest.mark.parametrize(
    ("size", "tile_px", "levels"),
    [((100_000, 80_000), 512, 10), ((100_000, 80_000), 24, 4), ((300, 20), 64, 4), ((20, 20), 64, 1)],
)
def test_one_array_answers_levels_as_long_as_its_tiles_halve(size, tile_px, levels):
    tiling = Tiling.of(Shape(y=size[0], x=size[1]), tile_px=tile_px, step=None)
    assert (tiling.levels, tiling.step, list(tiling.arrays)) == (levels, levels, [0])
