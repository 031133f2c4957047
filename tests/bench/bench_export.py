"""Export of a slide to COG and OME-TIFF against the programs that users write these with now, all on the same cores."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
import tifffile
from rio_cogeo.cogeo import cog_translate
from rio_cogeo.profiles import cog_profiles

from tests.bench.bench_supply import CORES
from tests.bench.converters import has_vips, run_vips
from tests.bench.table import at_least, make_row, rates
from tilestream.pipelines.export_form import ExportOptions
from tilestream.pipelines.export_image import export_pyramid
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.testing.slide import write_slide
from tilestream.types import Shape

EDGE_PX = 6144
TILE_PX = 512
GDAL_BAR, RIO_BAR, TIFFFILE_BAR, VIPS_BAR, JPEG_BAR, COPY_BAR = 1.0, 1.0, 1.5, 1.0, 2.0, 1.5


def ours(slide: Path, out: Path, *, to: Any, codec: str) -> None:
    """`tilestream export`, opening included."""
    export_pyramid(open_pyramid(slide, cache_bytes=0), out, ExportOptions(to=to, codec=codec, threads=CORES))


def gdal_cog(slide: Path, out: Path, *, codec: str, **options: str) -> None:
    """GDAL's COG driver with its own tile size, and levels by averaging."""
    choices = {"COMPRESS": codec, "NUM_THREADS": str(CORES), "OVERVIEW_RESAMPLING": "AVERAGE", **options}
    rasterio.shutil.copy(str(slide), str(out), driver="COG", OVERVIEWS="IGNORE_EXISTING", **choices)


def rio_cog(slide: Path, out: Path) -> None:
    """`rio cogeo create --cog-profile deflate`, with the predictor that makes files as small as ours."""
    profile = {**cog_profiles.get("deflate"), "predictor": 2}
    options = {"GDAL_NUM_THREADS": str(CORES)}
    cog_translate(str(slide), str(out), profile, overview_resampling="average", config=options, quiet=True)


def plain_tifffile(slide: Path, out: Path) -> None:
    """An OME-TIFF as the documentation of tifffile writes one: whole levels in memory, threads for tiles."""
    levels = [tifffile.imread(slide, level=0)]
    while max(levels[-1].shape[:2]) > TILE_PX:
        whole = levels[-1][: levels[-1].shape[0] // 2 * 2, : levels[-1].shape[1] // 2 * 2]
        four = whole.reshape(whole.shape[0] // 2, 2, whole.shape[1] // 2, 2, 3)
        levels.append(four.mean(axis=(1, 3), dtype=np.float32).round().astype(np.uint8))
    with tifffile.TiffWriter(out, ome=True) as file:
        options = {"tile": (TILE_PX, TILE_PX), "compression": "zlib", "predictor": True, "photometric": "rgb"}
        file.write(levels[0], subifds=len(levels) - 1, maxworkers=CORES, metadata={"axes": "YXS"}, **options)
        for level in levels[1:]:
            file.write(level, subfiletype=1, maxworkers=CORES, **options)


def vips_tiff(slide: Path, out: Path, *, codec: str) -> None:
    """`vips tiffsave`: tiled, with levels in SubIFDs."""
    predictor = "none" if codec == "jpeg" else "horizontal"
    options = (
        f"tile,pyramid,subifd,tile-width={TILE_PX},tile-height={TILE_PX},compression={codec},predictor={predictor},Q=90"
    )
    run_vips(slide, f"{out}[{options}]")


def _rate(work: Callable[[Path], None], folder: Path, sizes: list[int]) -> Callable[[], float]:
    def run() -> float:
        out = folder / "out.tif"
        work(out)
        sizes[:] = [out.stat().st_size]
        out.unlink()
        return EDGE_PX**2 / 1e6

    return run


def export_rows(slide: Path, folder: Path, *, rounds: int = 3, share: float = 1.0) -> list[dict[str, Any]]:
    """Return our rates and those of others, with bars at a share of what is asked for."""
    pairs: list[tuple[str, Any, str, Any, float]] = [
        ("COG, deflate", partial(ours, to="cog", codec="deflate"), "GDAL COG driver",
         partial(gdal_cog, codec="DEFLATE", PREDICTOR="2"), GDAL_BAR),
        ("COG, deflate", partial(ours, to="cog", codec="deflate"), "rio cogeo", rio_cog, RIO_BAR),
        ("COG, JPEG 90", partial(ours, to="cog", codec="jpeg"), "GDAL COG driver",
         partial(gdal_cog, codec="JPEG", QUALITY="90"), JPEG_BAR),
        ("OME-TIFF, tiles copied", partial(ours, to="ome-tiff", codec="copy"), "vips tiffsave, JPEG 90",
         partial(vips_tiff, codec="jpeg"), COPY_BAR),
        ("OME-TIFF, deflate", partial(ours, to="ome-tiff", codec="deflate"), "tifffile", plain_tifffile, TIFFFILE_BAR),
        ("OME-TIFF, deflate", partial(ours, to="ome-tiff", codec="deflate"), "vips tiffsave",
         partial(vips_tiff, codec="deflate"), VIPS_BAR),
    ]  # fmt: skip
    if not has_vips():
        pairs = [pair for pair in pairs if "vips" not in pair[2]]
    found = []
    for name, own, other, rival, bar in pairs:
        sizes: tuple[list[int], list[int]] = ([], [])
        works = [_rate(partial(work, slide), folder, size) for work, size in zip((own, rival), sizes, strict=True)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # slides have no place on Earth
            mine, theirs = rates(works, rounds=rounds)
        note = f"{EDGE_PX}² JPEG slide, {CORES} cores, all levels; {sizes[0][0] / 1e6:.1f} MB here, "
        note += f"{sizes[1][0] / 1e6:.1f} MB there"
        row = make_row(f"export to {name}", mine, "Mpx/s", rival=(other, theirs), bar=at_least(share * bar), note=note)
        found.append(row)
    return found


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark."""
    with TemporaryDirectory() as folder:
        slide = write_slide(Path(folder) / "slide.svs", Shape(y=EDGE_PX, x=EDGE_PX), tile_px=256)
        return export_rows(slide, Path(folder))
