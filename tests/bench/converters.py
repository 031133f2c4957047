"""What users turn slides into pyramids with now, each as its documentation tells, with our chunks and our codec.

All write levels 1 to 16 in chunks of 256 px, zstd level 1; a run ends when what it wrote is on the disk.
The writers of Zarr get the slide as a Dask array through tifffile, in blocks of one shard, which suits them best.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tifffile
import zarr

import tilestream as ts
from tilestream.cluster.client import open_client

CORES = len(os.sched_getaffinity(0))
CHUNK_PX = 256
SHARD_PX = 4096
LEVEL = 1
"""Of zstd, as in the profile `portable`."""
FACTORS = (2, 4, 8, 16)

Convert = Callable[[Path, Path], None]


def seconds(convert: Convert, slide: Path, out: Path) -> float:
    """Return how long a conversion takes until its output is on the disk; the output stays there."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()  # what others left to write
    start = time.perf_counter()
    convert(slide, out)
    os.sync()
    return time.perf_counter() - start


def portable(slide: Path, out: Path) -> None:
    """Ours, decoded and packed anew."""
    _build(slide, out, "portable")


def archive(slide: Path, out: Path) -> None:
    """Ours, JPEG tiles copied undecoded."""
    _build(slide, out, "archive")


def _build(slide: Path, out: Path, profile: Any) -> None:
    with open_client(f"threads:{CORES}") as client:
        ts.build_pyramid(slide, out / "x.zarr", profile=profile, client=client)


def copied(source: Path, out: Path) -> None:
    """`cp` of a folder."""
    subprocess.run(["cp", "-r", str(source), str(out)], check=True)


def ome_zarr(slide: Path, out: Path) -> None:
    """ome-zarr-py's `write_image`; means as ours are, which are faster than its default."""
    from ome_zarr.scale import Methods
    from ome_zarr.writer import write_image
    from zarr.codecs import ZstdCodec

    options = {
        "chunks": (3, CHUNK_PX, CHUNK_PX),
        "shards": (3, SHARD_PX, SHARD_PX),
        "compressors": [ZstdCodec(level=LEVEL)],
    }
    with _dask(slide) as pixels:
        write_image(
            pixels,
            str(out),
            axes=["c", "y", "x"],
            scale_factors=list(FACTORS),
            method=Methods.LOCAL_MEAN,
            storage_options=options,
        )


def ngff_zarr(slide: Path, out: Path) -> None:
    """ngff-zarr's `to_multiscales` and `to_ngff_zarr`; means as ours are, which are faster than its default."""
    from ngff_zarr import Methods, to_multiscales, to_ngff_image, to_ngff_zarr
    from zarr.codecs import ZstdCodec

    chunks_per_shard = {"c": 1, "y": SHARD_PX // CHUNK_PX, "x": SHARD_PX // CHUNK_PX}
    with _dask(slide) as pixels:
        image = to_ngff_image(pixels, dims=("c", "y", "x"))
        levels = to_multiscales(
            image, scale_factors=list(FACTORS), chunks=CHUNK_PX, method=Methods.ITKWASM_BIN_SHRINK, cache=False
        )
        to_ngff_zarr(
            str(out), levels, version="0.5", chunks_per_shard=chunks_per_shard, compressors=[ZstdCodec(level=LEVEL)]
        )


def vips_tiff(slide: Path, out: Path) -> None:
    """`vips`: a tiled, pyramidal TIFF, zstd."""
    out.mkdir()
    options = f"tile,pyramid,tile-width={CHUNK_PX},tile-height={CHUNK_PX},compression=zstd,level={LEVEL},bigtiff"
    run_vips(slide, f"{out / 'x.tif'}[{options}]")


def vips_dz(slide: Path, out: Path) -> None:
    """`vips`: Deep Zoom with its own defaults, JPEG tiles of 254 px in folders."""
    out.mkdir()
    run_vips(slide, str(out / "x.dz"))


def has_vips() -> bool:
    """Return whether the command `vips` is there (Debian: libvips-tools); the wheel of libvips has no zstd."""
    return shutil.which("vips") is not None


def run_vips(slide: Path, out: str) -> None:
    subprocess.run(["vips", "tiffload", str(slide), out, "--access", "sequential"], check=True)


@contextmanager
def _dask(slide: Path) -> Iterator[Any]:
    """Give level 0 as a Dask array `(c, y, x)`."""
    import dask.array as da

    with tifffile.TiffFile(slide) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what tifffile and zarr say of one another's versions
        store = file.series[0].levels[0].aszarr()
        try:
            array: Any = zarr.open(store, mode="r")
            yield da.from_array(array, chunks=(SHARD_PX, SHARD_PX, 3), name=False).transpose(2, 0, 1)
        finally:
            store.close()
