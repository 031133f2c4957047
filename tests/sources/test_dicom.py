"""DICOM slides made by code: frame tables, placement, compressions, colours, and what is never opened."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels.encoders import RLELosslessEncoder

from tests.sources.assembled import whole_level
from tests.sources.madedicom import pixels_of, save_dicom
from tilestream.errors import DamagedError, SourceError
from tilestream.sources.opening import open_source

J2K, JPEG, RLE, JPEGLS = (
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.80",
)


def jpeg(frame, **options):
    return imagecodecs.jpeg8_encode(frame, level=95, subsampling="444", **options)


def j2k(frame):
    return imagecodecs.jpeg2k_encode(frame, level=0, codecformat="j2k", reversible=True)


def rle(frame):
    return RLELosslessEncoder.encode(
        frame,
        encoding_plugin="pydicom",
        rows=frame.shape[0],
        columns=frame.shape[1],
        samples_per_pixel=frame.shape[2],
        number_of_frames=1,
        bits_allocated=8,
        bits_stored=8,
        pixel_representation=0,
        photometric_interpretation="RGB",
        planar_configuration=0,
    )


def smooth(shape):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.stack([y * 3 % 256, x * 5 % 256, (x + y) * 2 % 256], -1).astype(np.uint8)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("matrix", [(8, 8), (9, 5), (3, 2)])
def test_raw_frames(tmp_path, matrix, planar):
    pixels = save_dicom(tmp_path / "a.dcm", matrix=matrix, planar=planar)
    np.testing.assert_array_equal(whole_level(open_source(str(tmp_path / "a.dcm")))[0], pixels)


def test_sixteen_bits(tmp_path):
    pixels = save_dicom(tmp_path / "a.dcm", matrix=(9, 7), pixels=pixels_of((9, 7), 1, np.uint16))
    source = open_source(str(tmp_path / "a.dcm"))
    assert source.info.dtype == np.uint16
    np.testing.assert_array_equal(whole_level(source)[0], pixels)


@pytest.mark.parametrize("table", ["basic", "extended", "none"])
@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (J2K, j2k),
        (JPEGLS, imagecodecs.jpegls_encode),
        (RLE, rle),
    ],
)
def test_lossless_compressions(tmp_path, syntax, encode, table):
    made = {"matrix": (40, 33), "tile": 16, "pixels": smooth((40, 33))}
    save_dicom(tmp_path / "a.dcm", **made, syntax=syntax, encode=encode, table=table)
    pixels, _, damage = whole_level(open_source(str(tmp_path / "a.dcm")))
    assert not damage
    np.testing.assert_array_equal(pixels, made["pixels"])


def test_fragments_without_a_table(tmp_path):
    """A frame in several fragments is found by the start of its stream."""
    made = {"matrix": (40, 33), "tile": 16, "pixels": smooth((40, 33))}
    save_dicom(tmp_path / "a.dcm", **made, syntax=J2K, encode=j2k, table="none", fragments=3)
    np.testing.assert_array_equal(whole_level(open_source(str(tmp_path / "a.dcm")))[0], made["pixels"])


@pytest.mark.parametrize(
    ("stored_as", "tag", "said"),
    [
        ("YCBCR", "YBR_FULL", None),  # JFIF under the right tag
        ("YCBCR", "RGB", "the JPEG frames say YCbCr"),  # the lie of the collection
        ("RGB", "RGB", None),  # no JFIF: the tag decides, or Adobe says RGB
        ("RGB", "YBR_FULL_422", "the JPEG frames say RGB"),
    ],
)
def test_the_stream_decides_on_colour(tmp_path, stored_as, tag, said):
    made = {"matrix": (32, 32), "tile": 16, "pixels": smooth((32, 32))}
    save_dicom(
        tmp_path / "a.dcm",
        **made,
        syntax=JPEG,
        encode=lambda frame: jpeg(frame, colorspace="RGB", outcolorspace=stored_as),
        elements={"PhotometricInterpretation": tag},
    )
    source = open_source(str(tmp_path / "a.dcm"))
    pixels, _, damage = whole_level(source)
    assert not damage
    assert np.abs(pixels.astype(int) - made["pixels"]).mean() < 4
    assert bool(said) == any("they are read as" in note for note in source.info.notes)
    assert said is None or said in source.info.notes[-1]


def test_sparse(tmp_path):
    kept = {(0, 0), (1, 2), (2, 1)}
    pixels = save_dicom(tmp_path / "a.dcm", matrix=(11, 10), sparse=kept)
    source = open_source(str(tmp_path / "a.dcm"))
    for iy in range(3):
        for ix in range(3):
            block = source.read_block(0, iy, ix)
            assert (block is not None) == ((iy, ix) in kept)
            if block is not None:
                expected = pixels[iy * 4 : iy * 4 + 4, ix * 4 : ix * 4 + 4]
                np.testing.assert_array_equal(block.pixels, expected)


def test_frames_off_the_grid_are_refused(tmp_path):
    position = Dataset()
    position.RowPositionInTotalImagePixelMatrix, position.ColumnPositionInTotalImagePixelMatrix = 3, 1
    frame = Dataset()
    frame.PlanePositionSlideSequence = [position]
    save_dicom(
        tmp_path / "a.dcm", sparse={(0, 0)}, elements={"PerFrameFunctionalGroupsSequence": [frame]}, matrix=(8, 8)
    )
    with pytest.raises(SourceError, match="frame 1 at row 3"):
        open_source(str(tmp_path / "a.dcm"))


def paths(*names):
    found = []
    for number, name in enumerate(names):
        path = Dataset()
        path.OpticalPathIdentifier, path.OpticalPathDescription = str(number), name
        code = Dataset()
        code.CodeValue = "111743"
        path.IlluminationTypeCodeSequence = [code]
        found.append(path)
    return found


def test_optical_paths_are_channels_and_planes_are_z(tmp_path):
    """Order of TILED_FULL: columns, rows, focal planes, optical paths."""
    matrix, tile = (8, 8), 4
    stack = [[pixels_of(matrix, 1, seed=10 * path + plane) for plane in range(3)] for path in range(2)]
    frames = [
        stack[path][plane][iy : iy + tile, ix : ix + tile]
        for path in range(2)
        for plane in range(3)
        for iy in (0, 4)
        for ix in (0, 4)
    ]
    elements = {"OpticalPathSequence": paths("DAPI", "FITC"), "TotalPixelMatrixFocalPlanes": 3}
    save_dicom(tmp_path / "a.dcm", matrix=matrix, pixels=stack[0][0], frames=frames, elements=elements)
    source = open_source(str(tmp_path / "a.dcm"))
    assert [channel.name for channel in source.info.channels] == ["DAPI", "FITC"]
    assert source.info.modality == "fluorescence"
    assert source.info.axes["z"] == 3
    for plane in range(3):
        expected = np.concatenate([stack[0][plane], stack[1][plane]], axis=2)
        np.testing.assert_array_equal(whole_level(source.isel(z=plane))[0], expected)
    assert any("axis z" in note for note in source.info.notes)


def test_one_file_a_channel(tmp_path):
    stack = [pixels_of((8, 8), 1, seed=seed) for seed in range(2)]
    for number, name in enumerate(("DAPI", "FITC")):
        elements = {"OpticalPathSequence": paths(name)}
        save_dicom(tmp_path / f"{number}.dcm", pixels=stack[number], elements=elements)
    source = open_source(str(tmp_path))
    assert [channel.name for channel in source.info.channels] == ["DAPI", "FITC"]
    np.testing.assert_array_equal(whole_level(source)[0], np.concatenate(stack, axis=2))


def test_a_concatenation_is_one_level(tmp_path):
    pixels = pixels_of((8, 8))
    frames = [pixels[iy : iy + 4, ix : ix + 4] for iy in (0, 4) for ix in (0, 4)]
    for part, names in enumerate((frames[:3], frames[3:])):
        elements = {"ConcatenationUID": "1.2.9", "ConcatenationFrameOffsetNumber": 3 * part}
        save_dicom(tmp_path / f"{part}.dcm", pixels=pixels, frames=names, elements=elements)
    np.testing.assert_array_equal(whole_level(open_source(str(tmp_path)))[0], pixels)


def test_levels_are_sorted_by_size(tmp_path):
    coarse = save_dicom(tmp_path / "1.dcm", matrix=(5, 4))
    fine = save_dicom(tmp_path / "2.dcm", matrix=(10, 9))
    source = open_source(str(tmp_path / "1.dcm"))
    assert [level.scale_yx for level in source.info.levels] == [(1.0, 1.0), (2.0, 2.0)]
    np.testing.assert_array_equal(whole_level(source, 0)[0], fine)
    np.testing.assert_array_equal(whole_level(source, 1)[0], coarse)


@pytest.mark.parametrize("flavour", ["LABEL", "OVERVIEW", "LOCALIZER"])
def test_pictures_of_the_label_are_never_opened(tmp_path, flavour):
    save_dicom(tmp_path / "label.dcm", matrix=(80, 80), flavour=flavour)
    with pytest.raises(SourceError, match="never opened"):
        open_source(str(tmp_path / "label.dcm"))
    with pytest.raises(SourceError, match="no slide"):
        open_source(str(tmp_path))
    save_dicom(tmp_path / "slide.dcm", matrix=(8, 8))
    assert open_source(str(tmp_path)).info.shape.yx == (8, 8)


def test_a_slide_that_shows_its_label_is_refused(tmp_path):
    save_dicom(tmp_path / "a.dcm", elements={"SpecimenLabelInImage": "YES"})
    with pytest.raises(SourceError, match="never opened"):
        open_source(str(tmp_path / "a.dcm"))


def test_several_slides_in_a_folder(tmp_path):
    first = save_dicom(tmp_path / "1.dcm", series="1.2.3", pixels=pixels_of((8, 8), seed=1))
    second = save_dicom(tmp_path / "2.dcm", series="1.2.4", pixels=pixels_of((8, 8), seed=2))
    source = open_source(str(tmp_path))
    np.testing.assert_array_equal(whole_level(source)[0], first)
    assert any("axis series has 2 entries" in note for note in source.info.notes)
    np.testing.assert_array_equal(whole_level(open_source(f"{tmp_path}#series=1"))[0], second)
    np.testing.assert_array_equal(whole_level(open_source(str(tmp_path / "2.dcm")))[0], second)


def test_other_kinds_are_named(shared_data):
    for name, kind in (("sm_annotations.dcm", "Annotations"), ("seg_image_sm_control.dcm", "Segmentation")):
        with pytest.raises(SourceError, match=kind):
            open_source(str(shared_data / "slides/dicom-annotated" / name))


@pytest.mark.parametrize("table", ["basic", "extended", "none"])
def test_cut_anywhere(tmp_path, table):
    """A cut file fails to open, or each frame is whole and right, or says that it is damaged."""
    pixels = smooth((32, 32))
    save_dicom(tmp_path / "a.dcm", matrix=(32, 32), pixels=pixels, tile=16, syntax=J2K, encode=j2k, table=table)
    data = (tmp_path / "a.dcm").read_bytes()
    path, opened = tmp_path / "cut" / "cut.dcm", 0  # alone in its folder: the whole one is of the same series
    path.parent.mkdir()
    for size in [*range(0, len(data) - 8, 61), len(data) - 9]:
        path.write_bytes(data[:size])
        try:
            source = open_source(str(path), source="dicom")
        except SourceError:
            continue
        opened += 1
        found, valid, damage = whole_level(source)
        assert damage or size > len(data) - 16
        np.testing.assert_array_equal(found[valid], pixels[valid])
    assert opened


def test_one_bad_frame_costs_one_tile(tmp_path):
    pixels = smooth((32, 32))
    save_dicom(tmp_path / "a.dcm", matrix=(32, 32), pixels=pixels, tile=16, syntax=JPEG, encode=jpeg,
               elements={"PhotometricInterpretation": "YBR_FULL"})  # fmt: skip
    data = bytearray((tmp_path / "a.dcm").read_bytes())
    second = data.find(b"\xff\xd8", data.find(b"\xff\xd8") + 2)
    data[second : second + 2] = b"\0\0"
    (tmp_path / "a.dcm").write_bytes(data)
    source = open_source(str(tmp_path / "a.dcm"))
    assert set(whole_level(source)[2]) == {(0, 1)}
    with pytest.raises(DamagedError, match="frame 2: JPEG stream does not start"):
        source.read_block(0, 0, 1)


@pytest.mark.parametrize(
    ("elements", "said"),
    [
        ({"TotalPixelMatrixRows": 2**31 - 1, "TotalPixelMatrixColumns": 2**31 - 1}, "tiles for 4 frames"),
        ({"TotalPixelMatrixRows": 2**31 - 1, "DimensionOrganizationType": "TILED_SPARSE"}, "tiles for 4 frames"),
        ({"NumberOfFrames": 2**31 - 1}, "2147483647 frames in"),
        ({"Rows": 0}, "positive sizes"),
        ({"BitsAllocated": 32}, "32 bits"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
    ],
)
def test_absurd_headers(tmp_path, elements, said):
    save_dicom(tmp_path / "a.dcm", elements=elements)
    with pytest.raises(SourceError, match=said):
        open_source(str(tmp_path / "a.dcm"))


def test_a_series_that_changes_under_a_reader_is_noticed(tmp_path):
    import pickle

    from tilestream.sources import dicom

    save_dicom(tmp_path / "a.dcm", matrix=(8, 8))
    source = pickle.loads(pickle.dumps(open_source(str(tmp_path / "a.dcm"))))
    save_dicom(tmp_path / "a.dcm", matrix=(8, 12))
    dicom._tables.renew()
    with pytest.raises(SourceError, match="as when it was opened"):
        source.read_block(0, 0, 0)
