"""Archives of JPEG XL: fewer bytes than the source's own tiles, which all come back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import xarray as xr
import zarr
from typer.testing import CliRunner

import tilestream as ts
from tests.sinks.build import tree_bytes
from tilestream.cli import app
from tilestream.codecs.imagechunks import JPEG
from tilestream.errors import ConfigError, OutputError
from tilestream.pipelines.export_image import ExportOptions, export_pyramid
from tilestream.pipelines.ingest import build_pyramid
from tilestream.pipelines.update import update_pyramid
from tilestream.sinks.layout import COPIED_CHUNKS
from tilestream.sources.encoded import read_encoded
from tilestream.sources.zarr import ZarrSource
from tilestream.sources.zarrcopy import ZarrCopy
from tilestream.testing.slide import write_slide
from tilestream.types import Shape, Source

SHAPE = Shape(y=520, x=700)
INDEX_BYTES = 16 * COPIED_CHUNKS**2 + 4
BOX = ts.Box(y=0, x=0, height=SHAPE.y, width=SHAPE.x)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("slide") / "a.svs", SHAPE, tile_px=128)


@pytest.fixture(scope="module")
def stored(slide: Path) -> Path:
    """The archive of the slide."""
    build_pyramid(slide, slide.parent / "a.zarr", jpegxl=True)
    return slide.parent / "a.zarr"


def _streams(source: Source, level: int = 0) -> list[bytes]:
    blocks = source.info.levels[level].blocks
    cells = [(0, iy, ix) for iy, ix in np.ndindex(*blocks.yx)]
    if isinstance(source, ZarrSource):
        return [bytes(chunk) for chunk in ZarrCopy(source=source).read_encoded(level, cells)]
    return [bytes(chunk) for chunk in read_encoded(source, level, cells)]


def _tiles(page: tifffile.TiffPage) -> list[bytes]:
    places = zip(page.dataoffsets, page.databytecounts, strict=True)
    return [page.parent.filehandle.seek(offset) and page.parent.filehandle.read(nbytes) for offset, nbytes in places]


def _shard(root: Path) -> Path:
    return root / "0" / "image" / "c" / "0" / "0" / "0"


def test_pixels_are_those_of_the_slide_whoever_reads_them(slide: Path, stored: Path) -> None:
    wanted, again = ts.open_pyramid(slide), ts.open_pyramid(stored)
    tree = xr.open_datatree(stored, engine="zarr")
    for level in wanted.levels:
        pixels = wanted.read(level.box)
        np.testing.assert_array_equal(again.read(level.box), pixels)
        np.testing.assert_array_equal(zarr.open_array(stored / f"{level.index}/image", mode="r")[:], pixels)
        np.testing.assert_array_equal(tree[f"{level.index}"]["image"].values, pixels)
    assert all(layout is not None for layout in again.source.layouts)  # read by us, not by way of zarr


def test_every_stream_comes_back_to_the_byte(slide: Path, stored: Path) -> None:
    source, again = ts.open_pyramid(slide).source, ts.open_pyramid(stored).source
    for level in source.info.levels:
        assert _streams(again, level.index) == _streams(source, level.index)
    before = sum(len(stream) for stream in _streams(source))
    assert _shard(stored).stat().st_size - INDEX_BYTES < 0.8 * before


def test_an_archive_becomes_jpeg_xl_and_jpeg_again(slide: Path, stored: Path, tmp_path: Path) -> None:
    plain = build_pyramid(slide, tmp_path / "plain.zarr")
    small = build_pyramid(tmp_path / "plain.zarr", tmp_path / "small.zarr", jpegxl=True)
    build_pyramid(tmp_path / "small.zarr", tmp_path / "again.zarr", profile="archive")
    for level in range(len(plain.levels)):
        shard = f"{level}/image/c/0/0/0"
        assert (tmp_path / "small.zarr" / shard).read_bytes() == (stored / shard).read_bytes()
        assert (tmp_path / "again.zarr" / shard).read_bytes() == (tmp_path / "plain.zarr" / shard).read_bytes()
    assert small.mpp == plain.mpp
    np.testing.assert_array_equal(small.read(BOX), plain.read(BOX))


def test_a_damaged_chunk_of_an_archive_is_named_and_stays_out(slide: Path, tmp_path: Path) -> None:
    build_pyramid(slide, tmp_path / "a.zarr")
    data = bytearray(_shard(tmp_path / "a.zarr").read_bytes())
    data[200] ^= 1
    _shard(tmp_path / "a.zarr").write_bytes(data)
    words = ["ingest", str(tmp_path / "a.zarr"), "--out", str(tmp_path / "out"), "--jpegxl"]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, "1 damaged block" in done.stdout) == (0, True), done.output
    assert "block y=0 x=0 of level 0" in done.stdout
    seen = ts.open_pyramid(tmp_path / "out/a.zarr").read_region(BOX)
    assert not seen.valid[:128, :128].any()
    assert seen.valid.sum() == SHAPE.area - 128**2


def test_an_export_holds_the_tiles_of_the_slide(slide: Path, stored: Path, tmp_path: Path) -> None:
    options = ExportOptions(to="cog", codec="copy")
    one = export_pyramid(ts.open_pyramid(stored), tmp_path / "a.tif", options)
    other = export_pyramid(ts.open_pyramid(slide), tmp_path / "b.tif", options)
    assert (one.notes, one.damage) == ((), ())
    with tifffile.TiffFile(one.path) as file, tifffile.TiffFile(other.path) as direct:
        assert [_tiles(page) for page in file.pages] == [_tiles(page) for page in direct.pages]


def test_the_tiles_of_a_real_slide_take_a_quarter_less(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "slides" / "CMU-1-Small-Region.svs"
    build_pyramid(path, tmp_path / "a.zarr", jpegxl=True)
    with tifffile.TiffFile(path) as file:
        before = sum(file.pages.first.databytecounts)
    assert _shard(tmp_path / "a.zarr").stat().st_size < 0.74 * before
    assert _streams(ts.open_pyramid(tmp_path / "a.zarr").source) == _streams(ts.open_pyramid(path).source)


def test_a_flipped_bit_costs_its_tile_alone(stored: Path, tmp_path: Path) -> None:
    root = tmp_path / "a.zarr"
    root.mkdir()
    for path, data in tree_bytes(stored).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    data = bytearray(_shard(root).read_bytes())
    data[200] ^= 1
    _shard(root).write_bytes(data)
    wanted, seen = (ts.open_pyramid(place).read_region(BOX) for place in (stored, root))
    assert not seen.valid[:128, :128].any()
    assert seen.valid.sum() == SHAPE.area - 128**2
    np.testing.assert_array_equal(seen.pixels[:, seen.valid], wanted.pixels[:, seen.valid])
    made = export_pyramid(ts.open_pyramid(root), tmp_path / "a.tif", ExportOptions(to="cog", codec="copy"))
    assert "checksum" in made.damage[0]


def test_an_update_gives_the_bits_of_a_rebuild(slide: Path, stored: Path, tmp_path: Path) -> None:
    path, root = tmp_path / "b.svs", tmp_path / "b.zarr"
    path.write_bytes(slide.read_bytes())
    build_pyramid(path, root, jpegxl=True)
    assert _shard(root).read_bytes() == _shard(stored).read_bytes()
    with tifffile.TiffFile(path, mode="r+b") as file:
        page = file.pages.first
        offsets, counts = page.dataoffsets, page.databytecounts
        short = min(range(len(counts)), key=lambda n: counts[n])
        there = offsets[short], counts[short]
        spot = next(n for n in range(len(counts)) if counts[n] > counts[short])
        file.filehandle.seek(there[0])
        data = file.filehandle.read(there[1])
        file.filehandle.seek(offsets[spot])
        file.filehandle.write(data)
        page.tags["TileByteCounts"].overwrite([len(data) if n == spot else one for n, one in enumerate(counts)])
    update_pyramid(root, [BOX], src=path)
    build_pyramid(path, tmp_path / "c.zarr", jpegxl=True)
    assert _shard(root).read_bytes() == _shard(tmp_path / "c.zarr").read_bytes()
    assert _shard(root).read_bytes() != _shard(stored).read_bytes()


def test_tiles_without_a_form_stay_jpeg_and_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pixels = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    tifffile.imwrite(
        path, pixels, tile=(128, 128), compression="jpeg", photometric="ycbcr", subsampling=(4, 1),
        compressionargs={"subsampling": "411"},
    )  # fmt: skip
    done = CliRunner().invoke(app, ["ingest", str(path), "--out", str(tmp_path / "out"), "--jpegxl", "--json"])
    (row,) = json.loads(done.stdout)["inputs"]
    assert row["jpegxl"]["tiles"] == row["jpegxl"]["kept"] == 4
    assert row["jpegxl"]["bytes_before"] == row["jpegxl"]["bytes"]
    whole = ts.Box(y=0, x=0, height=256, width=256)
    np.testing.assert_array_equal(ts.open_pyramid(row["store"]).read(whole), ts.open_pyramid(path).read(whole))


def test_the_command_says_what_it_saved(slide: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["ingest", str(slide), "--out", str(tmp_path), "--jpegxl"])
    assert done.exit_code == 0, done.output
    assert "jpegxl a.svs: 30 tiles" in done.stdout
    assert "% less" in done.stdout


def test_what_cannot_be_is_refused_with_the_reason(shared_data: Path, slide: Path, tmp_path: Path) -> None:
    for name, words in {
        "camelyon-jpeg2000.dcm": "imagecodecs_jpeg2k",
        "test3-DAPI-2-387.ndpi": "cannot be taken out",
    }.items():
        with pytest.raises(OutputError, match=f"`--jpegxl` of .*{words}"):
            build_pyramid(shared_data / "slides" / name, tmp_path / "a.zarr", jpegxl=True)
    with pytest.raises(ConfigError, match="together with the profile portable"):
        build_pyramid(slide, tmp_path / "a.zarr", jpegxl=True, profile="portable")


def test_metadata_of_an_archive_say_how_a_chunk_is_read(stored: Path) -> None:
    document = json.loads((stored / "0" / "image" / "zarr.json").read_bytes())
    names = [codec["name"] for codec in document["codecs"][0]["configuration"]["codecs"]]
    assert names == ["transpose", JPEG, "tilestream.jpegxl", "crc32c"]
