"""The image of the demonstration: a real slide where one can be had, else one made by code."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tilestream.testing.scene import write_scene
from tilestream.testing.slide import write_slide
from tilestream.types import Shape

SLIDE_NAME = "CMU-1-Small-Region.svs"
SLIDE_URL = f"https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio/{SLIDE_NAME}"
SLIDE_SHA256 = "ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7"
TIMEOUT_S = (5, 60)
"""To connect, and between two packets."""
SYNTHETIC = Shape(y=4000, x=5000)
"""Size of the slide made by code: several super-tiles' worth of tiles in about ten seconds."""
SCENE_NAME = "S2A_29RKH_20200219_0_L2A"
SYNTHETIC_SCENE = Shape(y=1400, x=1800)
"""Size of the scene made by code."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The image and where it is from."""

    path: Path
    """File."""
    origin: str
    """One sentence for the user; says why a better choice was not to be had."""


def find_sample(
    slide: str | Path | None, out: Path, *, environ: Mapping[str, str] | None = None, download: bool = True
) -> Sample:
    """Return the image that the demonstration runs on.

    Parameters
    ----------
    slide : str or Path, optional
        What the user named; taken as it is.
    out : Path
        Folder of the outputs; a slide made by code goes to its folder `sample`.
    environ : Mapping, optional
        Environment variables; those of the process by default.
    download : bool
        Whether it may be downloaded.

    Returns
    -------
    Sample
        The named file; else OpenSlide's CC0 slide CMU-1-Small-Region (downloaded once, its checksum verified); else the
        same from `TILESTREAM_DATA` or `../shared/data`; else a slide made by code.
    """
    if slide:
        return Sample(path=Path(slide), origin="the file that you named")
    reason = "a download was not wanted"
    try:
        if download:
            return Sample(path=download_slide(), origin=f"OpenSlide's CC0 test slide, from {SLIDE_URL}")
    except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong checksum is a ValueError
        reason = f"it could not be downloaded ({_short(error)})"
    for path in _copies(environ, f"slides/{SLIDE_NAME}"):
        if path.is_file():
            return Sample(
                path=path, origin=f"OpenSlide's CC0 test slide from the folder of test images, since {reason}"
            )
    return Sample(
        path=make_slide(out),
        origin=f"a slide made by code, not a real one, since {reason} and there is no folder of test images",
    )


def download_slide(folder: Path | None = None) -> Path:
    """Return the slide in the user's cache, downloaded when it is not there yet.

    Parameters
    ----------
    folder : Path, optional
        Cache folder; the platform's by default.

    Returns
    -------
    Path
        The file, its SHA-256 verified.

    Raises
    ------
    OSError
        When the network or the disk fails.
    ValueError
        When what came is another file.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")  # it announces every download
    downloader: Any = pooch.HTTPDownloader(timeout=TIMEOUT_S)
    found = pooch.retrieve(
        SLIDE_URL,
        known_hash=f"sha256:{SLIDE_SHA256}",
        fname=SLIDE_NAME,
        path=folder or pooch.os_cache("tilestream"),
        downloader=downloader,
    )
    return Path(found)


def make_slide(out: Path) -> Path:
    """Return the slide made by code, written to `out` when it is not there yet.

    Parameters
    ----------
    out : Path
        Folder of the outputs.

    Returns
    -------
    Path
        The file; the same bytes each time.
    """
    path = out / "sample" / "synthetic.svs"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        write_slide(part, SYNTHETIC)
        part.replace(path)  # a run that is killed leaves no half slide under the name
    return path


def find_scene(out: Path, *, environ: Mapping[str, str] | None = None) -> Sample:
    """Return a satellite scene to look at, with the bands blue, green, red and nir.

    Parameters
    ----------
    out : Path
        Folder of the outputs; a scene made by code goes to its folder `sample`.
    environ : Mapping, optional
        Environment variables; those of the process by default.

    Returns
    -------
    Sample
        A Sentinel-2 scene from `TILESTREAM_DATA` or `../shared/data`; else one made by code.
    """
    for path in _copies(environ, f"satellite/{SCENE_NAME}"):
        if path.is_dir():
            return Sample(path=path, origin="a Sentinel-2 scene from the folder of test images")
    path = out / "sample" / "synthetic.tif"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_scene(path.with_suffix(".part"), SYNTHETIC_SCENE).replace(path)
    return Sample(path=path, origin="a scene made by code, not a real one: there is no folder of test images")


def _copies(environ: Mapping[str, str] | None, name: str) -> Iterator[Path]:
    for folder in ((os.environ if environ is None else environ).get("TILESTREAM_DATA"), "../shared/data"):
        if folder:
            yield Path(folder) / name


def _short(error: Exception) -> str:
    """Return the innermost reason: the outer ones of a failed connection are pages long."""
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__ or cause
    text = str(cause).strip() or type(cause).__name__
    return text.splitlines()[0][:120]
