"""Damage of every kind: a clear refusal or a damaged block each time, never wrong pixels, never much memory."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.sources.assembled import whole_level
from tests.sources.madetiff import Page, image_tags, opened, photo, write_tiff
from tilestream.errors import DamagedError, SourceError
from tilestream.sources.files import File
from tilestream.sources.tiff import needs_openslide
from tilestream.sources.tifftable import TileTable

JPEG, RGB, YCBCR = 7, 2, 6


def jpeg(tile: np.ndarray, **options: int | bool) -> bytes:
    out = io.BytesIO()
    Image.fromarray(tile).save(out, "JPEG", quality=60, **options)
    return out.getvalue()


def aperio_tiles(folder: Path, count: int = 3) -> tuple[list[bytes], bytes]:
    """Return real tiles with tissue in them and their shared tables."""
    table = table_of(opened(folder / "slides/CMU-1-Small-Region.svs"))
    order = np.argsort(table.counts[0].ravel())[::-1][:count]
    stored = [(int(table.offsets.flat[index]), int(table.counts.flat[index])) for index in order]
    return [table.file.read(*where) for where in stored], table.jpeg_tables or b""


def table_of(source) -> TileTable:
    return source._image.levels[0].level.tables[0]


def page_of(pieces: list[bytes], tables: bytes | None, size: int, photometric: int) -> Page:
    tags = image_tags(
        size, size * len(pieces), piece=(size, size), samples=3, compression=JPEG, photometric=photometric
    )
    if tables:
        tags[347] = ("B", tables)
    return Page(tags=tags, pieces=pieces)


def cuts_of(stream: bytes, following: bytes, at: int) -> dict[str, bytes]:
    missing = len(stream) - at
    return {
        "by its size": stream[:at],
        "filled with zeros": stream[:at] + bytes(missing),
        "run into the next tile": stream[:at] + (following * (1 + missing // len(following)))[:missing],
    }


@pytest.mark.parametrize("kind", ["aperio", "plain", "restart", "progressive"])
def test_a_jpeg_tile_cut_at_every_64th_byte_is_damaged(tmp_path, shared_data, kind):
    if kind == "aperio":
        tiles, tables = aperio_tiles(shared_data)
        size, photometric = 240, RGB
    else:
        options = {"plain": {}, "restart": {"restart_marker_blocks": 4}, "progressive": {"progressive": True}}[kind]
        tiles, tables = [jpeg(photo(64, 64, seed=seed), **options) for seed in range(3)], None
        size, photometric = 64, YCBCR
    whole = opened(write_tiff(tmp_path / "whole.tif", page_of(tiles, tables, size, photometric)))
    good = [whole.read_block(0, 0, index).pixels for index in range(3)]
    steps = range(64, len(tiles[1]), 64)
    assert len(steps) > 20 or kind != "aperio"
    for at in steps:
        for how, cut in cuts_of(tiles[1], tiles[2], at).items():
            path = write_tiff(tmp_path / "cut.tif", page_of([tiles[0], cut, tiles[2]], tables, size, photometric))
            source = opened(path)
            with pytest.raises(DamagedError):
                pytest.fail(f"{how} at {at}: {source.read_block(0, 0, 1).pixels.mean()}")
            np.testing.assert_array_equal(source.read_block(0, 0, 0).pixels, good[0])
            np.testing.assert_array_equal(source.read_block(0, 0, 2).pixels, good[2])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda stream: stream[:-2], "no end marker"),
        (lambda stream: b"\0\0" + stream[2:], "does not start"),
        (lambda stream: b"", None),
        (lambda stream: stream[:-200] + b"\xff\xd8" + stream[-198:], "FF D8 inside"),
        (lambda stream: stream[:-2] + bytes(500), "no end marker"),
        (lambda stream: stream.replace(b"\xff\xd3", b"\xff\xd4", 1), "restart marker 4"),
        (lambda stream: stream[: stream.index(b"\xff\xd3")] + b"\xff\xd9", "restart markers, expected"),
        (lambda stream: stream.replace(b"\x00\x40\x00\x40\x03", b"\x00\x40\x00\x20\x03", 1), "64 x 32"),
        (lambda stream: stream.replace(b"\xff\xc0", b"\xff\xc3", 1), "FF C3"),
    ],
)
def test_each_check_gives_its_reason(tmp_path, change, reason):
    stream = jpeg(photo(64, 64), restart_marker_blocks=1)
    source = opened(write_tiff(tmp_path / "a.tif", page_of([change(stream)], None, 64, YCBCR)))
    if reason is None:
        assert source.read_block(0, 0, 0) is None
        return
    with pytest.raises(DamagedError, match=reason):
        source.read_block(0, 0, 0)


def test_a_stream_of_other_components_is_damaged(tmp_path):
    source = opened(write_tiff(tmp_path / "a.tif", page_of([jpeg(photo(64, 64)[:, :, 0])], None, 64, YCBCR)))
    with pytest.raises(DamagedError, match="1 components"):
        source.read_block(0, 0, 0)


def test_bytes_behind_the_end_of_a_stream_do_no_harm(tmp_path):
    stream = jpeg(photo(64, 64))
    plain = opened(write_tiff(tmp_path / "a.tif", page_of([stream], None, 64, YCBCR))).read_block(0, 0, 0).pixels
    padded = opened(write_tiff(tmp_path / "b.tif", page_of([stream + b"\0\0"], None, 64, YCBCR))).read_block(0, 0, 0)
    np.testing.assert_array_equal(padded.pixels, plain)


ENCODERS = {
    1: bytes,
    5: imagecodecs.lzw_encode,
    8: imagecodecs.deflate_encode,
    32773: imagecodecs.packbits_encode,
    34925: imagecodecs.lzma_encode,
    50000: imagecodecs.zstd_encode,
    34712: lambda tile: imagecodecs.jpeg2k_encode(tile, codecformat="j2k", level=0),
    33005: lambda tile: imagecodecs.jpeg2k_encode(tile, codecformat="jp2", level=0),
    50001: lambda tile: imagecodecs.webp_encode(tile, lossless=True),
    50002: lambda tile: imagecodecs.jpegxl_encode(tile, lossless=True),
}
CHECKSUMMED = (8, 34925, 50002, 34712, 33005)


@pytest.mark.parametrize("compression", ENCODERS)
def test_cut_streams_of_other_codecs_are_damaged(tmp_path, compression):
    tile = photo(64, 64)
    image = compression in (34712, 33005, 50001, 50002)
    stream = ENCODERS[compression](tile if image else tile.tobytes())
    tags = image_tags(64, 64, piece=(64, 64), samples=3, compression=compression)
    good = opened(write_tiff(tmp_path / "good.tif", Page(tags=tags, pieces=[stream]))).read_block(0, 0, 0)
    np.testing.assert_array_equal(good.pixels, tile)
    damaged = 0
    for at in np.linspace(1, len(stream) - 3, 40).astype(int):
        fills = (b"", bytes(len(stream) - at)) if compression in CHECKSUMMED else (b"",)
        for fill in fills:
            source = opened(write_tiff(tmp_path / "cut.tif", Page(tags=tags, pieces=[stream[:at] + fill])))
            try:
                np.testing.assert_array_equal(
                    source.read_block(0, 0, 0).pixels, tile
                )  # only the container's end is cut
            except DamagedError:
                damaged += 1
    assert damaged >= 38 * len(fills)


@pytest.mark.parametrize("offset", [10**6, (1 << 32) - 1])
def test_an_offset_beyond_the_end_is_damage(tmp_path, offset):
    tags = image_tags(16, 16, piece=(16, 16)) | {324: ("I", [offset]), 325: ("I", [256])}
    source = opened(write_tiff(tmp_path / "a.tif", Page(tags=tags)))
    with pytest.raises(DamagedError, match="outside the file"):
        source.read_block(0, 0, 0)


def pyramid_bytes(layout: str) -> bytes:
    out, pixels = io.BytesIO(), photo(80, 70)
    if layout == "strips":
        tifffile.imwrite(out, pixels, photometric="rgb", rowsperstrip=16, compression="zlib")
    else:
        with tifffile.TiffWriter(out, bigtiff=layout == "big") as writer:
            options = {"photometric": "rgb", "tile": (32, 32), "compression": "jpeg" if layout == "jpeg" else "zlib"}
            writer.write(pixels, **options)
            writer.write(pixels[::2, ::2], subfiletype=1, **options)
    return out.getvalue()


@pytest.mark.parametrize("layout", ["strips", "tiles", "big", "jpeg"])
def test_a_file_cut_anywhere_is_refused_or_damaged(tmp_path, layout):
    data = pyramid_bytes(layout)
    path = tmp_path / "image.tif"
    path.write_bytes(data)
    whole = whole_level(opened(path))[0]
    outcomes = set()
    for at in [*range(0, 600), *range(600, len(data), max(1, len(data) // 150))]:
        path.write_bytes(data[:at])
        try:
            source = opened(path)
        except SourceError:
            outcomes.add("refused")
            continue
        for level in source.info.levels:
            got, valid, damage = whole_level(source, level.index)
            assert damage or valid.all()
            if level.index == 0:
                np.testing.assert_array_equal(got[valid], whole[valid])
            outcomes.add("damaged" if damage else "whole")
    assert "refused" in outcomes


def test_a_file_cut_behind_its_headers_is_damaged(tmp_path, shared_data):
    data = (shared_data / "satellite/S2A_29RKH_20200219_0_L2A/B02.tif").read_bytes()  # a COG: headers first
    (tmp_path / "cut.tif").write_bytes(data[: len(data) * 3 // 4])
    _, valid, damage = whole_level(opened(tmp_path / "cut.tif"))
    assert damage
    assert valid.any()


@given(st.data())
def test_changed_header_bytes_never_break_anything(tmp_path_factory, data):
    stored = pyramid_bytes("tiles")
    changed = bytearray(stored)
    start = struct.unpack("<I", stored[4:8])[0]
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.one_of(st.integers(0, 7), st.integers(start, start + 250)))
        changed[min(where, len(changed) - 1)] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("changed") / "a.tif"
    path.write_bytes(bytes(changed))
    try:
        source = opened(path)
    except SourceError:
        return
    for level in source.info.levels:
        if level.blocks.area <= 64 and level.block.area <= 1 << 20:
            for iy in range(level.blocks.y):
                for ix in range(level.blocks.x):
                    try:
                        source.read_block(level.index, iy, ix)
                    except DamagedError:
                        continue


HOSTILE = {
    "samples": image_tags(8, 8) | {277: ("I", [303169682]), 258: ("H", [8])},
    "height": image_tags((1 << 31) - 1, 1 << 30, piece=(256, 256)),
    "tile": image_tags(1 << 20, 1 << 20) | {322: ("I", [1 << 20]), 323: ("I", [1 << 20])},
    "strip": image_tags(1 << 20, 1 << 20),
    "no size": image_tags(0, 8),
    "no tile": image_tags(8, 8, piece=(0, 16)),
    "rows": image_tags(8, 8, rows=0),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_absurd_headers_are_refused(tmp_path, name):
    path = write_tiff(tmp_path / "a.tif", Page(tags=HOSTILE[name], pieces=[bytes(64)], tiled=324 in HOSTILE[name]))
    with pytest.raises(SourceError, match="got"):
        opened(path)


def test_a_table_longer_than_the_file_is_refused(tmp_path):
    path = write_tiff(tmp_path / "a.tif", Page(tags=image_tags(8, 8), pieces=[bytes(64)] * 3, tiled=False))
    data = bytearray(path.read_bytes())
    entry = data.index(struct.pack("<HHI", 273, 4, 3))
    data[entry + 4 : entry + 8] = struct.pack("<I", 1 << 30)
    path.write_bytes(bytes(data))
    with pytest.raises(SourceError, match="got"):
        opened(path)


def test_a_chain_that_returns_to_itself_is_refused(tmp_path):
    path = write_tiff(tmp_path / "a.tif", Page(tags=image_tags(8, 8), pieces=[bytes(64)], tiled=False))
    data = bytearray(path.read_bytes())
    data[-4:] = data[4:8]
    path.write_bytes(bytes(data))
    with pytest.raises(SourceError, match="returns to itself"):
        opened(path)


@pytest.mark.parametrize(
    "content", [b"", b"II", b"II*\0", b"II*\0\0\0\0\0", b"MM\0+" + bytes(12), b"not a TIFF at all"]
)
def test_what_is_no_tiff_is_refused(tmp_path, content):
    (tmp_path / "a.svs").write_bytes(content)
    with pytest.raises(SourceError, match="expected"):
        opened(tmp_path / "a.svs")
    assert not needs_openslide(File(url=str(tmp_path / "a.svs")))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        opened(tmp_path / "nowhere.tif")


def test_broken_files_and_absurd_headers_stay_in_little_memory(tmp_path, shared_data):
    for name, tags in HOSTILE.items():
        write_tiff(tmp_path / f"{name}.tif", Page(tags=tags, pieces=[bytes(64)], tiled=324 in tags))
    bomb = imagecodecs.zstd_encode(bytes(1 << 28))
    tags = image_tags(1 << 14, 1 << 14, piece=(1 << 14, 1 << 14), compression=50000)
    write_tiff(tmp_path / "short.tif", Page(tags=tags, pieces=[bomb[:1000]]))
    script = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        from tilestream.errors import TilestreamError
        from tilestream.sources.files import File
        from tilestream.sources.tiff import open_tiff
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20),) * 2)
        files = [path for folder in sys.argv[1:] for path in sorted(Path(folder).glob("*.*"))]
        for path in [path for path in files if path.suffix in (".tif", ".svs")]:
            try:
                source = open_tiff(File(url=str(path)))
                for level in source.info.levels:
                    source.read_block(level.index, 0, 0)
                print("read", path.name)
            except TilestreamError as error:
                print("refused", path.name, type(error).__name__)
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), str(shared_data / "broken")],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert len(lines) == len(HOSTILE) + 1 + 7
    assert sum(line.startswith("read") for line in lines) == 3, lines
