"""Pyramids in the memory of the texture unit: a mipmapped array, written through surfaces, and how it is read.

A mipmapped array has levels of max(1, ⌊s/2^l⌋), and reads all of them at one pair of coordinates from 0 to 1. Levels of
just these sizes (any tile of 2^k px; pyramids that round down) are thus read at their true ratios s_l/s_0 by the
hardware itself. Others, such as those that round up, get an array that is large enough for each of them, filled up with
their edge; they are read with one fetch for each of the two levels, each at its own ratio. CUDA makes no mipmaps: the
levels come from `tilestream.kernels.mip`. Memory of a texture is in an order of its own, so each level is copied once.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels import texture_emulated
from tilestream.kernels.checks import need
from tilestream.kernels.language import SIMULATED, cuda, cuda_kernel
from tilestream.kernels.leveltable import named_levels
from tilestream.kernels.place import Array, Place, device_of, dtype_of, place
from tilestream.kernels.rows import flat_view
from tilestream.kernels.texture_source import surf2d_write

DTYPES = ("uint8", "uint16", "float16", "float32")
CHANNELS = (1, 2, 3, 4)
ACROSS, DOWN = 32, 8
"""Threads of a block of the copy."""
MAX_ANISOTROPY = 16
"""The most probes that hardware has."""
COLUMNS = 6
"""Of a level's row in `Texture.table`: ratio y, x; size y, x; allocated size y, x."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Texture:
    """A pyramid that the texture unit reads; free its memory with `close`, or drop it, once nothing reads it any more.

    The levels that it was made of may change or go away when the copy has run.
    """

    handle: int
    """What kernels are handed."""
    size_yx: tuple[int, int]
    """Of level 0, px."""
    allocated_yx: tuple[int, int]
    """Of level 0 in memory, px; larger where levels do not have the sizes of a mipmapped array."""
    table: npt.NDArray[np.float32]
    """`(levels, COLUMNS)`."""
    channels: int
    """In each level; three are stored as four."""
    planes: bool
    """Whether the levels had a channel axis."""
    scale: float
    """What a fetched value is multiplied by, since codes are fetched as 0 to 1."""
    device: int
    """Number of the CUDA device."""
    one_fetch: bool
    """Whether the levels have the sizes of a mipmapped array, so that the hardware blends two of them by itself."""
    own: tuple[Any, ...]
    """What has to live as long as this."""

    def close(self) -> None:
        """Free the memory now; nothing may be reading it any more. May be called twice."""
        for part in self.own:
            part.close()


@cuda_kernel(
    *[
        f"void({bits}[::1], int64, UniTuple(int64, 3), UniTuple(int64, 3), UniTuple(int64, 2), uint64, int32, int32)"
        for bits in ("uint8", "uint16", "uint32")
    ],
    cache=False,
)
def _fill_cuda(
    flat: Any, start: Any, steps: Any, shape: Any, allocated: Any, surface: Any, item_bytes: Any, lanes: Any
) -> None:
    """Copy one texel a thread, as bits; beyond the level lies its edge."""
    x, y = cuda.grid(2)
    channels, height, width = shape
    if y < allocated[0] and x < allocated[1]:
        k = start + min(y, height - 1) * steps[1] + min(x, width - 1) * steps[2]
        zero = np.uint32(0)
        a = np.uint32(flat[k])
        b = np.uint32(flat[k + steps[0]]) if channels > 1 else zero
        c = np.uint32(flat[k + 2 * steps[0]]) if channels > 2 else zero
        d = np.uint32(flat[k + 3 * steps[0]]) if channels > 3 else zero
        surf2d_write(surface, np.int32(x), np.int32(y), item_bytes, lanes, a, b, c, d)


def make_texture(levels: Sequence[Array], *, max_anisotropy: int = MAX_ANISOTROPY, stream: int = 0) -> Texture:
    """Return a texture with the pixels of a pyramid.

    Parameters
    ----------
    levels : sequence of array of uint8, uint16, float16 or float32
        `(c, y, x)` with one to four channels, or `(y, x)`, level 0 first, on a device, in any strides. Each must be no
        longer than half of the one before, rounded up; they are copied.
    max_anisotropy : int
        Most probes of an anisotropic footprint, 1 to 16.
    stream : int
        Handle of the CUDA stream to copy on; 0 is the default one.

    Returns
    -------
    Texture
        On the device of the levels. It may be read on the same stream.

    Raises
    ------
    ConfigError
        When the levels are not on a device, are not those of a pyramid, or are larger than a texture may be; when the
        package for textures is missing.
    """
    sizes = _check(levels, max_anisotropy)
    allocated = _allocated(sizes)
    here = place("make_texture", backend=None, stream=stream, threads=None, **named_levels(levels))
    if here.backend != "cuda":
        raise ConfigError.of(
            "`levels` of `make_texture`",
            got="arrays on the host",
            expected="arrays on a CUDA device",
            do="Move them there first; on the host use tilestream.kernels.sample.",
        )
    first = levels[0]
    halves = [_half(allocated, i) for i in range(len(sizes))]
    dtype = dtype_of(first)
    channels = int(first.shape[0]) if len(first.shape) == 3 else 1
    lanes = channels if channels != 3 else 4
    memory = _emulate if SIMULATED else _allocate
    handle, surfaces, own = memory(here.device, halves, lanes, dtype, max_anisotropy)
    for level, surface, room in zip(levels, surfaces, halves, strict=True):
        _fill(here, level, surface, room, lanes)
    ratios = [tuple(s / s0 for s, s0 in zip(size, sizes[0], strict=True)) for size in sizes]
    return Texture(
        handle=handle,
        size_yx=sizes[0],
        allocated_yx=allocated,
        table=np.array([(*r, *s, *h) for r, s, h in zip(ratios, sizes, halves, strict=True)], np.float32),
        channels=channels,
        planes=len(first.shape) == 3,
        scale=float(np.iinfo(dtype).max) if dtype.kind == "u" else 1.0,
        device=device_of(first),
        one_fetch=sizes == halves,
        own=own,
    )


def _check(levels: Sequence[Array], max_anisotropy: int) -> list[tuple[int, int]]:
    """Return the sizes of the levels."""
    if not isinstance(levels, (list, tuple)) or not levels:
        raise ConfigError.of(
            "`levels` of `make_texture`",
            got="none" if isinstance(levels, (list, tuple)) else type(levels).__name__,
            expected="a list of arrays, level 0 first",
            do="Wrap it: [level_0].",
        )
    first = levels[0]
    for i, level in enumerate(levels):
        wanted = DTYPES if i == 0 else (dtype_of(first).name,)
        need("make_texture", f"levels[{i}]", level, dtypes=wanted, ndim=(2, 3) if i == 0 else len(first.shape))
        if len(first.shape) == 3 and (level.shape[0] not in CHANNELS or level.shape[0] != first.shape[0]):
            raise ConfigError.of(
                f"`levels[{i}]` of `make_texture`",
                got=f"{level.shape[0]} channels",
                expected="1 to 4 channels, as many in each level",
                do="Make a texture for each four channels.",
            )
    if not 1 <= max_anisotropy <= MAX_ANISOTROPY:
        raise ConfigError.of(
            "`max_anisotropy` of `make_texture`", got=max_anisotropy, expected="1 to 16", do="1 is isotropic."
        )
    shapes = [tuple(map(int, level.shape)) for level in levels]
    return [(shape[-2], shape[-1]) for shape in shapes]


def _half(allocated: tuple[int, int], level: int) -> tuple[int, int]:
    return max(1, allocated[0] >> level), max(1, allocated[1] >> level)


def _allocated(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the size of the smallest mipmapped array that has room for each level."""
    edges = [
        max(size[axis] << level for level, size in enumerate(sizes) if level == 0 or size[axis] > 1) for axis in (0, 1)
    ]
    # levels of half the size, rounded up, need less than twice the edge
    too_large = any(edge >= 2 * first for edge, first in zip(edges, sizes[0], strict=True))
    if too_large or max(edges) >> (len(sizes) - 1) == 0:
        raise ConfigError.of(
            "`levels` of `make_texture`",
            got=f"sizes {', '.join(f'{height}×{width}' for height, width in sizes)}",
            expected="levels no longer than half of the one before, rounded up, and no more than there are halvings",
            do="Hand in what tilestream.kernels.mip returns.",
        )
    return edges[0], edges[1]


def _fill(here: Place, level: Array, surface: int, room: tuple[int, int], lanes: int) -> None:
    flat, start, steps = flat_view(level)
    bits = flat.view(f"uint{8 * dtype_of(level).itemsize}")
    shape = tuple(map(int, level.shape))
    shape, steps = (shape, steps) if len(shape) == 3 else ((1, *shape), (0, *steps))
    grid = (-(-room[1] // ACROSS), -(-room[0] // DOWN))
    item_bytes = np.int32(dtype_of(level).itemsize)
    here.launch(
        _fill_cuda, grid, (ACROSS, DOWN), bits, start, steps, shape, room, np.uint64(surface), item_bytes,
        np.int32(lanes),
    )  # fmt: skip


def _allocate(
    device: int, sizes: Sequence[tuple[int, int]], lanes: int, dtype: np.dtype[Any], max_anisotropy: int
) -> tuple[int, list[int], tuple[Any, ...]]:
    """Return the handles of a texture and of the surfaces of its levels, and what has to live as long."""
    try:
        from cuda.core import Device
        from cuda.core.texture import MipmappedArrayOptions, ResourceDescriptor, TextureObjectOptions
    except ImportError as error:
        raise ConfigError.of(
            "`make_texture`",
            got=f"no cuda.core.texture ({error})",
            expected="cuda-core 1.1 or newer",
            do="Run `pip install -e '.[texture]'` in the clone.",
        ) from error
    with cuda.gpus[device]:
        unit = Device(device)
        unit.set_current()  # the context that Numba has just made current: both use the primary one
        most = unit.properties.maximum_texture2d_mipmapped_height, unit.properties.maximum_texture2d_mipmapped_width
        if any(edge > limit for edge, limit in zip(sizes[0], most, strict=True)):
            raise ConfigError.of(
                "`levels` of `make_texture`",
                got=f"{sizes[0][0]}×{sizes[0][1]} px in memory",
                expected=f"at most {most[0]}×{most[1]} px, the limit of the device",
                do="Make a texture of each tile.",
            )
        array = unit.create_mipmapped_array(
            MipmappedArrayOptions(
                shape=(sizes[0][1], sizes[0][0]),
                format=dtype,
                num_channels=lanes,
                num_levels=len(sizes),
                is_surface_load_store=True,
            )
        )
        surfaces = [
            unit.create_surface_object(resource=ResourceDescriptor.from_opaque_array(array.get_level(i)))
            for i in range(len(sizes))
        ]
        options = TextureObjectOptions(
            address_mode="clamp",
            filter_mode="linear",
            read_mode="normalized_float" if dtype.kind == "u" else "element_type",
            normalized_coords=True,
            disable_trilinear_optimization=True,
            max_anisotropy=max_anisotropy,
            mipmap_filter_mode="linear",
            max_mipmap_level_clamp=float(len(sizes) - 1),
        )
        texture = unit.create_texture_object(resource=ResourceDescriptor.from_mipmapped_array(array), options=options)
    return int(texture.handle), [int(surface.handle) for surface in surfaces], (texture, *surfaces, array)


class _Forget:
    """Closes what the emulation keeps."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def close(self) -> None:
        texture_emulated.forget(self.handle)


def _emulate(
    device: int, sizes: Sequence[tuple[int, int]], lanes: int, dtype: np.dtype[Any], max_anisotropy: int
) -> tuple[int, list[int], tuple[Any, ...]]:
    levels: list[npt.NDArray[Any]] = [np.zeros((*size, lanes), dtype) for size in sizes]
    scale = 1 / np.iinfo(dtype).max if dtype.kind == "u" else 1.0
    handle = texture_emulated.add_texture(
        texture_emulated.EmulatedTexture(levels=levels, scale=scale, max_anisotropy=max_anisotropy)
    )
    surfaces = [texture_emulated.add_surface(level) for level in levels]
    return handle, surfaces, tuple(_Forget(number) for number in itertools.chain([handle], surfaces))
