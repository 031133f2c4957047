"""What exceptions of devices mean, by made ones: their libraries are not needed to tell them."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from tilestream.cluster.preload import IN_POD, dask_setup
from tilestream.errors import StageError
from tilestream.stream import faults
from tilestream.stream.faults import REASON_CHARS, Fault, WorkerLost, fault_of, lost, reason_of


class OutOfMemoryError(RuntimeError):
    """As torch has it."""


class CudaAPIError(RuntimeError):
    """As numba-cuda has it."""

    def __init__(self, code: int, msg: str) -> None:
        super().__init__(f"[{code}] {msg}")
        self.code = code


class AcceleratorError(RuntimeError):
    """As torch has it since 2.8."""

    error_code = 719


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (MemoryError(), Fault.MEMORY),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), Fault.MEMORY),
        (CudaAPIError(2, "Call to cuMemAlloc results in CUDA_ERROR_OUT_OF_MEMORY"), Fault.MEMORY),
        (CudaAPIError(700, "Call to cuMemcpyDtoH results in CUDA_ERROR_ILLEGAL_ADDRESS"), Fault.LOST),
        (CudaAPIError(1, "Call to cuLaunchKernel results in CUDA_ERROR_INVALID_VALUE"), Fault.OWN),
        (AcceleratorError("CUDA error: unspecified launch failure"), Fault.LOST),
        (RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors"), Fault.LOST),
        (RuntimeError("CUDA error: device-side assert triggered"), Fault.LOST),
        (RuntimeError("CUDA error: invalid argument"), Fault.OWN),
        (ValueError("no such layer"), Fault.OWN),
    ],
)
def test_what_an_error_means_also_behind_another(error: Exception, fault: Fault) -> None:
    assert fault_of(error) is fault
    behind = StageError("told again")
    behind.__cause__ = error
    assert fault_of(behind) is fault


def test_real_torch_errors_are_known() -> None:
    torch = pytest.importorskip("torch")
    assert fault_of(torch.cuda.OutOfMemoryError("CUDA out of memory.")) is Fault.MEMORY


def test_reasons_are_one_short_line() -> None:
    assert reason_of(ValueError("a\n  b")) == "ValueError: a b"
    assert reason_of(StageError.of("output", got="a", expected="b", do="Do.")) == "output: got a, expected b"
    assert len(reason_of(ValueError("x" * 1000))) == REASON_CHARS


def test_outside_a_worker_process_a_lost_device_is_an_error_that_says_what_to_do() -> None:
    error = lost("CUDA error: unspecified launch failure")
    assert type(error) is StageError
    assert "`--cluster gpus`" in str(error)


@pytest.mark.parametrize(("nanny", "in_pod"), [("tcp://10.0.0.1:1", False), (None, True), (None, False)])
def test_a_worker_without_its_device_ends_where_another_takes_its_place(
    nanny: str | None, in_pod: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving = Mock()
    worker = SimpleNamespace(nanny=nanny)
    monkeypatch.setattr(faults, "get_worker", lambda: worker)
    monkeypatch.setattr(faults.threading, "Timer", leaving)
    monkeypatch.setattr(faults, "_lost", threading.Event())
    monkeypatch.setattr(faults, "_replaced", threading.Event())
    monkeypatch.setattr("tilestream.cluster.preload.signal", Mock())
    if in_pod:
        monkeypatch.setenv(IN_POD, "10.96.0.1")
    else:
        monkeypatch.delenv(IN_POD, raising=False)
    dask_setup(worker)
    error = lost("CUDA error: unspecified launch failure")
    assert isinstance(error, WorkerLost) == bool(nanny or in_pod)
    assert [call.args[1] for call in leaving.call_args_list] == ([os._exit] if nanny or in_pod else [])
