"""What an exception of a stage says: too little memory, a device that is lost to the process, or a fault of its own."""

from __future__ import annotations

import os
import re
import threading
from enum import Enum

from distributed import get_worker

from tilestream.errors import StageError

FULL_CODE = 2
"""CUDA_ERROR_OUT_OF_MEMORY."""
LOST_CODES = frozenset({700, 702, 710, *range(714, 720)})
"""CUDA errors after which a process can use the device no more: faults of addresses, launches, time-outs, asserts."""
LOST_WORDS = re.compile(
    r"CUDA error: (an illegal memory access|unspecified launch failure|device-side assert|misaligned address|"
    r"an illegal instruction|the launch timed out|invalid program counter|operation not supported on global/shared|"
    r"hardware stack error)|CUDA_ERROR_(ILLEGAL|LAUNCH_FAILED|LAUNCH_TIMEOUT|ASSERT|MISALIGNED|INVALID_PC|HARDWARE)"
)
"""What torch and others call them."""
REASON_CHARS = 200
"""Of a reason that is kept for a tile."""
LEAVE_S = 0.5
"""How long a worker stays after the loss was told, so that it is heard."""
LOST_EXIT = 75
"""Exit code of a process that has lost its device: EX_TEMPFAIL."""
HOLD_S = 5.0
"""How long a task that such a worker is still given is held, rather than tried in vain."""


class Fault(Enum):
    """What a stage's exception means."""

    MEMORY = "memory"
    """A smaller batch may do."""
    LOST = "lost"
    """Nothing will do in this process."""
    OWN = "own"
    """The stage, or a tile."""


class WorkerLost(StageError):
    """A process in which the device cannot be used any more; the unit is done again by the one that replaces it."""


def fault_of(error: BaseException) -> Fault:
    """Return what an exception means, without importing torch or numba.

    Parameters
    ----------
    error : BaseException
        What a stage has raised.

    Returns
    -------
    Fault
        By the exception that it was raised from, where there is one.
    """
    seen: BaseException | None = error
    while seen is not None:
        names = {kind.__name__ for kind in type(seen).__mro__}
        code = getattr(seen, "code", None) or getattr(seen, "error_code", None)
        is_cuda = bool(names & {"CudaAPIError", "AcceleratorError", "CUDARuntimeError", "CUDADriverError"})
        if isinstance(seen, MemoryError) or "OutOfMemoryError" in names or (is_cuda and code == FULL_CODE):
            return Fault.MEMORY
        if (is_cuda and code in LOST_CODES) or (isinstance(seen, Exception) and LOST_WORDS.search(str(seen))):
            return Fault.LOST
        seen = seen.__cause__
    return Fault.OWN


def reason_of(error: BaseException) -> str:
    """Return one line that says what a stage has raised, without what to do about it."""
    text = str(error).partition(". ")[0] if isinstance(error, StageError) else f"{type(error).__name__}: {error}"
    line = " ".join(text.split())
    return line if len(line) <= REASON_CHARS else line[: REASON_CHARS - 1] + "…"


_lost = threading.Event()
_replaced = threading.Event()


def is_replaced() -> None:
    """Note that whoever has started this process starts another when it ends, as Kubernetes does with pods."""
    _replaced.set()


def lost(reason: str) -> StageError:
    """Return the error to raise when this process has lost its device, after asking for another process.

    Parameters
    ----------
    reason : str
        What the device says.

    Returns
    -------
    StageError
        `WorkerLost` in a worker process in whose place another is started; in others an error of the image.
    """
    try:
        worker = get_worker()
    except ValueError:
        worker = None
    if worker is None or not (worker.nanny or _replaced.is_set()):
        return StageError.of(
            "the device",
            got=reason,
            expected="one that computes",
            do="This process cannot use it any more. Run the same command again, with `--cluster gpus` or "
            "`--cluster local:1`, whose processes are replaced by themselves.",
        )
    if not _lost.is_set():
        _lost.set()
        # Not a graceful end: that waits for the other tasks of the process, which the device keeps waiting.
        leaving = threading.Timer(LEAVE_S, os._exit, (LOST_EXIT,))
        leaving.daemon = True
        leaving.start()
    return WorkerLost(reason)


def hold_if_lost() -> None:
    """Hold a task that was given to a process without its device until it is elsewhere; return at once in others."""
    if _lost.is_set():
        threading.Event().wait(HOLD_S)
        raise WorkerLost("the process has lost its device")
