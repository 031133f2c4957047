import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

CORE = """
from tilestream.kernels.language import core

ADDED = {added}

@core
def _twice_core(a):
    return {factor} * a
"""
KERNEL = """
from tests_of_cache.maths import ADDED, _twice_core
from tilestream.kernels.language import cpu_kernel

@cpu_kernel
def _twice_cpu(a):
    return _twice_core(a) + ADDED

print(_twice_cpu(3), sum(_twice_cpu.stats.cache_hits.values()))
"""


@pytest.mark.slow
def test_a_kernel_is_compiled_once_and_again_when_what_it_takes_from_another_file_was_edited(tmp_path: Path) -> None:
    package = tmp_path / "tests_of_cache"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "kernel.py").write_text(textwrap.dedent(KERNEL))

    def run(factor: int, added: int) -> str:
        maths = textwrap.dedent(CORE.format(factor=factor, added=added))
        if not (package / "maths.py").exists() or (package / "maths.py").read_text() != maths:
            (package / "maths.py").write_text(maths)
        return subprocess.run(
            [sys.executable, "-c", "import tests_of_cache.kernel"],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip

    assert run(2, 0) == "6 0"
    assert run(2, 0) == "6 1"
    assert run(5, 0) == "15 0"
    assert run(5, 4) == "19 0"


def test_without_a_folder_for_compiled_kernels_they_are_compiled_anew_with_a_warning(monkeypatch) -> None:
    from numba.core.caching import CacheImpl

    from tilestream.kernels.language import cpu_kernel

    monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    with pytest.warns(UserWarning, match="NUMBA_CACHE_DIR"):
        thrice = cpu_kernel(lambda a: 3 * a)
    assert thrice(2) == 6


def test_a_cuda_kernel_that_closes_over_functions_is_found_on_disk_by_the_next_process() -> None:
    from numba import njit

    from tilestream.kernels.language import _kept_on_disk, cuda

    class Codegen:
        def magic_tuple(self) -> tuple[int, int]:
            return (9, 0)

    def made(factor: int) -> tuple[object, object]:
        @njit(inline="always")
        def scaled(a):
            return factor * a

        def kernel(a):
            a[0] = scaled(a[0])

        cache = _kept_on_disk(cuda.jit)(kernel)._cache
        return cache._index_key((), Codegen()), cache._cache_file._source_stamp

    assert made(2) == made(2)
    assert made(2) != made(3)
