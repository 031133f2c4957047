"""Grids to samples on the host, computed by kernels on the CPU or a device, or by the reference in torch."""

from __future__ import annotations

from collections.abc import Sequence

from tilestream.codecs.pyramid.latents import Grid
from tilestream.codecs.pyramid.nets import PIXEL_MOST, PyramidNets
from tilestream.errors import ConfigError
from tilestream.kernels.language import cuda, require_device
from tilestream.kernels.pyramid_synthesis import pyramid_synthesis
from tilestream.types import Array, Box

BACKENDS = ("cpu", "cuda", "torch")


def write_samples(
    grids: Sequence[Grid],
    nets: PyramidNets,
    *,
    box: Box,
    samples: Array,
    out: Array,
    backend: str | None = None,
) -> None:
    """Write samples of a box of a level; they are the same bits on every backend.

    Parameters
    ----------
    grids : sequence of ndarray of int16
        Finest first; of those finer than the level nothing is read.
    nets : PyramidNets
        For as many grids.
    box : Box
        Inside of its level, which the networks have a synthesis of.
    samples : ndarray
        `(c, 16321)`, as of `sample_table`.
    out : ndarray of the type of `samples`
        `(c, y, x)` of the box.
    backend : {"cpu", "cuda", "torch"}, optional
        By default the CPU, on this thread alone. Torch computes the whole level, on the CPU.

    Raises
    ------
    ConfigError
        When there is no such backend, or none of it can be used.
    """
    if backend is not None and backend not in BACKENDS:
        raise ConfigError.of("`backend` of a tile", got=backend, expected=", ".join(BACKENDS), do="Leave it out.")
    level = box.level
    if backend == "torch":
        from tilestream.codecs.pyramid.torchdecode import to_tensors, torch_synthesis

        pixels = torch_synthesis(to_tensors(grids), nets, level).numpy()[:, *box.slices_yx].clip(0, PIXEL_MOST)
        for channel, table, found in zip(out, samples, pixels, strict=True):
            channel[...] = table[found]
    elif backend == "cuda":
        require_device()
        unused, needed = grids[:level], [cuda.to_device(grid) for grid in grids[level:]]
        found = pyramid_synthesis([*unused, *needed], nets, level, box=box, samples=cuda.to_device(samples))
        out[...] = found.copy_to_host()
    else:
        pyramid_synthesis(grids, nets, level, box=box, samples=samples, out=out, threads=1)
