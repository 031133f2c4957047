"""Every CUDA kernel is compiled for every compute capability that is promised, on a machine without a device."""

import importlib
import pkgutil
import re
import time

import numba
import pytest

import tilestream.kernels
from tests.kernels.answers import ON_CUDA
from tilestream.kernels.language import CUDA_KERNELS, CudaKernel, cuda

CAPABILITIES = ((7, 5), (8, 0), (9, 0), (10, 0), (12, 0))
SECONDS = 60
"""For all of them together."""

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
    start = time.perf_counter()
    for signature in kernel.signatures:
        for capability in CAPABILITIES:
            ptx = compiled(kernel, signature, capability)
            assert f".target sm_{capability[0]}{capability[1]}" in ptx
            if kernel.hot and not re.search("float64|complex", signature):
                assert ".f64" not in ptx, f"float64 in a hot kernel, {signature}"
    spent.append(time.perf_counter() - start)


def compiled(kernel: CudaKernel, signature: str, capability: tuple[int, int]) -> str:
    options = {name: value for name, value in kernel.options.items() if name in ("fastmath", "opt", "max_registers")}
    options.pop("max_registers", None)  # of the linker, not of the compiler
    ptx, _ = cuda.compile_ptx(
        kernel.function, numba.core.sigutils.normalize_signature(signature)[0], cc=capability, **options
    )
    return str(ptx)


def test_all_of_them_in_time() -> None:
    assert spent, "run together with the tests above"
    assert sum(spent) < SECONDS
