"""The images of the rate-distortion panel: crops of every slide, of scenes and of photos in the folder of real images.

Most slides are JPEG already, so that a codec at their rate finds what the first one left (JPEG most of all). Groups
that end in `/2` are reduced by two before they are coded, which takes most of that imprint away; the overview of
CAMELYON came from JPEG 2000, Sentinel-2 bands, heights and Kodak photos from no lossy codec.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import tilestream as ts
from tilestream.codecs import H_AND_DAB, H_AND_E, PanelPicture
from tilestream.kernels.mip import mip

REPO = Path(__file__).resolve().parents[2]
S2_BANDS = slice(1, 5)
"""Blue, green, red and near infrared: those of the finest resolution."""


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A square of an image in the folder of real images."""

    name: str
    """Of the picture in the panel."""
    group: str
    """What its curves are averaged with."""
    path: str
    """In the folder."""
    y: int = 0
    """First row."""
    x: int = 0
    """First column."""
    edge_px: int = 512
    """Of the picture, after it was reduced."""
    is_half: bool = False
    """Whether it is reduced by two first."""
    is_extra: bool = False
    """Whether the full panel alone has it."""


SVS, OS1, OS2 = "slides/CMU-1-Small-Region.svs", "slides/OS-1-detail.ome.tif", "slides/OS-2-ndpi.ome.tif"
NDPI, OVERVIEW = "slides/test3-DAPI-2-387.ndpi", "slides/camelyon-jpeg2000.dcm"
TILES, S2 = "slides/labelled-tiles", "satellite/S2A_29RKH_20200219_0_L2A"
MANY, FEW = f"{TILES}/high-nuclei-score-level0.png", f"{TILES}/very-low-nuclei-score-level0.png"
DEM = "satellite/Copernicus_DSM_COG_10_N00_00_E006_00_DEM.tif"
TRUE_COLOUR = "satellite/S2_L2A_19UDP_20170729_TCI.jp2"
COLOUR, BANDS = "satellite, 8 bits", "Sentinel-2, 4 x 16 bits"
_FIRST_PHOTOS = ("kodim01", "kodim05", "kodim08", "kodim15")
SMALL_PX = 256
"""Edge of crops that are small enough for networks to be fitted to each of them at several rates."""
SMALL, SMALL_SCENES, SMALL_PHOTOS = (f"{what}, {SMALL_PX} px" for what in ("tissue", "satellite", "Kodak"))
"""Groups of them: six of five slides, one scene, one photo."""
_STAINED = ("tissue", "tissue/2", "tissue 1024", SMALL)

CROPS = (
    Crop(name="cmu-a", group="tissue", path=SVS, y=1100, x=900),
    Crop(name="cmu-b", group="tissue", path=SVS, y=2300, x=800),
    Crop(name="cmu-c", group="tissue", path=SVS, y=2300, x=1500, is_extra=True),
    Crop(name="cmu-d", group="tissue", path=SVS, y=700, x=1000, is_extra=True),
    Crop(name="os1-a", group="tissue", path=OS1),
    Crop(name="os1-b", group="tissue", path=OS1, y=589, x=589, is_extra=True),
    Crop(name="os2-a", group="tissue", path=OS2, y=600, x=1000),
    Crop(name="os2-b", group="tissue", path=OS2, y=1600, x=1600, is_extra=True),
    Crop(name="os2-c", group="tissue", path=OS2, y=1500, x=1000, is_extra=True),
    Crop(name="camelyon-a", group="tissue", path=OVERVIEW, y=80, x=140),
    Crop(name="camelyon-b", group="tissue", path=OVERVIEW, y=80, x=930, is_extra=True),
    Crop(name="nuclei-many", group="tissue", path=MANY, y=267, x=444),
    Crop(name="nuclei-many-b", group="tissue", path=MANY, is_extra=True),
    Crop(name="nuclei-medium", group="tissue", path=f"{TILES}/medium-nuclei-score-level1.png"),
    Crop(name="nuclei-few", group="tissue", path=f"{TILES}/low-nuclei-score-level0.png", is_extra=True),
    Crop(name="nuclei-fewest", group="tissue", path=FEW, is_extra=True),
    Crop(name="cmu-half-a", group="tissue/2", path=SVS, y=1000, x=800, is_half=True),
    Crop(name="cmu-half-b", group="tissue/2", path=SVS, y=1900, x=700, is_extra=True, is_half=True),
    Crop(name="os1-half", group="tissue/2", path=OS1, y=38, x=38, is_half=True),
    Crop(name="os2-half-a", group="tissue/2", path=OS2, y=1100, x=1100, is_half=True),
    Crop(name="os2-half-b", group="tissue/2", path=OS2, y=200, x=1000, is_extra=True, is_half=True),
    Crop(name="nuclei-many-half", group="tissue/2", path=MANY, edge_px=384, is_half=True),
    Crop(name="nuclei-fewest-half", group="tissue/2", path=FEW, edge_px=400, is_extra=True, is_half=True),
    Crop(name="cmu-large", group="tissue 1024", path=SVS, y=1000, x=700, edge_px=1024, is_extra=True),
    Crop(name="cmu-large-b", group="tissue 1024", path=SVS, y=1940, x=700, edge_px=1024, is_extra=True),
    Crop(name="os1-large", group="tissue 1024", path=OS1, edge_px=1024, is_extra=True),
    Crop(name="os2-large", group="tissue 1024", path=OS2, y=1000, x=1000, edge_px=1024, is_extra=True),
    Crop(name="os2-large-b", group="tissue 1024", path=OS2, y=100, x=1100, edge_px=1024, is_extra=True),
    Crop(name="dapi-a", group="fluorescence", path=NDPI, y=3400, x=1000),
    Crop(name="dapi-b", group="fluorescence", path=NDPI, y=3600, x=2600, is_extra=True),
    Crop(name="dapi-large", group="fluorescence", path=NDPI, y=3300, x=1200, edge_px=1024, is_extra=True),
    Crop(name="s2-colour", group=COLOUR, path=TRUE_COLOUR, y=274, x=274, edge_px=384),
    Crop(name="landsat-colour", group=COLOUR, path="satellite/RGB.byte.tif", y=170, x=200, edge_px=384),
    Crop(name="aerial", group=COLOUR, path="satellite/cogeo.tif", is_extra=True),
    Crop(name="s2-a", group=BANDS, path=S2),
    Crop(name="s2-b", group=BANDS, path=S2, y=586, x=586, is_extra=True),
    Crop(name="s2-c", group=BANDS, path=S2, x=586, is_extra=True),
    Crop(name="dem-a", group="heights, float32", path=DEM, y=2432, x=1920),
    Crop(name="dem-b", group="heights, float32", path=DEM, y=2944, x=1664, is_extra=True),
    Crop(name="cmu-small", group=SMALL, path=SVS, y=1100, x=900, edge_px=SMALL_PX),
    Crop(name="cmu-half-small", group=SMALL, path=SVS, y=1000, x=800, edge_px=SMALL_PX, is_half=True),
    Crop(name="os1-half-small", group=SMALL, path=OS1, y=38, x=38, edge_px=SMALL_PX, is_half=True),
    Crop(name="os2-half-small", group=SMALL, path=OS2, y=1100, x=1100, edge_px=SMALL_PX, is_half=True),
    Crop(name="camelyon-small", group=SMALL, path=OVERVIEW, y=80, x=140, edge_px=SMALL_PX),
    Crop(name="nuclei-small", group=SMALL, path=MANY, y=267, x=444, edge_px=SMALL_PX),
    Crop(name="s2-small", group=SMALL_SCENES, path=TRUE_COLOUR, y=274, x=274, edge_px=SMALL_PX),
    Crop(name="kodim05-small", group=SMALL_PHOTOS, path="photos/kodim05.png", y=150, x=300, edge_px=SMALL_PX),
    *(
        Crop(name=name, group="Kodak", path=f"photos/{name}.png", edge_px=0, is_extra=name not in _FIRST_PHOTOS)
        for name in (f"kodim{number:02}" for number in range(1, 17))
    ),
)  # fmt: skip


def data_folder() -> Path | None:
    """Return the folder of real images; None where it is not there."""
    data = Path(os.environ.get("TILESTREAM_DATA") or REPO.parent / "shared" / "data")
    return data if (data / "SHA256SUMS").is_file() else None


def read_crop(crop: Crop, data: Path) -> PanelPicture:
    """Return a crop with its pixels.

    Parameters
    ----------
    crop : Crop
        One of `CROPS`.
    data : Path
        Folder of real images.

    Returns
    -------
    PanelPicture
        All of the image where the edge is 0.
    """
    pyramid = ts.open_pyramid(str(data / crop.path))
    shape = pyramid.levels[0].shape
    height, width = (crop.edge_px * (1 + crop.is_half) or size for size in shape.yx)
    pixels = pyramid.read(ts.Box(level=0, y=crop.y, x=crop.x, height=height, width=width))
    if crop.path == S2:
        pixels = pixels[S2_BANDS]
    pixels = np.ascontiguousarray(pixels)
    if crop.is_half:
        [pixels] = mip(pixels, levels=1, threads=1)
    stains = H_AND_DAB if crop.path == OS2 else H_AND_E if crop.group in _STAINED else None
    return PanelPicture(name=crop.name, group=crop.group, pixels=pixels, stains=stains)


def pictures(*, is_full: bool = False) -> list[PanelPicture]:
    """Return the images of the panel, or of the full one; none where real images are not there."""
    data = data_folder()
    return [] if data is None else [read_crop(crop, data) for crop in CROPS if is_full or not crop.is_extra]
