"""A downsampler that nobody has trained, for tests of what is done with one."""

from pathlib import Path

import numpy as np

from tilestream.codecs.downsample.record import DownsamplerFile, DownsamplerRecord, write_downsampler


def untrained(path: Path, *, seed: int = 0, **sizes: int) -> DownsamplerFile:
    """Write and return one of random weights, that changes most pixels a little."""
    record = DownsamplerRecord(**{"levels": 2, "window_px": 6, "width": 8, "up_width": 8, **sizes})
    generator = np.random.default_rng(seed)
    parameters = {
        name: generator.normal(0, 0.5 / np.sqrt(np.prod(shape[1:])), shape).astype(np.float32)
        for name, shape in record.shapes.items()
    }
    for step in range(record.levels):
        parameters[f"down.{step}.2.weight"] *= 0.1
        parameters[f"down.{step}.2.bias"] *= 0  # means stay about where they are, over any number of levels
    return write_downsampler(path, record, parameters)
