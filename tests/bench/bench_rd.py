"""What codecs need for tissue, on pieces of 256 px; `make bench-rd` has the whole panel, fields and plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.rd_pictures import CROPS, data_folder, read_crop
from tests.bench.rd_table import BETWEEN
from tests.bench.table import make_row
from tilestream.codecs import CONVENTIONAL, Contestant, Curve, PanelPicture, bd_rate, run_panel

PIECE_PX = 256
PICTURES = ("cmu-half-a", "os1-half", "nuclei-many-half")
"""Tissue that was reduced by two, so that no codec finds its own imprint."""
ANCHOR = "jpeg420"
ABSENT = "made of real images that are not here: set TILESTREAM_DATA"


def pieces(data: Path) -> list[PanelPicture]:
    """Return the first 256 rows and columns of the pictures."""
    found = [read_crop(crop, data) for crop in CROPS if crop.name in PICTURES]
    return [replace(one, pixels=one.pixels[:, :PIECE_PX, :PIECE_PX].copy()) for one in found]


def codec_row(codec: str, curves: Sequence[Curve]) -> dict[str, Any]:
    """Return the bits of a codec over those of JPEG 4:2:0 at equal PSNR, mean over the pictures."""
    found = {curve.picture: curve for curve in curves if curve.codec == codec}
    anchors = {curve.picture: curve for curve in curves if curve.codec == ANCHOR}
    bits = {name: bd_rate(anchors[name], found[name], bpp=BETWEEN) for name in PICTURES}
    told = ", ".join(f"{name} {value:+.0f} %" for name, value in bits.items())
    name = f"{CONVENTIONAL[codec].title}, bits over {CONVENTIONAL[ANCHOR].title} at equal PSNR on tissue"
    return make_row(name, sum(bits.values()) / len(bits), "%", note=f"{told}; {PIECE_PX}² pieces, reduced by two")


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark; none where real images are not there."""
    data = data_folder()
    if data is None:
        print(f"rd: {ABSENT}")
        return []
    panel = pieces(data)
    with TemporaryDirectory() as folder:
        curves = run_panel(panel, [Contestant.of(codec) for codec in CONVENTIONAL.values()], Path(folder))
    return [codec_row(name, curves) for name in CONVENTIONAL if name != ANCHOR]
