"""Tiles copied as they are stored: archives of them hold exactly the pixels that the source's own decoder gives."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import zarr
from PIL import Image

from tests.sources.archived import archive, check, decoded
from tests.sources.madedicom import save_dicom
from tests.sources.madetiff import (
    Page,
    image_tags,
    opened,
    photo,
    split_tables,
    subsampled_jpeg2000,
    tiles_of,
    write_tiff,
)
from tilestream.codecs.imagechunks import with_checksum
from tilestream.errors import ConfigError, DamagedError
from tilestream.pyramid.chosen import choose
from tilestream.sources.encoded import archive_reason, encoded_level, read_encoded
from tilestream.sources.opening import open_source
from tilestream.types import Source

COPIED = [
    "slides/CMU-1-Small-Region.svs",
    "slides/OS-1-detail.ome.tif",
    "slides/OS-2-ndpi.ome.tif",
    "slides/camelyon-jpeg2000.dcm",
    "slides/dicom-cmu-1-small-region",
    "satellite/cogeo.tif",
]
JPEG, J2K_YCBCR, J2K_RGB, J2K = 7, 33003, 33005, 34712
GREY, RGB, YCBCR = 1, 2, 6
REPO = Path(__file__).parents[2]
SHAPE, TILE = (150, 130), (64, 48)


def jpeg(tile: np.ndarray, **options: int | bool) -> bytes:
    out = io.BytesIO()
    Image.fromarray(tile.squeeze()).save(out, "JPEG", quality=75, **options)
    return out.getvalue()


def sampled(sampling: str):
    return lambda tile: imagecodecs.jpeg8_encode(tile, level=80, subsampling=sampling)


def rgb(tile: np.ndarray) -> bytes:
    """Return a stream as Aperio writes it: RGB components, and no marker that says so."""
    stream = imagecodecs.jpeg8_encode(tile, level=80, colorspace="rgb", outcolorspace="rgb", subsampling="444")
    return stream[:2] + stream[stream.index(b"\xff\xdb") :]


def adobe(tile: np.ndarray) -> bytes:
    return imagecodecs.jpeg8_encode(tile, level=80, colorspace="rgb", outcolorspace="rgb", subsampling="444")


def raw(tile: np.ndarray) -> bytes:
    return imagecodecs.jpeg8_encode(tile, level=80, colorspace="unknown", outcolorspace="unknown")


def j2k(tile: np.ndarray) -> bytes:
    return imagecodecs.jpeg2k_encode(tile.squeeze(), level=0, codecformat="j2k", reversible=True)


def jp2(tile: np.ndarray) -> bytes:
    return imagecodecs.jpeg2k_encode(tile, level=40, codecformat="jp2")


def page(encode, *, compression=JPEG, photometric=YCBCR, samples=3, shared=False, sparse=(), dtype="u1") -> Page:
    pixels = photo(*SHAPE, channels=samples).astype(dtype) * (1 if dtype == "u1" else 200)
    streams = [encode(tile) for tile in tiles_of(pixels, TILE)]
    bits = 8 * np.dtype(dtype).itemsize
    tags = image_tags(*SHAPE, piece=TILE, samples=samples, compression=compression, photometric=photometric, bits=bits)
    if shared:
        tags[347] = ("B", split_tables(streams[0])[0])
        streams = [split_tables(stream)[1] for stream in streams]
    return Page(tags=tags, pieces=[None if n in sparse else stream for n, stream in enumerate(streams)])


PAGES = {
    **{f"ycbcr {s}": lambda s=s: page(sampled(s), shared=True) for s in ("444", "422", "420", "440", "411")},
    "own tables": lambda: page(sampled("420")),
    "rgb": lambda: page(rgb, photometric=RGB, shared=True),
    "rgb, own tables": lambda: page(rgb, photometric=RGB),
    "rgb by marker": lambda: page(adobe, photometric=RGB, shared=True),
    "ycbcr tagged rgb": lambda: page(jpeg, photometric=RGB, shared=True),
    "grey": lambda: page(jpeg, samples=1, photometric=GREY, shared=True),
    "two bands": lambda: page(raw, samples=2, photometric=GREY, shared=True),
    "three bands": lambda: page(raw, samples=3, photometric=GREY, shared=True),
    "three bands in ycbcr": lambda: page(jpeg, samples=3, photometric=GREY, shared=True),
    "four bands": lambda: page(raw, samples=4, photometric=GREY, shared=True),
    "restarts": lambda: page(lambda tile: jpeg(tile, restart_marker_blocks=3), shared=True),
    "restarts of rows": lambda: page(lambda tile: jpeg(tile, restart_marker_rows=1)),
    "progressive": lambda: page(lambda tile: jpeg(tile, progressive=True)),
    "tables of each tile": lambda: page(lambda tile: jpeg(tile, optimize=True)),
    "sparse": lambda: page(sampled("420"), shared=True, sparse=(0, 4, 5)),
    "jpeg 2000": lambda: page(j2k, compression=J2K, photometric=RGB),
    "jpeg 2000 of 16 bits": lambda: page(j2k, compression=J2K, photometric=RGB, dtype="u2"),
    "jpeg 2000 in boxes": lambda: page(jp2, compression=J2K_RGB, photometric=RGB),
    "grey jpeg 2000": lambda: page(j2k, compression=J2K, samples=1, photometric=GREY, dtype="u2", sparse=(1,)),
}


def one(path: Path, encode=None, **options) -> Source:
    return opened(write_tiff(path / "a.tif", page(encode or sampled("420"), **options)))


@pytest.mark.parametrize("name", COPIED)
def test_archives_of_real_images_hold_their_pixels(tmp_path, shared_data, name):
    source = open_source(str(shared_data / name))
    assert archive_reason(source) is None
    assert check(source, tmp_path) == []


@pytest.mark.parametrize("name", PAGES)
def test_archives_of_made_images_hold_their_pixels(tmp_path, name):
    source = opened(write_tiff(tmp_path / "a.tif", PAGES[name]()))
    assert archive_reason(source) is None
    assert check(source, tmp_path) == []
    taken = (tmp_path / "0/c/0/0/0").stat().st_size - 4 - 16 * source.info.levels[0].blocks.area
    assert taken <= encoded_level(source, 0).stored_bytes <= 1.15 * taken
    assert check(pickle.loads(pickle.dumps(source)), tmp_path / "again") == []


def test_other_readers_of_a_stream_see_the_same_colours(tmp_path):
    """Pillow knows nothing of TIFF tags: streams that stand for themselves are right there too."""
    for name in ("rgb", "ycbcr 444", "ycbcr tagged rgb", "three bands", "grey"):
        source = opened(write_tiff(tmp_path / "a.tif", PAGES[name]()))
        stream = read_encoded(source, 0, [(0, 1, 1)])[0][:-4]
        np.testing.assert_array_equal(
            np.asarray(Image.open(io.BytesIO(stream))).reshape(64, 48, -1), source.read_block(0, 1, 1).pixels
        )


def test_subsampled_jpeg_2000_of_aperio_is_copied_and_other_ycbcr_is_not(tmp_path):
    y = np.tile(np.arange(60, 124, dtype="u1"), (64, 1))
    stream = subsampled_jpeg2000([y, np.full((64, 32), 110, "u1"), np.full((64, 32), 150, "u1")])
    tags = image_tags(64, 64, piece=(64, 64), samples=3, compression=J2K_YCBCR)
    source = opened(write_tiff(tmp_path / "a.tif", Page(tags=tags, pieces=[stream])))
    assert archive_reason(source) is None
    assert check(source, tmp_path) == []
    plain = one(tmp_path, j2k, compression=J2K_YCBCR, photometric=RGB)
    assert "33003" in archive_reason(plain)


@pytest.mark.parametrize(("encode", "options"), [(sampled("420"), {}), (j2k, {"compression": J2K, "photometric": RGB})])
def test_a_frame_shorter_than_its_tile_is_coded_anew_without_loss(tmp_path, encode, options):
    made = page(encode, **options)
    tiles = tiles_of(photo(*SHAPE), TILE)
    short = [encode(np.ascontiguousarray(tile[:30])) if n >= 6 else encode(tile) for n, tile in enumerate(tiles)]
    source = opened(write_tiff(tmp_path / "a.tif", Page(tags=made.tags, pieces=short)))
    assert check(source, tmp_path) == []


@pytest.mark.parametrize("layout", ["planes", "images"])
def test_channels_apart_are_chunks_apart(tmp_path, layout):
    pixels = photo(*SHAPE, channels=3)
    streams = [[jpeg(tile) for tile in tiles_of(pixels[:, :, [c]], TILE)] for c in range(3)]
    if layout == "planes":
        tags = image_tags(*SHAPE, piece=TILE, samples=3, compression=JPEG, photometric=GREY)
        tags |= {284: ("H", [2]), 338: ("H", [0, 0])}
        pages = [Page(tags=tags, pieces=[stream for channel in streams for stream in channel])]
    else:
        xml = (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
            f'DimensionOrder="XYCZT" Type="uint8" SizeX="{SHAPE[1]}" SizeY="{SHAPE[0]}" SizeC="3" SizeZ="1" SizeT="1">'
            + "".join(f'<Channel ID="Channel:0:{c}" SamplesPerPixel="1"/>' for c in range(3))
            + "<TiffData/></Pixels></Image></OME>"
        )
        tags = image_tags(*SHAPE, piece=TILE, compression=JPEG, photometric=GREY)
        pages = [
            Page(tags=tags | ({270: ("s", xml.encode() + b"\0")} if c == 0 else {}), pieces=streams[c])
            for c in range(3)
        ]
    source = opened(write_tiff(tmp_path / "a.ome.tif", *pages))
    assert len(source.info.channels) == 3
    assert encoded_level(source, 0).chunk_shape == (1, *TILE)
    assert "apart" in archive_reason(source)
    assert check(source, tmp_path) == []


def test_what_cannot_be_copied_says_why(tmp_path):
    def reason(source: Source) -> str:
        found = archive_reason(source)
        assert found is not None
        assert encoded_level(source, 0).codecs == ()
        return found

    assert "only JPEG" in reason(one(tmp_path, bytes, compression=1, photometric=RGB))
    assert "inverted" in reason(one(tmp_path, jpeg, samples=1, photometric=0))
    torn = page(sampled("420"), shared=True)
    torn.tags[347] = ("B", torn.tags[347][1][:-30])
    assert "tables" in reason(opened(write_tiff(tmp_path / "a.tif", torn)))
    alpha = page(raw, samples=4, photometric=RGB)
    alpha = Page(tags=alpha.tags | {338: ("H", [2])}, pieces=alpha.pieces)
    assert "alpha" in reason(opened(write_tiff(tmp_path / "a.tif", alpha)))
    strip = Page(
        tags=image_tags(64, 64, compression=JPEG, photometric=GREY), pieces=[jpeg(photo(64, 64)[..., 0])], tiled=False
    )
    assert "strips" in reason(opened(write_tiff(tmp_path / "a.tif", strip)))
    Image.fromarray(photo(64, 64)).save(tmp_path / "a.jpg")
    picture = open_source(str(tmp_path / "a.jpg"))
    assert "as they are stored" in reason(picture)
    with pytest.raises(ConfigError, match="portable"):
        read_encoded(picture, 0, [(0, 0, 0)])


@dataclass(frozen=True)
class Wrong:
    """A source whose tiles are not what they were."""

    source: Source
    change: Callable[[bytes], bytes]

    @property
    def info(self):
        return self.source.info

    def encoded(self, level):
        return self.source.encoded(level)

    def read_block(self, level, iy, ix):
        return self.source.read_block(level, iy, ix)

    def read_encoded(self, level, cells):
        return [with_checksum(self.change(chunk[:-4])) for chunk in self.source.read_encoded(level, cells)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda stream: split_tables(stream)[1].replace(b"\xff\xc0", b"\xff\xc3"), "by itself is no image"),
        (lambda stream: stream.replace(b"Adobe\0\x64\0\0\0\0\0", b"Adobe\0\x64\0\0\0\0\1"), "other pixels"),
    ],
)
def test_a_copy_that_differs_is_found_before_anything_is_archived(tmp_path, change, said):
    source = opened(write_tiff(tmp_path / "a.tif", PAGES["rgb"]()))
    assert said in archive_reason(Wrong(source, change))


def test_views_of_a_source_give_its_tiles_unless_channels_are_chosen(tmp_path):
    one(tmp_path)
    plain = open_source(str(tmp_path / "a.tif"))
    views = [open_source(f"{tmp_path}/a.tif#kind=labels"), choose(plain, mpp=0.5)]
    for view in views:
        assert encoded_level(view, 0) == encoded_level(plain, 0)
        assert read_encoded(view, 0, [(0, 0, 1)]) == read_encoded(plain, 0, [(0, 0, 1)])
    assert "channels are chosen" in archive_reason(choose(plain, bands=["G"]))


@pytest.mark.parametrize("tag", ["RGB", "YBR_FULL_422"])
@pytest.mark.parametrize("encode", [sampled("420"), rgb, adobe])
def test_frames_of_dicom_by_the_word_of_their_stream(tmp_path, encode, tag):
    made = {"syntax": "1.2.840.10008.1.2.4.50", "elements": {"PhotometricInterpretation": tag}}
    save_dicom(tmp_path / "a.dcm", matrix=(70, 50), tile=32, pixels=photo(70, 50), encode=encode, **made)
    source = open_source(str(tmp_path / "a.dcm"))
    assert archive_reason(source) is None
    assert check(source, tmp_path) == []


def test_sparse_frames_and_optical_paths_of_dicom(tmp_path):
    made = {"syntax": "1.2.840.10008.1.2.4.90", "encode": j2k, "sparse": [(0, 0), (1, 1)]}
    save_dicom(tmp_path / "a.dcm", matrix=(40, 40), tile=16, pixels=photo(40, 40, channels=1), **made)
    source = open_source(str(tmp_path / "a.dcm"))
    assert check(source, tmp_path) == []
    assert read_encoded(source, 0, [(0, 0, 1)]) == [None]


def test_signed_samples_that_the_stream_calls_unsigned(tmp_path):
    made = {"syntax": "1.2.840.10008.1.2.4.90", "encode": j2k, "elements": {"PixelRepresentation": 1}}
    pixels = photo(40, 40, channels=1).astype("u2") * 250
    save_dicom(tmp_path / "a.dcm", matrix=(40, 40), tile=16, pixels=pixels, **made)
    source = open_source(str(tmp_path / "a.dcm"))
    assert source.info.dtype == np.int16
    assert decoded(source, 0).min() < 0
    assert check(source, tmp_path) == []


def test_damaged_tiles_are_named_and_cost_no_other(tmp_path):
    made = page(sampled("420"), shared=True)
    pieces = list(made.pieces)
    pieces[1] = pieces[1][:-40]
    pieces[4] = b"\0" * 30
    source = opened(write_tiff(tmp_path / "a.tif", Page(tags=made.tags, pieces=pieces)))
    damaged = check(source, tmp_path)
    assert [cell for cell, _ in damaged] == [(0, 0, 1), (0, 1, 1)]
    assert "cut" in damaged[0][1]
    assert archive_reason(source) is None


def test_tables_that_no_decoder_takes_are_damage(tmp_path):
    """Markers and sizes are right, so that only a decoder tells."""
    made = page(sampled("420"))
    pieces = list(made.pieces)
    at = pieces[2].index(b"\xff\xc4") + 5
    pieces[2] = pieces[2][:at] + b"\xff" * 16 + pieces[2][at + 16 :]  # codes of each length in a Huffman table
    source = opened(write_tiff(tmp_path / "a.tif", Page(tags=made.tags, pieces=pieces)))
    assert [cell for cell, _ in check(source, tmp_path)] == [(0, 0, 2)]


def test_an_offset_beyond_the_file_is_damage(tmp_path, shared_data):
    source = open_source(str(shared_data / "broken/corrupt.tif"))
    damaged = check(source, tmp_path)
    assert [cell for cell, _ in damaged] == [(0, 1, 1)]


@pytest.mark.parametrize("cell", [(0, 9, 0), (0, 0, 9), (0, -1, 0), (1, 0, 0)])
def test_a_cell_that_is_not_there_is_an_error(tmp_path, cell):
    with pytest.raises(IndexError):
        read_encoded(one(tmp_path), 0, [cell])


@pytest.mark.parametrize("name", ["ycbcr 420", "restarts", "progressive", "rgb", "jpeg 2000"])
def test_changed_bytes_are_found_or_decode_as_in_the_source(tmp_path, name):
    """Where a check sees damage the tile is left out; what no check sees decodes to the same wrong pixels as before."""
    rng = np.random.default_rng(len(name))
    stored = write_tiff(tmp_path / "a.tif", PAGES[name]()).read_bytes()
    source = opened(tmp_path / "a.tif")
    table = source._image.levels[0].level.tables[0]
    found = 0
    for _ in range(60):
        changed = bytearray(stored)
        tile = int(rng.integers(table.offsets.size))
        where = int(table.offsets.flat[tile] + rng.integers(table.counts.flat[tile]))
        changed[where] ^= 1 << int(rng.integers(8))
        (tmp_path / "a.tif").write_bytes(changed)
        source = opened(tmp_path / "a.tif")
        iy, ix = divmod(tile, source.info.levels[0].blocks.x)
        chunk = read_encoded(source, 0, [(0, iy, ix)])[0]
        try:
            block = source.read_block(0, iy, ix)
        except DamagedError:
            block = None
        if isinstance(chunk, DamagedError):
            found += 1
            assert block is None
        elif block is not None:
            array, _ = archive(source, 0, tmp_path / "copy")
            np.testing.assert_array_equal(array[:], decoded(source, 0))
    assert found > 0


def test_rot_in_an_archive_is_seen(tmp_path):
    """The checksum behind each stream finds what an image codec cannot: a bit that leaves a valid stream."""
    source = one(tmp_path)
    chunk = read_encoded(source, 0, [(0, 0, 0)])[0]
    archive(source, 0, tmp_path / "copy")
    shard = tmp_path / "copy/c/0/0/0"
    data = bytearray(shard.read_bytes())
    data[data.index(chunk) + len(chunk) - 100] ^= 4
    shard.write_bytes(data)
    with pytest.raises(ValueError, match="checksum"):
        zarr.open_array(tmp_path / "copy", mode="r")[:, :10, :10]


@pytest.mark.skipif("TILESTREAM_OTHER_PYTHON" not in os.environ, reason="no Python with another Zarr and imagecodecs")
@pytest.mark.parametrize("is_beside", [False, True])
def test_another_generation_of_zarr_and_imagecodecs_reads_the_same(tmp_path, is_beside):
    """Its own codecs read the archives; with tilestream's entry points beside them Zarr must not see two for a name."""
    for name, make in PAGES.items():
        source = opened(write_tiff(tmp_path / "a.tif", make()))
        archive(source, 0, tmp_path / name)
        np.save(tmp_path / f"{name}.npy", decoded(source, 0))
    script = (
        "import sys, pathlib, numpy, zarr\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).glob('*.npy')):\n"
        "    numpy.testing.assert_array_equal(zarr.open_array(path.with_suffix(''))[:], numpy.load(path), path.name)\n"
        "    print(path.name)\n"
    )
    (tmp_path / "tilestream-0.dist-info").mkdir()
    (tmp_path / "tilestream-0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: tilestream\nVersion: 0\n")
    points = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["entry-points"]["zarr.codecs"]
    (tmp_path / "tilestream-0.dist-info/entry_points.txt").write_text(
        "[zarr.codecs]\n" + "\n".join(f"{name} = {place}" for name, place in points.items())
    )
    done = subprocess.run(
        [os.environ["TILESTREAM_OTHER_PYTHON"], "-W", "error", "-c", script, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{REPO}" if is_beside else ""},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == sorted(f"{name}.npy" for name in PAGES)
