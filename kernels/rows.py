"""Strided pixels as one run of memory and steps, so that any view compiles to one kernel.

A kernel that takes a strided array cannot be vectorised, and each memory order costs one more compilation. The run from
the first to the last sample of a view is a contiguous one-dimensional view of the same memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from tilestream.errors import ConfigError
from tilestream.kernels.language import SIMULATED, cuda
from tilestream.kernels.place import Array, is_device_array


def flat_rows(pixels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], tuple[int, ...]]:
    """Return the memory of host `pixels` whose rows are contiguous as one run, and the steps of its outer axes.

    Parameters
    ----------
    pixels : ndarray
        `(…, y, x, c)`, any dtype. No copy is made when `x, c` are contiguous and the outer steps are not negative;
        otherwise, and for a foreign byte order, a contiguous copy is.

    Returns
    -------
    flat : ndarray
        Read-only, one-dimensional, contiguous; sample `k` of row `(i…, y)` is `flat[i·step + … + y·step + k]`.
    steps : tuple of int
        Steps of all axes but the last two, in samples.
    """
    *_, width, channels = pixels.shape
    item = pixels.itemsize
    contiguous = (channels == 1 or pixels.strides[-1] == item) and (width <= 1 or pixels.strides[-2] == channels * item)
    if not contiguous or any(s < 0 or s % item for s in pixels.strides[:-2]):
        pixels = np.ascontiguousarray(pixels)
    flat, _, steps = flat_view(pixels)
    return flat, steps[:-2]


def flat_view(array: Array, *, writable: bool = False) -> tuple[Any, int, tuple[int, ...]]:
    """Return the memory of any strided array, on the host or a device, as one run of samples.

    Parameters
    ----------
    array : array
        Any number of axes and any strides: reversed, repeated and skipping axes too. It is not copied, but for a host
        array that is only read and has a foreign byte order or strides that are no whole samples. Bool comes back as
        uint8, 0 or 1.
    writable : bool
        Whether a kernel writes to it; otherwise a host array comes back read-only, because Numba compiles a second
        time for one that may be written to.

    Returns
    -------
    flat : array
        One-dimensional, contiguous: a NumPy array, or a Numba device array.
    start : int
        Where the sample at index 0 of every axis is.
    steps : tuple of int
        Of each axis, in samples: sample i, j, … is `flat[start + i·steps[0] + j·steps[1] + …]`.

    Raises
    ------
    ConfigError
        When an array that cannot be taken as it is is on a device or is to be written.
    """
    if is_device_array(array) and not SIMULATED:
        address, dtype, strides = _device_memory(array)
    else:
        dtype, strides = array.dtype, array.strides
    if dtype == np.bool_:
        dtype = np.dtype(np.uint8)
    if not dtype.isnative or any(step % dtype.itemsize for step in strides):
        if writable or is_device_array(array):
            raise ConfigError.of(
                "array",
                got=f"{dtype.str} with strides of {strides} bytes",
                expected="native byte order and strides of whole samples",
                do="Copy it into an array of its own first.",
            )
        return flat_view(np.ascontiguousarray(array, dtype.newbyteorder("=")))
    steps = tuple(int(step) // dtype.itemsize for step in strides)
    reach = [(n - 1) * step for n, step in zip(array.shape, steps, strict=True)] if 0 not in array.shape else []
    start = -sum(r for r in reach if r < 0)
    span = start + sum(r for r in reach if r > 0) + 1 if 0 not in array.shape else 0
    if is_device_array(array) and not SIMULATED:
        run = _DeviceRun(array, address - start * dtype.itemsize, span, dtype)
        return cuda.as_cuda_array(run, sync=False), start, steps
    host = (array._ary if is_device_array(array) else array).view(dtype)
    first = host[tuple(slice(-1, None) if step < 0 else slice(None, 1) for step in steps)] if start else host
    flat = as_strided(first, shape=(span,), strides=(dtype.itemsize,), writeable=writable)
    return (type(array)(flat) if is_device_array(array) else flat), start, steps


def no_samples(dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an empty run on the host for an array that is not given; read-only as `flat_view` gives those that are.

    Parameters
    ----------
    dtype : data-type
        As of the array that might have been given: Numba compiles a second time for any other.

    Returns
    -------
    ndarray
        Shape `(0,)`.
    """
    empty = np.empty(0, dtype)
    empty.flags.writeable = False
    return empty


def one_run(runs: Sequence[Array], *, writable: bool = False) -> tuple[Any, tuple[int, ...]]:
    """Return several runs of memory in one place as a single run, so that a kernel takes them as one argument.

    Parameters
    ----------
    runs : sequence of array
        What `flat_view` returned, all of one type.
    writable : bool
        As in `flat_view`.

    Returns
    -------
    flat : array
        Reaches from the first sample of the lowest run to the last of the highest. What lies between runs belongs to
        others and must not be touched. Valid as long as the runs are.
    offsets : tuple of int
        Where each run begins in `flat`.

    Raises
    ------
    ConfigError
        When the runs do not lie whole samples apart.
    """
    on_device = is_device_array(runs[0]) and not SIMULATED
    dtype = np.dtype(runs[0].dtype)
    hosts = [run._ary if is_device_array(run) else run for run in runs] if not on_device else []
    addresses = (
        [int(run.__cuda_array_interface__["data"][0]) for run in runs] if on_device else [h.ctypes.data for h in hosts]
    )
    lowest = min(addresses)
    if any((address - lowest) % dtype.itemsize for address in addresses):
        raise ConfigError.of(
            "array",
            got="arrays that do not lie whole samples apart in memory",
            expected="aligned memory",
            do="Copy them into arrays of their own first.",
        )
    offsets = tuple((address - lowest) // dtype.itemsize for address in addresses)
    span = max(offset + int(run.size) for offset, run in zip(offsets, runs, strict=True))
    if on_device:
        return cuda.as_cuda_array(_DeviceRun(runs, lowest, span, dtype), sync=False), offsets
    first = hosts[addresses.index(lowest)]
    flat = as_strided(first, shape=(span,), strides=(dtype.itemsize,), writeable=writable)
    return (type(runs[0])(flat) if is_device_array(runs[0]) else flat), offsets


def flat_samples(array: Array) -> Any:
    """Return a contiguous array on a device as one run for kernels that widen float16 as they read it.

    The simulator's cores run on the host, where Numba knows no float16: there, and only there, it is a float32 copy.
    """
    flat, _, _ = flat_view(array)
    if SIMULATED and flat.dtype == np.float16:
        return cuda.to_device(flat.copy_to_host().astype(np.float32))
    return flat


class _DeviceRun:
    """A contiguous piece of device memory of other arrays, which it keeps alive."""

    def __init__(self, owner: object, address: int, span: int, dtype: np.dtype[Any]) -> None:
        self.owner = owner
        self.__cuda_array_interface__ = {
            "shape": (span,), "typestr": dtype.str, "data": (address, False), "strides": None, "version": 3,
        }  # fmt: skip


def _device_memory(array: Array) -> tuple[int, np.dtype[Any], tuple[int, ...]]:
    """Return address, type and strides in bytes of a device array, without waiting for its producer."""
    array = array.detach() if hasattr(array, "detach") else array  # torch refuses while gradients are wanted
    if hasattr(array, "__cuda_array_interface__"):
        known = array.__cuda_array_interface__
        address, dtype, strides = known["data"][0], np.dtype(known["typestr"]), known.get("strides")
    else:
        from cuda.core.utils import StridedMemoryView  # comes with numba-cuda

        view = StridedMemoryView.from_dlpack(array, stream_ptr=-1)  # the caller's stream orders the work
        address, dtype = view.ptr, view.dtype
        strides = None if view.strides is None else tuple(s * dtype.itemsize for s in view.strides)
    if strides is None:
        strides = tuple(dtype.itemsize * int(np.prod(array.shape[k + 1 :])) for k in range(len(array.shape)))
    return int(address), dtype, tuple(strides)
