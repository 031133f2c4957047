"""Directional tokens beside square ones at equal numbers: what an experiment has found, on photographs and real scans.

Measured once, on 2026-11-28, over five photographs (Kodak), the Blue Marble, a slide and a Sentinel-2 scene, with the
best of six thresholds (0.2): 5, 9 and 14 % less squared error at 10, 25 and 50 % of the tokens (0.2 to 0.7 dB), much on
pictures with edges along the axes (up to 36 %), nothing on the Blue Marble. An oracle would save 11, 20 and 37 %.

So there is something in it, and it is no part of the library: encoders have seen square pixels only, and one would have
to be trained with tokens of 2:1 before the error of pixels says anything of what it sees.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.bench.directional import PATCH_PX, compare, measure
from tests.bench.table import make_row
from tilestream.pyramid import open_pyramid
from tilestream.types import Box

DATA = Path(os.environ.get("TILESTREAM_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
PARTS = {
    **{f"photos/kodim{number:02d}.png": (0, 100, 512) for number in (1, 5, 8, 13, 16)},
    "photos/bluemarble_5400x2700.jpg": (600, 2600, 1024),
    "slides/CMU-1-Small-Region.svs": (900, 600, 1024),
    "satellite/S2_L2A_19UDP_20170729_TCI.jp2": (100, 100, 512),
}
"""First row and column and edge of what is looked at of each image, px."""
SHARES = (0.1, 0.25, 0.5)
"""Of all tokens."""


def part_of(name: str) -> npt.NDArray[np.float64]:
    """Return a square of an image, the mean of its channels."""
    y, x, edge = PARTS[name]
    pixels = open_pyramid(DATA / name).read(Box(y=y, x=x, height=edge, width=edge))
    return np.asarray(pixels.mean(axis=0, dtype=np.float64))


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark; none where the images are not there."""
    if not all((DATA / name).exists() for name in PARTS):
        return []
    images = [measure(part_of(name)) for name in PARTS]
    found = []
    for share in SHARES:
        errors = [compare(image, int(share * (image.image.shape[0] // PATCH_PX) ** 2)) for image in images]
        square, by_rule, by_oracle = np.exp(np.log(errors).mean(axis=0)).tolist()
        most, least = (f"{limit(one[1] / one[0] for one in errors):.2f}" for limit in (min, max))
        found.append(
            make_row(
                f"error with directional tokens, {share:.0%} of all", by_rule, "grey levels²",
                rival=("square tokens", square),
                note=f"geometric mean of {len(images)} images, ratios {most} to {least}; an oracle: "
                f"{by_oracle / square:.2f}. An experiment, no part of the library",
            )
        )  # fmt: skip
    return found
