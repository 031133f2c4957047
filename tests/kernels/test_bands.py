"""The parallel form: bands that cover once, errors that arrive, threads and forks that do not disturb each other."""

import os
import subprocess
import sys
import textwrap
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilestream.errors import ConfigError
from tilestream.kernels.bands import cores, over_bands


def bands(n: int, **keywords) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    over_bands(lambda start, stop: found.append((start, stop)), n, **keywords)
    return sorted(found)


@given(
    n=st.integers(0, 200),
    threads=st.integers(1, 12),
    least=st.integers(0, 50),
    align=st.sampled_from([1, 2, 7, 16, 64]),
)
def test_bands_cover_every_position_once(n: int, threads: int, least: int, align: int) -> None:
    found = bands(n, threads=threads, least=least, align=align)
    assert [start for start, _ in found[1:]] == [stop for _, stop in found[:-1]]
    assert (found[0][0], found[-1][1]) == (0, n)
    assert all(start % align == 0 for start, _ in found)
    assert all(start < stop for start, stop in found) or n == 0
    assert all(stop - start >= min(least, n) for start, stop in found[:-1])


def test_one_thread_is_one_band_in_the_callers() -> None:
    where: list[tuple[int, int, int]] = []
    over_bands(lambda start, stop: where.append((start, stop, threading.get_ident())), 1000, threads=1)
    assert where == [(0, 1000, threading.get_ident())]


def test_no_more_threads_than_asked_for_work_at_once() -> None:
    lock, now, most = threading.Lock(), 0, 0
    wait = threading.Event()

    def work(start: int, stop: int) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        wait.wait(0.02)
        with lock:
            now -= 1

    over_bands(work, 100, threads=2)
    assert most <= 2
    if cores() > 1:
        assert most == 2


@pytest.mark.parametrize("threads", [1, 2, 64])
def test_errors_reach_the_caller_and_harm_nobody_else(threads: int) -> None:
    def work(start: int, stop: int) -> None:
        if stop == 100:
            raise ZeroDivisionError(f"in band {start}")

    with pytest.raises(ZeroDivisionError, match="in band"):
        over_bands(work, 100, threads=threads)
    assert bands(100, threads=threads)[-1][1] == 100


def test_no_threads_are_refused() -> None:
    with pytest.raises(ConfigError, match="`threads`: got 0, expected at least 1"):
        over_bands(lambda start, stop: None, 10, threads=0)


WORK = """
import os, sys, threading
import numba
import numpy as np
from tilestream.kernels.bands import cores, over_bands
from tilestream.kernels.histogram import histogram

noise = np.random.default_rng(0)
pixels = noise.integers(0, 256, (64, 3, 96, 96), np.uint8)
flat = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)).reshape(-1)
count = np.stack([np.stack([np.bincount(plane.reshape(-1), minlength=256) for plane in tile]) for tile in pixels])

def right(threads):
    return np.array_equal(histogram(pixels, threads=threads), count)
"""


def run(code: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    source = WORK + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", source],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def layers() -> list[str]:
    """Numba's threading layers that this machine has."""
    found = ["workqueue", "omp", "tbb"]
    for layer, module in (("omp", "omppool"), ("tbb", "tbbpool")):
        try:
            __import__(f"numba.np.ufunc.{module}")
        except ImportError:
            found.remove(layer)
    return found


@pytest.mark.parametrize("layer", layers())
def test_four_threads_at_once_on_every_layer(layer: str) -> None:
    """Beside a parallel function of the user's own, which starts the layer."""
    done = run(
        """
        @numba.njit(parallel=True)
        def users_own(a):
            total = 0
            for i in numba.prange(a.size):
                total += a[i]
            return total

        users_own(flat[:1000])
        wrong = []

        def several(threads):
            for _ in range(5):
                if not right(threads):
                    wrong.append(threads)

        callers = [threading.Thread(target=several, args=(threads,)) for threads in (1, 2, None, None)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        users_own(flat[:1000])
        print(numba.threading_layer(), len(wrong))
        """,
        NUMBA_THREADING_LAYER=layer,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == [layer, "0"]


CHILD = """
        child = os.fork()
        if child == 0:
            os._exit(0 if right(None) and right(1) else 3)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


def test_a_child_forked_after_use_works() -> None:
    done = run(f"""
        assert right(None)
        {CHILD.strip()}
        assert right(None)
        print(status)
    """)
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr[-2000:]


def test_a_child_forked_while_another_thread_is_inside_a_kernel_works() -> None:
    done = run("""
        stop, begun = threading.Event(), threading.Event()
        wrong = []

        def busy():
            while not stop.is_set():
                begun.set()
                if not right(None):
                    wrong.append(1)

        other = threading.Thread(target=busy)
        other.start()
        begun.wait()
        statuses = []
        for _ in range(5):
            child = os.fork()
            if child == 0:
                os._exit(0 if right(None) and right(1) else 3)
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        stop.set()
        other.join()
        print(*statuses, len(wrong))
    """)
    assert (done.returncode, done.stdout.split()) == (0, ["0"] * 6), done.stderr[-2000:]


def test_a_child_forked_while_another_thread_compiles_works() -> None:
    """Numba compiles under one lock of the process, which that thread does not give back in the child."""
    done = run("""
        from numba.core.compiler_lock import global_compiler_lock
        begun = threading.Event()

        def compiles():
            with global_compiler_lock:
                begun.set()
                threading.Event().wait(0.3)

        threading.Thread(target=compiles).start()
        begun.wait()
        child = os.fork()
        if child == 0:
            os._exit(0 if right(None) else 3)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), right(1))
    """)
    assert (done.returncode, done.stdout.split()) == (0, ["0", "True"]), done.stderr[-2000:]


def test_a_child_forked_while_the_threads_are_being_made_works() -> None:
    """The lock of the pool may be held at that moment: the child has one of its own."""
    done = run("""
        from tilestream.kernels import bands
        with bands._pool.lock:
            child = os.fork()
            if child == 0:
                os._exit(0 if right(None) else 3)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr[-2000:]
