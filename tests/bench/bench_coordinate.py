"""Networks of coordinates beside the hash field at equal bytes and equal time, and JPEG; decoding beside torch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from tests.bench.bench_field import CROP, jpeg_at
from tests.bench.rd_pictures import CROPS, data_folder, read_crop
from tests.bench.table import at_least, make_row, rates
from tilestream.codecs.fields.coordinatefield import CoordinateField
from tilestream.codecs.fields.coordinatesettings import sizes_of_bits
from tilestream.codecs.fields.fourierfield import FourierField
from tilestream.codecs.fields.hashfield import HashField
from tilestream.codecs.fields.modulatedfield import ModulatedField
from tilestream.codecs.fields.picture import Levels, Picture
from tilestream.codecs.fields.sirenfield import SirenField

EDGE_PX = 128
SECONDS = (3.0, 10.0)
"""That every fit is given, on one thread."""
HASH_QUALITY = 20.0
DECODE_BAR = 1.5
"""Times plain torch."""
INT8_BAR = 0.3
"""dB that int8 may cost."""


RIVALS: dict[str, tuple[type[CoordinateField], dict[str, Any]]] = {
    "SIREN": (SirenField, {}),
    "modulated SIREN (COIN++)": (ModulatedField, {}),
    "Fourier, Mip-NeRF's encoding": (FourierField, {}),
    "Fourier, NeRF's encoding": (FourierField, {"encoding": "positional"}),
}


def of_bits(name: str, bits: float, picture: Picture) -> CoordinateField:
    """Return a field of `RIVALS` that takes about so many bits in a file, not fitted yet."""
    cls, more = RIVALS[name]
    plain = cls(**more)
    hidden, layers = sizes_of_bits(bits, plain.encoding(picture), picture.channels, latent=plain.settings.latent)
    return cls(hidden=hidden, layers=layers, **more)


def compared(pixels: Any, seconds: float) -> list[dict[str, Any]]:
    """Return the hash field after some seconds, and how far networks of its bytes are above it after as many."""
    levels = Levels.of(pixels, levels=3)
    area = pixels[0].size
    HashField.of_quality(HASH_QUALITY, levels.picture).fit(levels, steps=1)  # what is loaded and compiled once
    hashed = HashField.of_quality(HASH_QUALITY, levels.picture)
    report = hashed.fit(levels, seconds=seconds)
    small = hashed.quantize()
    best = [levels.psnr(level, small.decode(level=level)) for level in range(3)]
    bpp = 8 * len(small.to_bytes()) / area
    found = [
        make_row(
            f"hash field, {seconds:g} s of a fit on one thread",
            best[0],
            "dB",
            note=f"{bpp:.2f} bpp; levels {_told(best)} dB; {report.steps} steps; {_jpeg(pixels, bpp)}; "
            f"{EDGE_PX}² px of {CROP}, three levels",
        )
    ]
    for name in RIVALS:
        of_bits(name, bpp * area, levels.picture).fit(levels, steps=1)
        field = of_bits(name, bpp * area, levels.picture)
        report = field.fit(levels, seconds=seconds)
        stored = field.quantize()
        dbs = [levels.psnr(level, stored.decode(level=level)) for level in range(3)]
        rate = 8 * len(stored.to_bytes()) / area
        settings = field.settings
        found.append(
            make_row(
                f"{name}, PSNR over the hash field of as many bytes, {seconds:g} s",
                dbs[0] - best[0],
                "dB",
                note=f"{rate:.2f} bpp, {settings.layers} × {settings.hidden}; levels {_told(dbs)} dB; {report.steps} "
                f"steps; {_jpeg(pixels, rate)}",
            )
        )
    return found


def _told(dbs: list[float]) -> str:
    return ", ".join(f"{db:.2f}" for db in dbs)


def _jpeg(pixels: Any, bpp: float) -> str:
    found = jpeg_at("jpeg420", pixels, bpp)
    return "JPEG 4:2:0 has no such rate" if math.isnan(found) else f"JPEG 4:2:0 {found:.2f} dB at that rate"


def int8_rows(pixels: Any, *, seconds: float = 2.0, bar: float | None = None) -> list[dict[str, Any]]:
    """Return what int8 costs each kind of network."""
    levels, found = Levels.of(pixels, levels=3), []
    for field in (SirenField(), ModulatedField(), FourierField()):
        field.fit(levels, seconds=seconds)
        lost = levels.psnr(0, field.decode()) - levels.psnr(0, field.quantize().decode())
        found.append(
            make_row(
                f"int8 rows of a field `{field.name}`, 3 × 64, PSNR lost",
                lost,
                "dB",
                bar=None if bar is None else (-1.0, bar),
                note=f"{levels.psnr(0, field.decode()):.2f} dB before; the last fifth of the fit rounds",
            )
        )
    return found


def decode_row(
    field: CoordinateField, *, edge_px: int = 256, rounds: int = 3, bar: float | None = None
) -> dict[str, Any]:
    """Return our rate of decoding a picture on one thread beside plain torch."""
    field.fit(np.random.default_rng(1).integers(0, 256, (3, edge_px, edge_px), np.uint8), steps=1)
    mpx = edge_px**2 / 1e6

    def decoding(backend: str) -> float:
        field.decode(backend=backend, threads=1)
        return mpx

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        contestants = [lambda backend=backend: decoding(backend) for backend in ("cpu", "torch")]
        for contestant in contestants:
            contestant()
        ours, plain = rates(contestants, rounds=rounds)
    finally:
        torch.set_num_threads(before)
    settings = field.settings
    return make_row(
        f"decoding of a field `{field.name}`, {settings.layers} × {settings.hidden}, 1 thread",
        ours,
        "Mpx/s",
        rival=("plain torch, in pieces of 16384", plain),
        bar=None if bar is None else at_least(bar),
        note=f"{edge_px}² px to 8-bit RGB",
    )


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark; those of tissue where real images are."""
    found = [decode_row(field, bar=DECODE_BAR) for field in (SirenField(), FourierField())]
    data = data_folder()
    if data is None:
        return found
    whole = read_crop(next(crop for crop in CROPS if crop.name == CROP), data).pixels
    pixels = np.ascontiguousarray(whole[:, :EDGE_PX, :EDGE_PX])
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for seconds in SECONDS:
            found += compared(pixels, seconds)
        return found + int8_rows(pixels, bar=INT8_BAR)
    finally:
        torch.set_num_threads(before)
