"""DICOM headers that lie, contradict themselves or nest without end: one clear refusal each, nothing allocated."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom.dataset import Dataset

from tests.sources.madedicom import pixels_of, save_dicom
from tilestream.errors import DamagedError, SourceError, TilestreamError
from tilestream.sources.discovery import find_inputs
from tilestream.sources.opening import open_source


def frames_without_columns():
    frame, position = Dataset(), Dataset()
    position.RowPositionInTotalImagePixelMatrix = 1
    frame.PlanePositionSlideSequence = [position]
    return {"DimensionOrganizationType": "TILED_SPARSE", "PerFrameFunctionalGroupsSequence": [frame] * 4}


def frames_of_many_depths(n):
    frames = []
    for number in range(n):
        frame, position = Dataset(), Dataset()
        position.RowPositionInTotalImagePixelMatrix = position.ColumnPositionInTotalImagePixelMatrix = 1
        position.ZOffsetInSlideCoordinateSystem = float(number)
        frame.PlanePositionSlideSequence = [position]
        frames.append(frame)
    huge = {"TotalPixelMatrixRows": 24_000, "TotalPixelMatrixColumns": 24_000, "NumberOfFrames": n}
    return {"DimensionOrganizationType": "TILED_SPARSE", "PerFrameFunctionalGroupsSequence": frames, **huge}


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"ConcatenationUID": "1.2.3.4", "ConcatenationFrameOffsetNumber": 10**6}, "frames from 1000000 on"),
        (frames_without_columns(), "ColumnPositionInTotalImagePixelMatrix"),
        ({"Rows": [4, 4]}, "TypeError"),
        ({"Rows": 65535, "Columns": 65535}, "12,884,508,675 decoded bytes"),
        (frames_of_many_depths(4), "144,000,000 tiles"),
    ],
)
def test_headers_that_make_no_sense_are_refused(tmp_path, elements, message):
    save_dicom(tmp_path / "a.dcm", elements=elements)
    with pytest.raises(SourceError, match=message):
        open_source(str(tmp_path / "a.dcm"))


def test_sequences_nested_without_end_are_refused_and_stop_no_search(tmp_path):
    path = tmp_path / "a.dcm"
    save_dicom(path)
    data, depth = path.read_bytes(), 3000
    at = data.rfind(b"\xe0\x7f\x10\x00")
    begin = struct.pack("<HH2sHI", 0x0040, 0x0560, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    path.write_bytes(data[:at] + begin * depth + end * depth + data[at:])
    with pytest.raises(SourceError, match="header that cannot be read"):
        open_source(str(path))
    assert [found.state for found in find_inputs([tmp_path])] == ["input"]


def test_changed_bytes_of_a_header_never_raise_anything_else(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    save_dicom(path, sparse=[(0, 0), (1, 1)])
    whole, rng = path.read_bytes(), random.Random(1)
    head, refused = whole.rfind(b"\xe0\x7f\x10\x00") + 12, 0
    for _ in range(600):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 1, 2, 5])):
            data[rng.randrange(132, head)] = rng.choice([0, 1, 255, 127, rng.randrange(256)])
        path.write_bytes(data)
        try:
            open_source(str(path)).read_block(0, 0, 0)
        except TilestreamError:
            refused += 1
    assert refused > 100


def test_white_as_zero_is_flagged(tmp_path):
    grey = pixels_of((8, 8), samples=1)
    save_dicom(tmp_path / "a.dcm", pixels=grey, elements={"PhotometricInterpretation": "MONOCHROME1"})
    source = open_source(str(tmp_path / "a.dcm"))
    np.testing.assert_array_equal(source.read_block(0, 0, 0).pixels, grey[:4, :4])
    assert "white is stored as 0: values are left as they are stored" in source.info.notes


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [("1.2.840.10008.1.2.4.80", imagecodecs.jpegls_encode), ("1.2.840.10008.1.2.4.70", imagecodecs.ljpeg_encode)],
)
def test_frames_that_claim_a_large_picture_are_not_decoded(tmp_path, syntax, encode):
    grey = pixels_of((4, 4), samples=1)
    save_dicom(
        tmp_path / "a.dcm",
        matrix=(4, 4),
        pixels=grey,
        syntax=syntax,
        encode=lambda _: encode(np.zeros((2000, 3000), np.uint8)),
    )
    with pytest.raises(DamagedError, match=r"JPEG frame of \(2000, 3000, 1\), the header states \(4, 4, 1\)"):
        open_source(str(tmp_path / "a.dcm")).read_block(0, 0, 0)
