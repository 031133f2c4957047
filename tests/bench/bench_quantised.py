"""Quantised hash fields: what fewer bits lose, what entropy coding saves, and learned probing at equal bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numcodecs import Zstd

from tests.bench.bench_field import CROP
from tests.bench.rd_pictures import CROPS, data_folder, read_crop
from tests.bench.table import make_row
from tilestream.codecs.entropy import encode_codes
from tilestream.codecs.fields.hashfield import HashField
from tilestream.codecs.fields.picture import Levels
from tilestream.codecs.fields.probing import Probing
from tilestream.codecs.quality import psnr

INT8_BAR = 0.15
"""dB that a table of 8 bits may lose."""
FOUR_BITS_BAR = 1.5
"""dB that a table of 4 bits may lose whose fit knew of them."""
GAIN = -9.0
"""Least loss: a fit that knows of its bits may even gain."""
SHORTER_BAR = 0.9
"""Times the bytes of zstd at its best."""
STEPS = 1000
EDGE_PX = 256


def hash_field(log2_table: int, **options: Any) -> HashField:
    """Return a field with hashed levels, of which bits and choices matter."""
    return HashField(levels=8, log2_table=log2_table, layers=2, batch=1 << 13, **options)


def fitted(pixels: Any, steps: int, **options: Any) -> HashField:
    """Return a field fitted to level 0."""
    field = hash_field(**options)
    field.fit(Levels.of(pixels, levels=1), steps=steps)
    return field


def score(field: HashField, pixels: Any) -> tuple[float, float]:
    """Return bits a pixel of a file, and dB of what it decodes to."""
    data = field.to_bytes()
    return 8 * len(data) / pixels[0].size, psnr(HashField.from_bytes(data).decode(), pixels)


def loss_rows(pixels: Any, *, steps: int = STEPS, log2_table: int = 12, slack: float = 1.0) -> list[dict[str, Any]]:
    """Return what tables of 8 and of 4 bits lose, in dB."""
    plain = fitted(pixels, steps, log2_table=log2_table)
    known = fitted(pixels, steps, log2_table=log2_table, bits=4)
    full = psnr(plain.decode(), pixels)
    eight, four, four_known = (score(one, pixels) for one in (plain.quantize(8), plain.quantize(4), known.quantize(4)))
    of_four = f"{four_known[1]:.2f} dB at {four_known[0]:.2f} bpp; not known of: {full - four[1]:.2f} dB"
    told = f"float32 {full:.2f} dB; {steps} steps, {pixels.shape[1]}² px, T 2^{log2_table}"
    return [
        make_row("dB that a hash field loses in 8 bits", full - eight[1], "dB", bar=(GAIN, INT8_BAR / slack),
                 note=f"{eight[1]:.2f} dB at {eight[0]:.2f} bpp; {told}"),
        make_row("dB that a hash field loses in 4 bits that its fit knew of", full - four_known[1], "dB",
                 bar=(GAIN, FOUR_BITS_BAR / slack),
                 note=f"{of_four}; {told}"),
    ]  # fmt: skip


def bytes_rows(pixels: Any, *, steps: int = STEPS, slack: float = 1.0) -> list[dict[str, Any]]:
    """Return the bytes of the table of a field of quality 50, beside those of zstd and of a model a level."""
    levels = Levels.of(pixels, levels=1)
    field = HashField.of_quality(50, levels.picture)
    field.fit(levels, steps=steps)
    field = field.quantize()
    assert field.parts is not None
    assert field.parts.coded is not None
    coded, size = field.parts.coded[0], len(field.to_bytes())
    alone = len(encode_codes(coded.codes, coded.starts))
    rest = size - len(coded.to_bytes(_lattices(field)))
    zstd = len(Zstd(level=22).encode(coded.codes.astype(np.int8).tobytes()))
    return [
        make_row("bytes of the table of a hash field of quality 50", size - rest, "B", rival=("zstd 22", zstd),
                 bar=(0.0, SHORTER_BAR / slack),
                 note=f"with a model a level and no neighbours {alone:,} B; network and header {rest:,} B"),
    ]  # fmt: skip


def _lattices(field: HashField) -> Any:
    from tilestream.codecs.fields.hashparts import feature_lattices

    assert field.parts is not None
    return feature_lattices(field.parts.stored_grid)


def probing_row(pixels: Any, *, steps: int = STEPS) -> dict[str, Any]:
    """Return how far a probed field is above plain ones of as many bytes, in 6 bits; no bar is set."""
    plain = [score(fitted(pixels, steps, log2_table=size, bits=6).quantize(), pixels) for size in (10, 11, 12)]
    options = {"log2_table": 10, "bits": 6, "probing": Probing(log2_probes=3, log2_choices=11)}
    bpp, found = score(fitted(pixels, steps, **options).quantize(), pixels)
    at_rate = float(np.interp(np.log(bpp), np.log([rate for rate, _ in plain]), [one for _, one in plain]))
    told = ", ".join(f"{one:.2f} dB at {rate:.2f} bpp" for rate, one in plain)
    return make_row("probed hash field, PSNR over plain ones of as many bytes", found - at_rate, "dB",
                    note=f"{found:.2f} dB at {bpp:.2f} bpp; plain with T 2^10 to 2^12: {told}")  # fmt: skip


def rows() -> list[dict[str, Any]]:
    """Return the rows of this benchmark; none where real images are not."""
    data = data_folder()
    if data is None:
        return []
    pixels = read_crop(next(crop for crop in CROPS if crop.name == CROP), data).pixels
    pixels = np.ascontiguousarray(pixels[:, :EDGE_PX, :EDGE_PX])
    return [*loss_rows(pixels), *bytes_rows(pixels), probing_row(pixels)]
