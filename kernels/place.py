"""Where an operation runs: its arrays decide, and an explicit wish that cannot be met is an error.

Host arrays are NumPy's. Device arrays are whatever has `__cuda_array_interface__` or speaks DLPack from a CUDA device:
torch, CuPy, JAX, Numba. They are never moved from one to the other, never copied, and outputs are made by the library
that made the inputs.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.bands import cores
from tilestream.kernels.language import SIMULATED, CudaKernel, cuda, require_device

Array = Any
"""A NumPy array or a device array."""
Backend = Literal["cpu", "cuda"]

_KDL_CUDA = 2


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one call runs."""

    backend: Backend
    """`"cpu"` or `"cuda"`."""
    device: int = 0
    """Number of the CUDA device."""
    stream: int = 0
    """Handle of the CUDA stream, 0 for the default one."""
    threads: int = 1
    """Most CPU threads."""

    def launch(self, kernel: CudaKernel, grid: Any, block: Any, *arguments: Any) -> None:
        """Put a kernel on the caller's stream of the arrays' device; returns before it has run.

        Parameters
        ----------
        kernel : CudaKernel
            What to run.
        grid, block : int or tuple of int
            Blocks, and threads a block.
        *arguments : object
            Numba device arrays (see `tilestream.kernels.rows`) and scalars.
        """
        with contextlib.nullcontext() if SIMULATED else cuda.gpus[self.device]:
            kernel.launch(grid, block, self.stream, *arguments)


def is_device_array(array: Array) -> bool:
    """Return whether an array lives on a CUDA device."""
    if isinstance(array, np.ndarray):
        return False
    if hasattr(array, "__cuda_ndarray__"):  # Numba's own, also in the simulator
        return True
    if hasattr(array, "__dlpack_device__"):
        return bool(array.__dlpack_device__()[0] == _KDL_CUDA)
    return hasattr(array, "__cuda_array_interface__")


def device_of(array: Array) -> int:
    """Return the number of the CUDA device an array lives on; 0 when it does not say."""
    if SIMULATED:
        return 0
    if hasattr(array, "__dlpack_device__"):
        return int(array.__dlpack_device__()[1])
    return int(array.gpu_data.context.device.id) if hasattr(array, "__cuda_ndarray__") else 0  # Numba's own


def place(operation: str, *, backend: str | None, stream: int, threads: int | None, **arrays: Array | None) -> Place:
    """Return where an operation on these arrays runs.

    Parameters
    ----------
    operation : str
        Its name, for errors.
    backend : {"cpu", "cuda"} or None
        What the caller insists on; None follows the arrays.
    stream : int
        Handle of a CUDA stream, 0 for the default one.
    threads : int or None
        Most CPU threads; None means every core, 1 the serial form.
    **arrays : array or None
        All arrays of the call by the names of their parameters; None for one that was left out. Those whose names begin
        with `out` or `share` will be written to.

    Returns
    -------
    Place
        Checked: a CUDA place has a device that can be used.

    Raises
    ------
    ConfigError
        When something is no array, arrays live in different places, an output cannot be written to, or the wish cannot
        be met.
    """
    given = {name: array for name, array in arrays.items() if array is not None}
    if backend not in (None, "cpu", "cuda"):
        raise ConfigError.of(
            "`backend`", got=repr(backend), expected="'cpu', 'cuda' or None", do="Leave it out to follow the arrays."
        )
    if backend == "cuda":
        require_device()
    homes = {name: _home(operation, name, array) for name, array in given.items()}
    if len(set(homes.values())) > 1:
        listed = ", ".join(f"`{name}` on {home}" for name, home in homes.items())
        raise ConfigError.of(f"`{operation}`", got=listed, expected="all arrays in one place", do="Move them together.")
    for name, array in given.items():
        if name.startswith(("out", "share")):
            need_writable(operation, name, array)
    home = next(iter(homes.values()), "the host")
    where: Backend = "cpu" if home == "the host" else "cuda"
    if backend is not None and backend != where:
        raise ConfigError.of(
            "`backend`",
            got=f"{backend!r} with arrays on {home}",
            expected=f"{where!r}, or arrays that live where it runs",
            do="Move the arrays first: kernels never copy them between host and device.",
        )
    if where == "cuda":
        require_device()
        return Place(backend="cuda", device=device_of(next(iter(given.values()))), stream=int(stream))
    most: Any = cores() if threads is None else threads
    if not isinstance(most, (int, np.integer)) or most < 1:
        raise ConfigError.of("`threads`", got=repr(most), expected="at least 1", do="Leave it out for all cores.")
    return Place(backend="cpu", threads=int(most))


def need_writable(operation: str, name: str, array: Array) -> None:
    """Raise unless a host array can be written to as it is; of device arrays nothing is known.

    Parameters
    ----------
    operation, name : str
        Whose parameter it is, and what it is called.
    array : array
        Any array.

    Raises
    ------
    ConfigError
        When it is read-only or of a foreign byte order.
    """
    if not isinstance(array, np.ndarray) or (array.flags.writeable and array.dtype.isnative):
        return
    got = "one of a foreign byte order" if array.flags.writeable else "one that is read-only"
    raise ConfigError.of(
        f"`{name}` of `{operation}`", got=got, expected="an array to write to", do="Allocate it with np.empty."
    )


def _home(operation: str, name: str, array: Array) -> str:
    if isinstance(array, np.ndarray):
        return "the host"
    if is_device_array(array):
        return f"CUDA device {device_of(array)}"
    do = "Use np.asarray on it." if hasattr(array, "__array__") else "Make it an array first."
    raise ConfigError.of(
        f"`{name}` of `{operation}`", got=_kind(array), expected="a NumPy array or an array on a CUDA device", do=do
    )


def _kind(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def dtype_of(array: Array) -> np.dtype[Any]:
    """Return the type of an array's samples as NumPy names it."""
    dtype = array.dtype
    if isinstance(dtype, np.dtype):
        return dtype
    name = str(dtype).rpartition(".")[2]  # torch.uint8
    try:
        return np.dtype(name)
    except TypeError:
        raise ConfigError.of(
            "array", got=f"samples of type {dtype}", expected="a type that NumPy has", do="Convert it first."
        ) from None


def empty_like(array: Array, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Return an uninitialised array of the same kind and in the same place as `array`.

    Parameters
    ----------
    array : array
        NumPy, torch, CuPy or Numba.
    shape : tuple of int
        Of the new array.
    dtype : dtype
        Of the new array, whose byte order is the native one.

    Returns
    -------
    array
        Made by the library that made `array`.

    Raises
    ------
    ConfigError
        When that library is not known; the caller can hand in `out`.
    """
    wanted = np.dtype(dtype).newbyteorder("=")
    if isinstance(array, np.ndarray):
        return np.empty(shape, wanted)
    library = sys.modules[type(array).__module__.partition(".")[0]]
    if library.__name__ == "numba":
        return cuda.device_array(shape, wanted)
    if library.__name__ == "torch":
        return library.empty(shape, dtype=getattr(library, wanted.name), device=array.device)
    if library.__name__ == "cupy":
        with array.device:
            return library.empty(shape, wanted)
    raise ConfigError.of(
        "`out`",
        got=f"nothing, for inputs of {_kind(array)}",
        expected="an output array",
        do="Allocate it and hand it in.",
    )
