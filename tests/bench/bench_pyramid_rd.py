"""The pyramid codec beside JPEG XL, JPEG 2000 and AVIF on two small pictures of tissue; `make bench-rd` has all.

Each tile has networks of its own, in its bytes. Results lie where those of `make bench-rd` do, and what is there of the
same code is taken as it stands: eight fits of minutes otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.bench import rd
from tests.bench.rd_bars import rows_of
from tests.bench.rd_fields import contestants
from tests.bench.rd_pictures import CROPS, data_folder, read_crop
from tests.bench.table import at_least, make_row
from tilestream.codecs import CONVENTIONAL, Contestant, PanelPicture, ms_ssim, psnr
from tilestream.codecs.tilecodec import tile_codec
from tilestream.types import Array

PICTURES = ("cmu-half-small", "os1-half-small")
RIVALS = ("jpegxl", "jpeg2000", "avif")
RIVAL = "jpegxl"
GAIN_BAR = 1.0
"""dB over JPEG XL of as many bytes, of a short fit."""


def short_rows(pixels: Array, *, quality: float, steps: int, bar: float = GAIN_BAR) -> list[dict[str, Any]]:
    """Return what a fit of few steps gives over JPEG XL of as many bytes.

    Parameters
    ----------
    pixels : ndarray
        `(3, y, x)` uint8.
    quality : float
        Of the codec.
    steps : int
        Of the fit.
    bar : float
        Least gain, dB.

    Returns
    -------
    list of dict
        A row of PSNR and one of MS-SSIM.
    """
    codec = tile_codec({"codec": "pyramid", "quality": quality, "steps": steps, "levels": 1})
    data = codec.encode(pixels)
    file = CONVENTIONAL[RIVAL].within(pixels, len(data))
    if file is None:
        raise ValueError(f"{RIVAL} has no file of {len(data)} bytes for {pixels.shape}")
    ours, theirs = codec.decode(data), CONVENTIONAL[RIVAL].decode(file)
    note = f"{len(data):,} and {len(file):,} B, {8 * len(data) / pixels[0].size:.2f} bits/px, {steps} steps"
    name = f"of a tile of the pyramid codec over that of {CONVENTIONAL[RIVAL].title} in as many bytes"
    return [
        make_row(f"PSNR {name}", psnr(pixels, ours) - psnr(pixels, theirs), "dB", bar=at_least(bar), note=note),
        make_row(f"MS-SSIM {name}", ms_ssim(pixels, ours) - ms_ssim(pixels, theirs), "", bar=at_least(0.0), note=note),
    ]


def panel() -> list[PanelPicture]:
    """Return the pictures; none where real images are not there."""
    data = data_folder()
    return [] if data is None else [read_crop(crop, data) for crop in CROPS if crop.name in PICTURES]


def panel_rows(pictures: Sequence[PanelPicture]) -> list[dict[str, Any]]:
    """Return bits over rivals at equal PSNR, and MS-SSIM over JPEG XL at equal bits."""
    codecs = [Contestant.of(CONVENTIONAL[name]) for name in RIVALS]
    [(pyramid, _)] = contestants(["pyramid"], networks=rd.POINTS / "networks")
    curves = rd.run(pictures, codecs, [(pyramid, None)], folder=rd.POINTS, threads=1)
    return rows_of(curves, {picture.name: picture.group for picture in pictures})


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark; none where real images are not there."""
    pictures = panel()
    if not pictures:
        print("pyramid_rd: made of real images that are not here: set TILESTREAM_DATA")
        return []
    return panel_rows(pictures)
