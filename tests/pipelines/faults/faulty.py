"""Encoders that go wrong, as users' do; imported by worker processes too."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_calls = count(1)
_lock = threading.Lock()
let_go = threading.Event()


def mean(pixels: Array) -> Array:
    """Return the mean of each channel."""
    return pixels.mean(axis=(2, 3), dtype=np.float64).astype(np.float32)


def slow(pixels: Array) -> Array:
    """Return the means after a while, so that a run can be met in the middle."""
    time.sleep(0.1)
    return mean(pixels)


def together(pixels: Array) -> Array:
    """Begin when so many processes are there as FAULTY_GATE says behind its folder, and take time then."""
    folder, _, count = os.environ.get("FAULTY_GATE", "").rpartition(":")
    if folder and pixels.any():  # not the black tile that an encoder is tried with
        Path(folder, str(os.getpid())).touch()
        stop = time.monotonic() + 60
        while len(list(Path(folder).iterdir())) < int(count) and time.monotonic() < stop:
            time.sleep(0.02)
        time.sleep(0.3)
    return mean(pixels)


def raises_once_in_a_while(pixels: Array) -> Array:
    """Raise at the third batch that this process sees."""
    with _lock:
        if next(_calls) == 3:
            raise ZeroDivisionError("the third batch")
    return mean(pixels)


def nan_where_dark(pixels: Array) -> Array:
    """Return NaN for tiles of which the mean is low."""
    found = mean(pixels)
    found[found.mean(axis=1) < 200] = np.nan
    return found


def no_dark(pixels: Array) -> Array:
    """Raise on a batch with a tile of which the mean is low, but for one that is black."""
    found = mean(pixels)
    if ((found.mean(axis=1) < 200) & (found.mean(axis=1) > 0)).any():
        raise ValueError("too dark")
    return found


def never_bright(pixels: Array) -> Array:
    """Raise on everything that is not black."""
    if pixels.any():
        raise ValueError("too bright")
    return mean(pixels)


def breaks(pixels: Array) -> Array:
    """Raise from the fourth call on."""
    with _lock:
        if next(_calls) > 3:
            raise ZeroDivisionError("broken for good")
    return mean(pixels)


def one_too_few(pixels: Array) -> Array:
    """Return a row less than there are tiles."""
    return mean(pixels)[1:]


def grows(pixels: Array) -> Array:
    """Return longer vectors from the fourth call on."""
    with _lock:
        return np.ones((len(pixels), 3 + (next(_calls) > 3)), np.float32)


def kills_at_seven(pixels: Array) -> Array:
    """End the process at a tile whose corner is 7."""
    if (pixels[:, 0, 0, 0] == 7).any():
        os._exit(1)
    return mean(pixels)


def kills_at_seven_twice(pixels: Array) -> Array:
    """End the process at a tile whose corner is 7, the first two times: files beside FAULTY_FLAG say how often."""
    if (pixels[:, 0, 0, 0] == 7).any():
        for number in range(2):
            with contextlib.suppress(FileExistsError):
                Path(f"{os.environ['FAULTY_FLAG']}{number}").open("x").close()
                os._exit(1)
    return mean(pixels)


def changes_the_image(pixels: Array) -> Array:
    """Touch the image that is being read, whose path is in FAULTY_IMAGE."""
    path = Path(os.environ["FAULTY_IMAGE"])
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1_000_000))
    return mean(pixels)


def set_flag(path: str) -> None:
    """Name the flag file in this process."""
    os.environ["FAULTY_FLAG"] = path


def hangs_once(pixels: Array) -> Array:
    """Never return from the first tile of an image: the file named in FAULTY_FLAG says that it was there."""
    if pixels.any():  # not the black tile that an encoder is tried with
        with contextlib.suppress(FileExistsError):
            Path(os.environ["FAULTY_FLAG"]).open("x").close()
            threading.Event().wait()
    return mean(pixels)


def hangs(pixels: Array) -> Array:
    """Do not return from a tile of an image until a test lets go of what hangs in its process."""
    if pixels.any():
        let_go.wait()
    return mean(pixels)


_has_lost = False


def loses_its_device_once(pixels: Array) -> Array:
    """Fail as a process does whose CUDA context is dead, in the first process that sees a tile of the image."""
    global _has_lost
    flag = Path(os.environ["FAULTY_FLAG"])
    with _lock:
        if not _has_lost and pixels.any() and not flag.exists():
            flag.write_text(str(os.getpid()))
            _has_lost = True
    if _has_lost:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    return mean(pixels)


def always_loses_its_device(pixels: Array) -> Array:
    """Fail as a process does whose CUDA context is dead, on every tile that is not black."""
    if pixels.any():
        raise RuntimeError("CUDA error: unspecified launch failure")
    return mean(pixels)


def needs_memory(pixels: Array) -> Array:
    """Return the means of at most two tiles at a time."""
    if len(pixels) > 2:
        raise MemoryError(f"no room for {len(pixels)} tiles")
    return mean(pixels)


def spread(pixels: Array) -> Array:
    """Return mean and standard deviation of each channel."""
    return np.concatenate([mean(pixels), pixels.std(axis=(2, 3), dtype=np.float64).astype(np.float32)], axis=1)
