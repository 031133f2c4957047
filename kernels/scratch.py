"""Memory of operations that take several launches: zeroed where they run, and read back where the host goes on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tilestream.kernels.language import SIMULATED, cuda, cuda_kernel
from tilestream.kernels.place import Array, Place, empty_like
from tilestream.kernels.rows import flat_view

THREADS = 128
MAX_BLOCKS = 1024


@cuda_kernel("void(int64[::1])")
def _zero_cuda(flat: Any) -> None:
    first = cuda.blockIdx.x * np.int64(cuda.blockDim.x) + cuda.threadIdx.x
    for k in range(first, flat.shape[0], cuda.gridDim.x * np.int64(cuda.blockDim.x)):
        flat[k] = 0


def set_zero(here: Place, array: Array) -> None:
    """Set a contiguous array to 0, on a device in the order of the stream.

    Parameters
    ----------
    here : Place
        Where it lives.
    array : array
        Any shape; on a device int64.
    """
    if here.backend == "cpu":
        array[...] = 0
        return
    flat, _, _ = flat_view(array, writable=True)
    if flat.shape[0]:
        blocks = 1 if SIMULATED else min(MAX_BLOCKS, -(-flat.shape[0] // THREADS))
        here.launch(_zero_cuda, blocks, THREADS, flat.reshape(-1))


def zeros(here: Place, like: Array, shape: tuple[int, ...]) -> Array:
    """Return an int64 array of zeros of the kind of `like`.

    Parameters
    ----------
    here : Place
        Where `like` lives.
    like : array
        Whose library makes it.
    shape : tuple of int
        Of the new array.

    Returns
    -------
    array of int64
        Contiguous.
    """
    found = empty_like(like, shape, np.int64)
    set_zero(here, found)
    return found


def fetched(here: Place, array: Array) -> npt.NDArray[Any]:
    """Return a contiguous array on the host; waits for the stream where it comes from a device.

    Parameters
    ----------
    here : Place
        Where it lives.
    array : array
        Contiguous.

    Returns
    -------
    ndarray
        `array` itself when it is on the host.
    """
    if here.backend == "cpu":
        return np.asarray(array)
    flat, _, _ = flat_view(array)
    shape = tuple(int(n) for n in array.shape)
    if SIMULATED:
        return np.asarray(flat.copy_to_host()).reshape(shape)
    with cuda.gpus[here.device]:
        stream = cuda.external_stream(here.stream) if here.stream else cuda.default_stream()
        host = flat.copy_to_host(stream=stream)
        stream.synchronize()
    return np.asarray(host).reshape(shape)
