"""The language kernels are written in, and the only door to Numba's CUDA target.

    @core           scalar maths, shared: inlined into the CPU and the CUDA twin, so both compute the same thing
    @cpu_kernel     the serial form: no GIL, compiled once and kept on disk
    @cuda_kernel    index arithmetic around cores; compiled at its first launch and kept on disk

Only `numba.njit(inline="always")` can be called from both targets and still be compiled without a driver (tried with
numba 0.68 and numba-cuda 0.30). numba-cuda is in maintenance since June 2026; its successor numba-cuda-mlir keeps the
same language, so a change of package is a change of this file. `cuda` is Numba's simulator where NUMBA_ENABLE_CUDASIM
is set before the first import.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.ma
from llvmlite import ir
from numba import cuda as _cuda
from numba import njit
from numba.core import types
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

from tilestream.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])

cuda: Any = _cuda
"""Numba's CUDA module; its types do not know what only kernels may call."""

_config: Any = numba.config

SIMULATED: bool = bool(_config.ENABLE_CUDASIM)
"""Whether `cuda` is Numba's simulator, which runs kernels in Python on the host."""

CUDA_KERNELS: dict[str, CudaKernel] = {}
"""Every CUDA kernel of the modules imported so far by qualified name, for tests that compile all of them."""

if hasattr(os, "register_at_fork"):
    # A child that is forked while another thread compiles or imports would wait for that thread's lock for ever. Numba
    # imports under the lock of its compiler, but for numpy.ma.
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=global_compiler_lock.release,
    )

if "NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS" not in os.environ:
    # a small image is no mistake of the user's
    _config.CUDA_LOW_OCCUPANCY_WARNINGS = 0


def core(function: F) -> F:
    """Return scalar maths that CPU and CUDA kernels inline."""
    return cast("F", njit(inline="always", error_model="numpy")(function))


def cuda_core(function: F) -> F:
    """Return a part of CUDA kernels that may take arrays, inlined; the simulator, whose arrays no core takes, runs it.

    A device function proper, `cuda.jit(device=True)`, cannot be compiled without a driver.
    """
    return function if SIMULATED else cast("F", njit(inline="always", error_model="numpy")(function))


def _intrinsic(function: Callable[..., Any]) -> Any:
    """Return a function that writes the machine code of its calls; kernels call it without the typing context."""
    return intrinsic(function)


@_intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a · b + c, rounded once: the same number on every target, which mul and add are not."""
    if not all(isinstance(kind, types.Float) for kind in (a, b, c)):
        return None
    kind = max((a, b, c), key=lambda kind: kind.bitwidth)

    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*[context.cast(builder, v, t, kind) for v, t in zip(arguments, signature.args, strict=True)])

    return kind(a, b, c), lower


@_intrinsic
def prefetch(typing: Any, run: Any, k: Any) -> Any:
    """Ask the CPU to bring `run[k]`, of a one-dimensional array, into its cache; it may lie past the end."""
    if not isinstance(run, types.Array) or run.ndim != 1:
        return None

    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        form = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        call = builder.module.declare_intrinsic("llvm.prefetch", [address.type], form)
        builder.call(call, [address, number(0), number(3), number(1)])  # to read, into the nearest cache, of data
        return context.get_dummy_value()

    return types.none(run, types.int64), lower


@_intrinsic
def widened(typing: Any, stored: Any) -> Any:
    """Return a number as float32: a float32, or the float16 of 16 bits; for the CPU, which does eight in a step."""
    if stored == types.float32:
        return stored(stored), lambda context, builder, signature, arguments: arguments[0]
    if stored != types.uint16:
        return None

    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(stored), lower


@_intrinsic
def floor(typing: Any, x: Any) -> Any:
    """Return the largest whole number that is not above x, as a float of the type of x on every target."""
    if not isinstance(x, types.Float):
        return None

    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.call(builder.module.declare_intrinsic("llvm.floor", [arguments[0].type]), arguments)

    return x(x), lower


def device(function: F) -> F:
    """Return a part of CUDA kernels that may index arrays, share memory and wait for its block."""
    if SIMULATED:
        return cast("F", cuda.jit(device=True)(function))
    return cast("F", njit(inline="always")(function))


@_intrinsic
def _device_atomic_add(typing: Any, array: Any, k: Any, value: Any) -> Any:
    if not isinstance(array, types.Array) or array.dtype != value or not isinstance(value, types.Float):
        return None

    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        run = context.make_array(signature.args[0])(context, builder, arguments[0])
        address = builder.ptrtoint(builder.gep(run.data, [arguments[1]]), ir.IntType(64))
        form = ir.FunctionType(ir.VoidType(), [address.type, arguments[2].type])
        code, kind = f"red.add.f{value.bitwidth} [$0], $1;", "f" if value.bitwidth == 32 else "d"
        builder.asm(form, code, f"l,{kind},~{{memory}}", [address, arguments[2]], side_effect=True)
        return context.get_dummy_value()

    return types.none(array, types.int64, value), lower


def _simulated_atomic_add(array: Any, k: Any, value: Any) -> None:
    cuda.atomic.add(array, k, value)


atomic_add: Any = cuda.jit(device=True)(_simulated_atomic_add) if SIMULATED else _device_atomic_add
"""`atomic_add(array, k, value)` for floats, value of the type of the array. Integers take `cuda.atomic.add`, whose form
for floats NVVM refuses for compute capability 10.0 and above (numba-cuda 0.30: "atomicrmw does not support fadd")."""


def cpu_kernel(function: F) -> F:
    """Return the serial CPU form: free of the GIL, kept on disk, division by zero as in NumPy."""
    return cast("F", _kept_on_disk(njit, nogil=True, error_model="numpy")(function))


def cpu_sum_kernel(function: F) -> F:
    """Return the serial CPU form of a long sum: as `cpu_kernel`, but the compiler may add up in the order of vectors.

    It is thirty times faster so. The order follows from the machine, never from bands or threads.
    """
    return cast("F", _kept_on_disk(njit, nogil=True, error_model="numpy", fastmath={"reassoc", "nsz"})(function))


def _kept_on_disk(jit: Any, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles once for all processes, and again when a core it inlines was edited."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            compiled = jit(cache=True, **options)(function)
        except RuntimeError as error:  # Numba found no folder that it may write to
            warnings.warn(f"{error}: kernels are compiled in every process. Set NUMBA_CACHE_DIR.", stacklevel=3)
            return jit(**options)(function)
        if not SIMULATED:
            # Numba looks at the file of the function alone, and would go on with the old maths of an edited core
            compiled._cache._cache_file._source_stamp = _stamp(function)
            if jit is cuda.jit:
                # The key would hold what the kernel closes over, and functions differ in it from process to process;
                # CUDA kernels differ by name, and what they close over is in the stamp
                compiled._cache._py_func = SimpleNamespace(__code__=function.__code__, __closure__=None)
        return compiled

    return decorate


def _stamp(function: Callable[..., Any]) -> tuple[Any, ...]:
    """Return what a compiled kernel depends on: all files whose functions it calls, and the constants these use."""
    files, constants, found, waiting = set(), {}, set(), [function]
    while waiting:
        inner = waiting.pop()
        found.add(inner)
        files.add(inner.__code__.co_filename)
        cells = zip(inner.__code__.co_freevars, inner.__closure__ or (), strict=True)
        used = {name: inner.__globals__.get(name) for name in inner.__code__.co_names}
        for name, value in (used | {name: cell.cell_contents for name, cell in cells}).items():
            called = getattr(value, "py_func", None)
            if called is not None and called not in found:
                waiting.append(called)
            elif isinstance(value, (int, float, tuple, type, np.generic)):
                constants[name] = repr(value)
    known = ((Path(file).name, Path(file).stat().st_mtime_ns, Path(file).stat().st_size) for file in sorted(files))
    return (*known, *sorted(constants.items()))


class CudaKernel:
    """A CUDA kernel that is compiled when it is first launched.

    Parameters
    ----------
    function : callable
        Index arithmetic in the CUDA subset of Python.
    signatures : tuple of str
        Types it is launched with, such as `"void(uint8[::1], int64)"`: what the tests compile without a device.
    hot : bool
        Whether float64 must not occur in its code, unless a signature asks for it.
    options : dict
        What `numba.cuda.jit` takes besides, such as `max_registers`; `cache=False` for kernels that link foreign code,
        which cannot be kept on disk.
    """

    def __init__(
        self, function: Callable[..., None], signatures: tuple[str, ...], hot: bool, options: dict[str, Any]
    ) -> None:
        self.function = function
        self.signatures = signatures
        self.hot = hot
        self.options = options
        self._compiled: Any = None
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__

    def launch(self, grid: Any, block: Any, stream: int, *arguments: Any) -> None:
        """Run the kernel on `stream` of the current device; see `tilestream.kernels.place.Place.launch`."""
        if self._compiled is None:
            options = dict(self.options)
            kept = options.pop("cache", True)
            self._compiled = (_kept_on_disk(cuda.jit, **options) if kept else cuda.jit(**options))(self.function)
        handle = cuda.external_stream(stream) if stream else 0
        self._compiled[grid, block, handle](*arguments)


def cuda_kernel(*signatures: str, hot: bool = True, **options: Any) -> Callable[[Callable[..., None]], CudaKernel]:
    """Return a decorator that makes a CUDA kernel.

    Parameters
    ----------
    *signatures : str
        At least one, each compiled by the tests for every compute capability.
    hot : bool
        Whether its code must hold no float64 unless a signature does.
    **options : object
        Passed to `numba.cuda.jit`.

    Returns
    -------
    callable
        From function to `CudaKernel`.
    """

    def decorate(function: Callable[..., None]) -> CudaKernel:
        kernel = CudaKernel(function, signatures, hot, options)
        CUDA_KERNELS[f"{function.__module__}.{function.__qualname__}"] = kernel
        return kernel

    return decorate


_used_in: int | None = None


def require_device() -> None:
    """Raise unless kernels can be launched in this process.

    Raises
    ------
    ConfigError
        When there is no device or driver, when Numba's old built-in CUDA target would be used, or when the process was
        forked after CUDA was used in its parent, which CUDA does not survive.
    """
    global _used_in
    if SIMULATED:
        return
    if _used_in == os.getpid():
        return
    if _used_in is not None:
        raise ConfigError.of(
            "`backend`",
            got="CUDA in a process that was forked after CUDA was used",
            expected="a process of its own",
            do='Start processes with "spawn" or "forkserver", or use CUDA in the child only.',
        )
    if not cuda.is_available():
        raise ConfigError.of(
            "`backend`",
            got=f"CUDA, and no usable device: {_why_not()}",
            expected="an NVIDIA GPU with its driver",
            do="Hand in NumPy arrays to work on the CPU.",
        )
    if getattr(cuda, "implementation", "Built-in") == "Built-in":
        raise ConfigError.of(
            "`backend`",
            got=f"CUDA through the old target built into numba {numba.__version__}",
            expected="the package numba-cuda",
            do="Run `pip install -e '.[cuda]'` in the clone.",
        )
    _used_in = os.getpid()


def _why_not() -> str:
    try:
        cuda.current_context()
    except Exception as error:  # noqa: BLE001  whatever the driver says is the reason
        return " ".join(str(error).split()).rstrip(" .:") or type(error).__name__
    return "the driver does not say why"
