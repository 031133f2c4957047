"""TIFF headers that would cost memory or time out of proportion, and names that must not leave a file's folder."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
import tifffile

from tilestream.errors import SourceError
from tilestream.sources.files import File
from tilestream.sources.opening import open_source
from tilestream.sources.tiffifd import HEADER_PIECES, PAGE_BYTES, iter_ifds

GREY = ((256, 3, 1, 16), (257, 3, 1, 16), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8))
GREY = (*GREY, (277, 3, 1, 1), (278, 3, 1, 16), (279, 4, 1, 256))


def directory(tags, following=0):
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)


def test_subifds_that_repeat_are_refused_before_they_are_parsed(tmp_path):
    """65,536 references to one directory of 4,000 tags took six gigabytes and a minute."""
    many = directory([(20_000 + number, 4, 1, number) for number in range(4000)])
    at = 8 + 256 + len(directory([*GREY, (330, 4, 65_536, 0)]))
    head = b"II*\0" + struct.pack("<I", 8 + 256) + bytes(256)
    first = directory([*GREY, (330, 4, 65_536, at + len(many))])
    (tmp_path / "a.tif").write_bytes(head + first + many + struct.pack("<I", at) * 65_536)
    with pytest.raises(SourceError, match="65536 SubIFDs at 1 places"):
        open_source(str(tmp_path / "a.tif"))


def test_planes_that_only_together_are_absurd_are_refused(tmp_path):
    width, samples = 1 << 26, 1000
    strip = zlib.compress(bytes(width))
    tables = struct.pack("<I", 8) * samples, struct.pack("<I", len(strip)) * samples, struct.pack("<H", 8) * samples
    offsets, counts, bits = (8 + len(strip) + sum(map(len, tables[:number])) for number in range(3))
    tags = [(256, 4, 1, width), (257, 3, 1, 1), (258, 3, samples, bits), (259, 3, 1, 8), (262, 3, 1, 1)]
    tags += [
        (273, 4, samples, offsets),
        (277, 3, 1, samples),
        (278, 3, 1, 1),
        (279, 4, samples, counts),
        (284, 3, 1, 2),
    ]
    body = strip + b"".join(tables)
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory(tags))
    with pytest.raises(SourceError, match="67,108,864,000 bytes decoded"):
        open_source(str(tmp_path / "a.tif"))


def test_the_headers_of_a_long_series_are_not_all_kept(tmp_path):
    pages, step = HEADER_PIECES + 50, 2 * PAGE_BYTES
    with (tmp_path / "a.tif").open("wb") as file:
        file.write(b"II*\0" + struct.pack("<I", 8))
        for number in range(pages):
            file.seek(8 + number * step)
            file.write(directory(GREY, 8 + (number + 1) * step if number < pages - 1 else 0))
        file.truncate(pages * step + 1000)
    ifds = list(iter_ifds(File(url=str(tmp_path / "a.tif"))))
    assert len(ifds) == pages
    assert len(ifds[0].header.pieces) == HEADER_PIECES
    assert ifds[0].one(256, 0) == ifds[-1].one(256, 0) == 16


@pytest.mark.parametrize(
    "inner",
    [
        '<Pixels SizeX="64" SizeY="64" SizeZ="1048576" SizeC="1" SizeT="1"><Channel/>'
        + "<TiffData/>" * 100
        + "</Pixels>"
    ],
)
def test_planes_described_again_and_again_are_refused(tmp_path, inner):
    text = f"<OME><Image>{inner}</Image></OME>"
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((64, 64), np.uint8), description=text, metadata=None)
    with pytest.raises(SourceError, match="TiffData of more than"):
        open_source(str(tmp_path / "a.ome.tif"))


def test_entities_that_expand_without_end_are_refused(tmp_path):
    entities = '<!ENTITY a "aaaaaaaaaa">'
    for one, other in zip("bcdefghijk", "abcdefghij", strict=True):
        entities += f'<!ENTITY {one} "{f"&{other};" * 10}">'
    text = f"<!DOCTYPE x [{entities}]><OME><Image Name='&k;'/></OME>"
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((64, 64), np.uint8), description=text, metadata=None)
    with pytest.raises(SourceError, match="does not parse"):
        open_source(str(tmp_path / "a.ome.tif"))


@pytest.mark.parametrize("sample", ["²", "9" * 400, "-1"])
def test_odd_sample_numbers_of_gdal_are_passed_over(tmp_path, sample):
    text = f'<GDALMetadata><Item name="x" sample="{sample}" role="scale">2</Item></GDALMetadata>'.encode()
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), np.uint8), extratags=[(42112, "s", 0, text, True)])
    assert open_source(str(tmp_path / "a.tif")).info.channels[0].scale == 1.0


def test_nodata_beyond_the_type_warns_nobody(tmp_path):
    tags = [(42113, "s", 0, "1e40", True)]
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), np.float32), extratags=tags)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_source(str(tmp_path / "a.tif")).read_block(0, 0, 0).valid is None


def test_notes_name_no_path(tmp_path):
    path = tmp_path / "Secret^Patient.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(np.zeros((512, 512), np.uint8), tile=(256, 256))
        file.write(np.zeros((256, 256), np.uint8), tile=(256, 256), subfiletype=1, compression="zlib")
    with tifffile.TiffFile(path) as file:
        at = file.pages[1].tags[259].valueoffset
    data = bytearray(path.read_bytes())
    data[at : at + 2] = (34887).to_bytes(2, "little")
    path.write_bytes(data)
    notes = open_source(str(path)).info.notes
    assert any("LERC" in note for note in notes)
    assert not any("Secret" in note or os.fspath(tmp_path) in note for note in notes)


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from tilestream.pyramid import open_pyramid
from tilestream.types import Box
pyramid = open_pyramid(sys.argv[1])
print(pyramid.read_region(Box(y=0, x=0, height=8, width=8)).damage)
"""


@pytest.mark.parametrize("compression", ["zlib", "zstd", "lzma"])
def test_a_tile_that_expands_beyond_its_size_is_bounded(tmp_path, compression):
    """One gigabyte and more out of a tile of 64 x 64 pixels, in a process that has three."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8), tile=(64, 64), compression=compression)
    with tifffile.TiffFile(path) as file:
        place, size = (file.pages[0].tags[code].valueoffset for code in (324, 325))
    coder = {"zlib": zlib_bomb, "zstd": zstd_bomb, "lzma": lzma_bomb}[compression]
    data, bomb = bytearray(path.read_bytes()), coder()
    struct.pack_into("<I", data, place, len(data))
    struct.pack_into("<I", data, size, len(bomb))
    path.write_bytes(data + bomb)
    run = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-500:]


def zlib_bomb():
    coder = zlib.compressobj(9)
    return b"".join([coder.compress(bytes(1 << 20)) for _ in range(1024)] + [coder.flush()])


def zstd_bomb():
    import imagecodecs

    return imagecodecs.zstd_encode(bytes(1 << 30))


def lzma_bomb():
    import lzma

    return lzma.compress(bytes(1 << 26), preset=0)
