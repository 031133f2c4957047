"""A field that keeps the levels it was fitted to as they are: what tests of tiles and stores compare to the bit."""

import zlib

import numpy as np

from tilestream.codecs.container import pack, unpack
from tilestream.codecs.fields.field import FitReport
from tilestream.codecs.fields.picture import Picture
from tilestream.types import Shape

NAME = "exact"
PATH = "tests.codecs.exactfield:ExactField"


class ExactField:
    """No network at all."""

    name = NAME
    unpacked = 0
    """How often any was made of bytes."""
    decoded_px = 0
    """Pixels that all of them have given."""
    backends = ()
    """Where they were asked to decode."""

    def __init__(self, picture=None, levels=()):
        self.picture, self._levels = picture, levels

    @property
    def sizes(self):
        return {"table": sum(level.size for level in self._levels)}

    def fit(self, source, *, steps=None, target_psnr=None, seconds=None, level_weights=None):
        self.picture, self._levels = source.picture, source.pixels
        return FitReport(steps=steps, seconds=0.0, psnr=(np.inf,) * len(source.pixels))

    def decode(self, box=None, *, level=None, out=None, backend=None, threads=None):
        level = box.level if level is None and box is not None else level or 0
        box = self.picture.box_at(level) if box is None else box
        y, x = box.slices_yx
        found = self._levels[round(level)][:, y, x]
        type(self).decoded_px += found[0].size
        type(self).backends = (*self.backends, (backend, threads))
        if out is None:
            return found.copy()
        out[...] = found
        return out

    def quantize(self, bits=None):
        return self

    def to_bytes(self):
        is_of = self.picture
        header = {"s": list(is_of.shape.yx), "c": is_of.channels, "d": is_of.dtype, "r": [is_of.low, is_of.high]}
        return pack(NAME, version=1, header=header, sections=[zlib.compress(one.tobytes()) for one in self._levels])

    @classmethod
    def of_quality(cls, quality, picture):
        return cls()

    @classmethod
    def from_bytes(cls, data):
        packed = unpack(data, kinds={NAME: 1})
        cls.unpacked += 1
        (y, x), header = packed.header["s"], packed.header
        low, high = map(tuple, header["r"])
        shape, count = Shape(y=y, x=x), len(packed.sections)
        picture = Picture(shape=shape, channels=header["c"], dtype=header["d"], low=low, high=high, levels=count)
        levels = []
        for number, section in enumerate(packed.sections):
            pixels = np.frombuffer(zlib.decompress(section), header["d"])
            levels.append(pixels.reshape(header["c"], *picture.shape_at(number).yx))
        return cls(picture, tuple(levels))
