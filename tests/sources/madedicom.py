"""DICOM slides made by code: every way of storing frames, with pixels that are known."""

from __future__ import annotations

import warnings

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended

WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"
RAW = "1.2.840.10008.1.2.1"


def pixels_of(matrix, samples=3, dtype=np.uint8, seed=0):
    """Noise `(y, x, samples)`."""
    high = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, high, (*matrix, samples), dtype, endpoint=True)


def tiles_of(pixels, tile):
    """Frames in row order, padded with zeros to whole tiles."""
    rows, columns = -(-pixels.shape[0] // tile), -(-pixels.shape[1] // tile)
    padded = np.zeros((rows * tile, columns * tile, pixels.shape[2]), pixels.dtype)
    padded[: pixels.shape[0], : pixels.shape[1]] = pixels
    cells = [(iy, ix) for iy in range(rows) for ix in range(columns)]
    return cells, [padded[iy * tile : (iy + 1) * tile, ix * tile : (ix + 1) * tile] for iy, ix in cells]


def save_dicom(path, *, matrix=(8, 8), series="1.2.3", flavour="VOLUME", pixels=None, tile=4, **more):
    """Write one instance; `more` are: encode, syntax, table, sparse (kept cells), elements, planar, frames."""
    pixels = pixels_of(matrix) if pixels is None else pixels
    cells, frames = tiles_of(pixels, tile)
    if more.get("sparse") is not None:
        frames = [frame for cell, frame in zip(cells, frames, strict=True) if cell in more["sparse"]]
        cells = [cell for cell in cells if cell in more["sparse"]]
    frames = more.get("frames", frames)
    header = FileDataset(str(path), {}, file_meta=FileMetaDataset(), preamble=bytes(128))
    header.file_meta.TransferSyntaxUID = more.get("syntax", RAW)
    header.file_meta.MediaStorageSOPClassUID = more.get("sop_class", WSI)
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = pydicom.uid.generate_uid()
    header.SOPClassUID, header.SeriesInstanceUID = more.get("sop_class", WSI), series
    header.ImageType = ["DERIVED", "PRIMARY", flavour, "NONE"]
    header.PatientName = "Secret^Patient"
    header.TotalPixelMatrixRows, header.TotalPixelMatrixColumns = matrix
    header.Rows, header.Columns, header.NumberOfFrames = tile, tile, len(frames)
    header.SamplesPerPixel = pixels.shape[2]
    header.PhotometricInterpretation = "RGB" if pixels.shape[2] == 3 else "MONOCHROME2"
    header.PlanarConfiguration = int(bool(more.get("planar")))
    header.BitsAllocated = header.BitsStored = 8 * pixels.dtype.itemsize
    header.HighBit, header.PixelRepresentation = header.BitsStored - 1, 0
    header.DimensionOrganizationType = "TILED_FULL"
    if more.get("sparse") is not None:
        header.DimensionOrganizationType = "TILED_SPARSE"
        header.PerFrameFunctionalGroupsSequence = [_position(cell, tile) for cell in cells]
    for name, value in more.get("elements", {}).items():
        setattr(header, name, value)
    _store(header, frames, more)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header.save_as(path, enforce_file_format=True)
    return pixels


def _position(cell, tile):
    frame, position = Dataset(), Dataset()
    position.RowPositionInTotalImagePixelMatrix = cell[0] * tile + 1
    position.ColumnPositionInTotalImagePixelMatrix = cell[1] * tile + 1
    frame.PlanePositionSlideSequence = [position]
    return frame


def _store(header, frames, more):
    encode = more.get("encode")
    if encode is None:
        stored = [frame.transpose(2, 0, 1) if more.get("planar") else frame for frame in frames]
        data = b"".join(frame.tobytes() for frame in stored)
        header.PixelData = data + bytes(len(data) % 2)
        header["PixelData"].VR = "OW" if header.BitsAllocated > 8 else "OB"
        return
    coded = [encode(np.ascontiguousarray(frame)) for frame in frames]
    table = more.get("table", "basic")
    if table == "extended":
        header.PixelData, header.ExtendedOffsetTable, header.ExtendedOffsetTableLengths = encapsulate_extended(coded)
    else:
        header.PixelData = encapsulate(coded, more.get("fragments", 1), has_bot=table == "basic")
    header["PixelData"].VR = "OB"
    header["PixelData"].is_undefined_length = True
