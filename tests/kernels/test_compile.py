"""Every CUDA kernel is compiled for every compute capability that is promised, on a machine without a device."""

import importlib
import pkgutil
import re
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import tilestream.kernels
from tests.kernels.answers import ON_CUDA
from tilestream.kernels.language import CUDA_KERNELS, cuda

CAPABILITIES = ((7, 5), (8, 0), (9, 0), (10, 0), (12, 0))
UNITS, SHARE = 290, 0.7
"""Of processor time for all of them together, in compilations of `plain`, and how much of that speed is asked for: 60 s
on two cores of an AMD EPYC with AVX-512. Machines differ by more than that share, and so do cores that others use."""

for module in pkgutil.iter_modules(tilestream.kernels.__path__):
    importlib.import_module(f"tilestream.kernels.{module.name}")

pytestmark = pytest.mark.skipif(ON_CUDA, reason="compiles in the process of the CPU tests")
spent: list[float] = []


def test_the_compiler_is_the_one_that_ships() -> None:
    assert getattr(cuda, "implementation", "Built-in") == "NVIDIA", "install the extra `cuda` (make test does)"


@pytest.mark.parametrize("name", sorted(CUDA_KERNELS))
def test_every_kernel_compiles_without_a_device(name: str) -> None:
    kernel = CUDA_KERNELS[name]
    assert kernel.signatures
    start = time.process_time()
    for signature in kernel.signatures:
        library = typed(kernel.function, signature, fastmath=kernel.options.get("fastmath", False))
        with ThreadPoolExecutor(len(CAPABILITIES)) as pool:  # NVVM does without the GIL
            codes = list(pool.map(lambda cc, library=library: library.get_asm_str(cc=cc), CAPABILITIES))
        for (major, minor), ptx in zip(CAPABILITIES, codes, strict=True):
            assert f".target sm_{major}{minor}" in ptx
            if kernel.hot and not re.search("float64|complex", signature):
                assert ".f64" not in ptx, f"float64 in a hot kernel, {signature}"
    spent.append(time.process_time() - start)


def typed(function: Any, signature: str, *, fastmath: bool = False) -> Any:
    """Return the library that PTX for any capability is made from; `cuda.compile_ptx` would begin anew for each."""
    from numba.cuda.compiler import _compile_pyfunc_with_fixup

    library, _ = _compile_pyfunc_with_fixup(
        function, signature, device=False, abi="numba", fastmath=fastmath, cc=CAPABILITIES[0]
    )
    return library


def plain(a: Any, b: Any, out: Any) -> None:
    """Stand for any kernel."""
    i = cuda.grid(1)
    if i < out.size:
        total = a[i] * 0
        for k in range(b.size):
            total += a[i] * b[k] if b[k] > a[i] else a[i] - b[k]
        out[i] = total


def seconds_of_plain() -> float:
    """Return the processor time in which `plain` is compiled for two signatures and all capabilities."""
    start = time.process_time()
    for signature in ("void(float32[:], float32[:], float32[:])", "void(int16[:], int16[:], int32[:])"):
        library = typed(plain, signature)
        for cc in CAPABILITIES:
            library.get_asm_str(cc=cc)
    return time.process_time() - start


def test_all_of_them_in_time() -> None:
    assert spent, "run together with the tests above"
    unit = statistics.median(seconds_of_plain() for _ in range(5))
    assert sum(spent) / unit < UNITS / SHARE
