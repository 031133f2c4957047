"""A panel: every codec at every setting on every image; each result is a small file, so it goes on where it stopped."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tilestream.codecs.conventional import ConventionalCodec
from tilestream.codecs.durable import write_durable
from tilestream.codecs.perceptual import ssimulacra2
from tilestream.codecs.quality import od_psnr, psnr
from tilestream.codecs.rd import Curve, Point
from tilestream.codecs.structure import MS_SSIM_PX, WINDOW_PX, ms_ssim, ssim
from tilestream.codecs.tilecodec import TileCodec
from tilestream.errors import ConfigError
from tilestream.kernels.stain import Matrix
from tilestream.types import Array

Run = Callable[[Array, float], tuple[bytes, Array]]
"""From pixels `(c, y, x)` and a setting to a file and what is decoded from it."""
_DIGEST_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class PanelPicture:
    """One image of a panel."""

    name: str
    """Unlike that of any other."""
    group: str
    """What its curves are averaged with."""
    pixels: Array
    """`(c, y, x)`, all of them valid."""
    stains: Matrix | None = None
    """Rows of red, green, blue densities of the stains of tissue in transmitted light; None for all else."""

    @cached_property
    def digest(self) -> str:
        """Return 16 hex digits of BLAKE2b of its pixels."""
        found = hashlib.blake2b(f"{self.pixels.shape} {self.pixels.dtype}".encode(), digest_size=_DIGEST_BYTES)
        found.update(np.ascontiguousarray(self.pixels).data)
        return found.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One codec of a panel."""

    name: str
    """Unlike that of any other; a part of file names."""
    settings: tuple[float, ...]
    """Of its knob."""
    run: Run
    """Encodes and decodes; the bytes must be all that decoding needs."""
    holds: Callable[[Array], bool] = lambda pixels: True
    """Whether it can hold an image; others are left out."""
    version: str = ""
    """What else its results depend on: another version is measured again."""
    given: Mapping[float, str] = field(default_factory=dict)
    """What else the result at a setting depends on, for some or all settings."""

    @classmethod
    def of(cls, codec: ConventionalCodec) -> Contestant:
        """Return a conventional codec as a contestant.

        Parameters
        ----------
        codec : ConventionalCodec
            One of `CONVENTIONAL`.

        Returns
        -------
        Contestant
            At all its settings; its version is that of imagecodecs.
        """
        from imagecodecs import __version__ as version

        def run(pixels: Array, setting: float) -> tuple[bytes, Array]:
            data = codec.encode(pixels, setting)
            return data, codec.decode(data)

        return cls(
            name=codec.name, settings=codec.settings, run=run, holds=codec.holds, version=f"imagecodecs {version}"
        )

    @classmethod
    def of_tiles(cls, name: str, codecs: Mapping[float, TileCodec], *, version: str = "") -> Contestant:
        """Return codecs of tiles as one contestant: bytes are those of a chunk of a store, with their container.

        Parameters
        ----------
        name : str
            Of the contestant.
        codecs : Mapping
            From the value of its knob to the codec; level 0 is what counts.
        version : str
            Of the code; what each codec was given (`TileCodec.settings`) counts besides, setting by setting, so that
            one more setting leaves the results of the others as they are.

        Returns
        -------
        Contestant
            With a setting for each codec.
        """

        def run(pixels: Array, setting: float) -> tuple[bytes, Array]:
            data = codecs[setting].encode(pixels)
            return data, codecs[setting].decode(data)

        given = {setting: _digest(json.dumps(codec.settings, sort_keys=True)) for setting, codec in codecs.items()}
        return cls(name=name, settings=tuple(codecs), run=run, version=version, given=given)


def scores_of(original: Array, decoded: Array, *, stains: Matrix | None = None) -> dict[str, float]:
    """Return every measure that suits an image.

    Parameters
    ----------
    original, decoded : ndarray
        `(c, y, x)` of one shape and type, finite.
    stains : sequence, optional
        Densities of the stains of tissue, where they are red, green and blue of transmitted light.

    Returns
    -------
    dict
        `psnr`; `ms_ssim`, or `ssim` where the image is too small for that; `od_psnr` of the
        stains; `ssimulacra2` of 8-bit colours where the package is installed. Samples of more than 8 bits count from
        each channel's least to its greatest original.
    """
    found, high = {}, 255.0
    first, second = original, decoded
    if original.dtype != np.uint8:
        low, top = (end(original.reshape(len(original), -1), axis=1)[:, None, None] for end in (np.min, np.max))
        span = top.astype(np.float64) - low
        span[span == 0] = 1.0
        first, second, high = (original - low.astype(np.float64)) / span, (decoded - low.astype(np.float64)) / span, 1.0
    found["psnr"] = psnr(first, second, high=high)
    edge = min(original.shape[1:])
    if edge >= MS_SSIM_PX:
        found["ms_ssim"] = ms_ssim(first, second, high=high)
    elif edge >= WINDOW_PX:
        found["ssim"] = ssim(first, second, high=high)
    if stains is not None:
        found["od_psnr"] = od_psnr(original, decoded, stains=stains)
    if original.dtype == np.uint8 and len(original) == 3 and edge >= 8 and find_spec("ssimulacra2"):
        found["ssimulacra2"] = ssimulacra2(original, decoded)
    return found


def run_panel(
    pictures: Sequence[PanelPicture],
    contestants: Sequence[Contestant],
    folder: Path,
    *,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[Curve]:
    """Return a curve for each codec on each image that it holds.

    Parameters
    ----------
    pictures : sequence of PanelPicture
        The images.
    contestants : sequence of Contestant
        The codecs.
    folder : Path
        `<picture>/<codec>/<setting>.json`, one for each result; what is there of the same pixels, version and measures
        is taken as it stands.
    threads : int
        Images at a time; with more than one, `seconds` are those of a busy machine.
    progress : callable, optional
        Told after each result how many of how many are there.

    Returns
    -------
    list of Curve
        In the order of pictures, then of contestants.

    Raises
    ------
    ConfigError
        When two images or codecs have one name.
    OutputError
        When a result cannot be written.
    """
    for what, names in (("pictures", [p.name for p in pictures]), ("codecs", [c.name for c in contestants])):
        if len(set(names)) < len(names) or any(not _is_name(name) for name in names):
            raise ConfigError.of(
                f"names of the {what} of a panel",
                got=sorted(names),
                expected="one name each, of letters, digits, `-`, `_` and `.`",
                do="Rename them.",
            )
    pairs = [(picture, one) for picture in pictures for one in contestants if one.holds(picture.pixels)]
    total, count = sum(len(one.settings) for _, one in pairs), itertools.count(1)

    def curve(pair: tuple[PanelPicture, Contestant]) -> Curve:
        picture, one = pair
        points = []
        for setting in one.settings:
            points.append(_point(picture, one, setting, folder / picture.name / one.name / f"{setting:g}.json"))
            done = next(count)  # which is one step, whatever threads do
            if progress:
                progress(done, total)
        return Curve(codec=one.name, picture=picture.name, points=tuple(points))

    if threads == 1:
        return [curve(pair) for pair in pairs]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(curve, pairs))


def _point(picture: PanelPicture, one: Contestant, setting: float, path: Path) -> Point:
    """Return the result in a file, or measure it and write the file."""
    key = {
        "pixels": picture.digest,
        "version": f"{one.version} {one.given.get(setting, '')}".strip(),
        "stains": None if picture.stains is None else [list(map(float, row)) for row in picture.stains],
        "ssimulacra2": find_spec("ssimulacra2") is not None,
    }
    known = _known(path, key)
    if known is not None:
        return known
    start = time.perf_counter()
    data, decoded = one.run(picture.pixels, setting)
    seconds = time.perf_counter() - start
    found = Point(
        setting=setting,
        size_bytes=len(data),
        bpp=8 * len(data) / (picture.pixels.shape[1] * picture.pixels.shape[2]),
        scores=scores_of(picture.pixels, decoded, stains=picture.stains),
        seconds=round(seconds, 4),
    )
    stored = asdict(found) | {"scores": {name: _stored(value) for name, value in found.scores.items()}}
    write_durable(path, (json.dumps({"key": key, "point": stored}, indent=1) + "\n").encode())
    return found


def _known(path: Path, key: Mapping[str, Any]) -> Point | None:
    try:
        record = json.loads(path.read_bytes())
        if record["key"] != key:
            return None
        point = record["point"]
        return Point(**point | {"scores": {n: math.inf if v is None else v for n, v in point["scores"].items()}})
    except (OSError, ValueError, KeyError, TypeError):  # none, or of another time: measured again
        return None


def _stored(value: float) -> float | None:
    """Return a score as JSON holds it: nothing for equality, which has no number."""
    return None if value == math.inf else value


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()


def _is_name(name: str) -> bool:
    return bool(name) and all(letter.isalnum() or letter in "-_." for letter in name) and not name.startswith(".")
