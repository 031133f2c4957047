"""Bounded errors of tissue against the usual way: pixels in steps of 2N + 1, then lossless JPEG XL.

All bytes of the files of `PyramidCodec(max_error=N, steps=0)` count: their base is of one colour, and neither they nor
their reader need torch. A fitted base gives a first look at the same file, of whose bits half are not saved again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from tests.bench.contestants import one_core
from tests.bench.rd_pictures import CROPS, SMALL, data_folder, read_crop
from tests.bench.table import make_row, rates
from tilestream.codecs.pyramid.file import PyramidFile
from tilestream.codecs.pyramid.pyramidcodec import PyramidCodec
from tilestream.codecs.pyramid.pyramidtile import PyramidTile
from tilestream.codecs.pyramid.residual import encode_residual

ERRORS = (0, 1, 2, 4)
BAR = (0.0, 1.0)
"""Of the bytes of the rival, at most as many."""
GROUPS = (SMALL, "tissue")
EFFORT = 7
STEPS = 400
"""Of the fit of a base."""
Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Coded:
    """Bytes of one tile at one largest error."""

    ours: int
    """The file."""
    rival: int
    """JPEG XL of steps."""


def tiles(group: str, *, most: int | None = None) -> list[tuple[str, Codes]]:
    """Return names and pixels `(c, y, x)` of a group of the panel; none where real images are not there."""
    data = data_folder()
    crops = [crop for crop in CROPS if crop.group == group and not crop.is_extra][:most]
    return [] if data is None else [(crop.name, read_crop(crop, data).pixels) for crop in crops]


def in_steps(pixels: Codes, max_error: int) -> bytes:
    """Return the rival's bytes, once they are known to keep the bound."""
    cell = 2 * max_error + 1
    steps = ((pixels.astype(np.int32) + max_error) // cell).astype(np.uint8)
    data = imagecodecs.jpegxl_encode(np.ascontiguousarray(np.moveaxis(steps, 0, 2)), lossless=True, effort=EFFORT)
    found = np.minimum(np.moveaxis(imagecodecs.jpegxl_decode(data), 2, 0).astype(np.int32) * cell, 255)
    assert np.abs(found - pixels).max() <= max_error
    return bytes(data)


def coded(pixels: Codes, max_error: int) -> Coded:
    """Return what a tile takes, once both are known to keep the bound."""
    codec = PyramidCodec(max_error=max_error, steps=0)
    data = codec.encode(pixels)
    assert np.abs(codec.decode(data).astype(np.int32) - pixels).max() <= max_error
    return Coded(ours=len(data), rival=len(in_steps(pixels, max_error)))


def size_row(group: str, named: Sequence[tuple[str, Codes]], max_error: int) -> dict[str, Any]:
    """Return the bytes of all tiles of a group beside the rival's, and tile by tile in the note."""
    return _row(group, max_error, {name: coded(pixels, max_error) for name, pixels in named}, named)


def _row(group: str, max_error: int, found: Mapping[str, Coded], named: Sequence[tuple[str, Codes]]) -> dict[str, Any]:
    px = sum(pixels.shape[1] * pixels.shape[2] for _, pixels in named)
    ours, rival = (8 * sum(getattr(one, who) for one in found.values()) / px for who in ("ours", "rival"))
    each = ", ".join(f"{name} {one.ours / one.rival:.2f}" for name, one in found.items())
    return make_row(
        f"{group}: largest error {max_error}" if max_error else f"{group}: lossless",
        ours,
        "bits a pixel",
        rival=(f"steps of {2 * max_error + 1}, JPEG XL e{EFFORT}", rival),
        bar=BAR,
        note=f"all bytes of {len(named)} tiles; ratios {each}",
    )


def fitted(pixels: Codes) -> dict[int, Coded]:
    """Return what a tile takes by largest error with a base that is fitted, once."""
    file = PyramidFile.from_bytes(PyramidCodec(max_error=0, steps=STEPS).encode(pixels))
    base = PyramidTile(replace(file, residual=None)).decode()
    found = {}
    for max_error in ERRORS:
        data = replace(file, residual=encode_residual(pixels, base, max_error)).to_bytes()
        assert np.abs(PyramidTile.from_bytes(data).decode().astype(np.int32) - pixels).max() <= max_error
        found[max_error] = Coded(ours=len(data), rival=len(in_steps(pixels, max_error)))
    return found


def fitted_rows(group: str, named: Sequence[tuple[str, Codes]]) -> list[dict[str, Any]]:
    """Return the rows of `size_row` for a base that is fitted."""
    every = {name: fitted(pixels) for name, pixels in named}
    return [
        _row(f"{group}, fitted base", max_error, {name: one[max_error] for name, one in every.items()}, named)
        for max_error in ERRORS
    ]


def decode_row(pixels: Codes, max_error: int) -> dict[str, Any]:
    """Return the rate at which one core reads a tile beside that of JPEG XL; no bar is set."""
    codec = PyramidCodec(max_error=max_error, steps=0)
    data, rival = codec.encode(pixels), in_steps(pixels, max_error)
    mpx = pixels.shape[1] * pixels.shape[2] / 1e6

    def ours() -> float:
        codec.decode(data)
        return mpx

    def theirs() -> float:
        imagecodecs.jpegxl_decode(rival, numthreads=1)
        return mpx

    ours()  # compiles, and makes the models
    with one_core():
        found = rates([ours, theirs])
    return make_row(
        f"largest error {max_error}: decoding on one core", found[0], "Mpx/s", rival=("JPEG XL", found[1]),
        note=f"{pixels.shape} 8-bit",
    )  # fmt: skip


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark; none where real images are not there."""
    groups = {group: named for group in GROUPS if (named := tiles(group))}
    if not groups:
        return []
    found = [size_row(group, named, max_error) for group, named in groups.items() for max_error in ERRORS]
    found += fitted_rows(SMALL, groups[SMALL])
    return found + [decode_row(groups["tissue"][0][1], max_error) for max_error in (0, 4)]
