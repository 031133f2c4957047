"""Where calls run, and how what cannot be met is refused; no test here needs a device."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from tilestream.errors import ConfigError
from tilestream.kernels import language
from tilestream.kernels.bands import cores
from tilestream.kernels.checks import need
from tilestream.kernels.histogram import histogram
from tilestream.kernels.language import require_device
from tilestream.kernels.place import Place, device_of, dtype_of, empty_like, is_device_array, place

torch = pytest.importorskip("torch")


class OnDevice:
    """What an array on a CUDA device shows of itself, without one."""

    def __init__(self, shape=(2, 3), dtype="uint8", device: int = 0) -> None:
        self.shape, self.dtype, self.device = shape, np.dtype(dtype), device
        self.flags = {"C_CONTIGUOUS": True}

    @property
    def __cuda_array_interface__(self):
        raise AssertionError("the memory of an array on a device was asked for before it was known that there is one")

    def __dlpack_device__(self):
        return 2, self.device


class OldOnDevice:
    """An array that speaks no DLPack."""

    shape, dtype = (2,), np.dtype(np.uint8)

    def __init__(self) -> None:
        self.__cuda_array_interface__ = {"shape": (2,), "typestr": "|u1", "data": (0, False), "version": 3}


HOST = np.zeros((2, 3), np.uint8)


def called(*, backend=None, threads=None, **arrays) -> Place:
    return place("thing", backend=backend, stream=0, threads=threads, **arrays)


@pytest.fixture
def usable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a driver, a device and numba-cuda, as far as the checks look."""
    monkeypatch.setattr(language.cuda, "is_available", lambda: True)
    monkeypatch.setattr(language.cuda, "implementation", "NVIDIA", raising=False)
    monkeypatch.setattr(language, "_used_in", None)


@pytest.fixture
def deviceless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language.cuda, "is_available", lambda: False)
    monkeypatch.setattr(language, "_used_in", None)


def test_arrays_decide(usable: None) -> None:
    assert called(a=HOST, b=None) == Place(backend="cpu", threads=cores())
    assert called(a=HOST, threads=3, backend="cpu") == Place(backend="cpu", threads=3)
    assert called(a=OnDevice(device=2), b=OnDevice(device=2)) == Place(backend="cuda", device=2)
    assert place("thing", backend="cuda", stream=77, threads=None, a=OldOnDevice()).stream == 77


def test_what_lives_on_a_device() -> None:
    assert is_device_array(OnDevice())
    assert is_device_array(OldOnDevice())
    assert not is_device_array(HOST)
    assert not is_device_array(torch.zeros(2))
    assert not is_device_array([1])
    assert device_of(OnDevice(device=3)) == 3
    assert device_of(OldOnDevice()) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"a": [[1]]},
            "`a` of `thing`: got list, expected a NumPy array or an array on a CUDA device. Make it an array",
        ),
        ({"a": HOST, "b": "x"}, "`b` of `thing`: got str"),
        ({"a": torch.zeros(2)}, r"`a` of `thing`: got torch.Tensor.*Use np.asarray on it"),
        (
            {"a": HOST, "b": OnDevice()},
            "`thing`: got `a` on the host, `b` on CUDA device 0, expected all arrays in one",
        ),
        ({"a": OnDevice(), "b": OnDevice(device=1)}, "`a` on CUDA device 0, `b` on CUDA device 1"),
        ({"a": HOST, "backend": "gpu"}, "`backend`: got 'gpu', expected 'cpu', 'cuda' or None"),
        ({"a": OnDevice(), "backend": "cpu"}, "`backend`: got 'cpu' with arrays on CUDA device 0, expected 'cuda'"),
        ({"a": HOST, "backend": "cuda"}, "`backend`: got 'cuda' with arrays on the host, expected 'cpu'"),
        ({"a": HOST, "threads": 0}, "`threads`: got 0, expected at least 1"),
        ({"a": HOST, "threads": -2}, "`threads`: got -2"),
    ],
)
def test_what_cannot_be_met_is_refused(arguments, message: str, usable: None) -> None:
    with pytest.raises(ConfigError, match=message):
        called(**arguments)


def test_cuda_without_a_device_says_so(deviceless: None) -> None:
    for arguments in ({"a": HOST, "backend": "cuda"}, {"a": OnDevice()}):
        with pytest.raises(ConfigError, match=r"`backend`: got CUDA, and no usable device: .+NVIDIA GPU.*NumPy arrays"):
            called(**arguments)
    with pytest.raises(ConfigError, match="no usable device"):
        histogram(np.zeros((1, 1, 2, 2), np.uint8), backend="cuda")
    with pytest.raises(ConfigError, match="no usable device"):
        histogram(OnDevice((1, 1, 2, 2)))


def test_the_old_target_of_numba_is_refused(usable: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language.cuda, "implementation", "Built-in", raising=False)
    with pytest.raises(ConfigError, match=r"old target built into numba.*numba-cuda.*'\.\[cuda\]'"):
        called(a=OnDevice())
    monkeypatch.delattr(language.cuda, "implementation")
    with pytest.raises(ConfigError, match="old target"):
        require_device()


def test_a_process_that_was_forked_after_cuda_was_used_is_refused(
    usable: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_device()
    monkeypatch.setattr(language.cuda, "is_available", lambda: pytest.fail("asked again"))
    require_device()
    pid = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: pid + 1)
    with pytest.raises(ConfigError, match=r'`backend`: got CUDA in a process that was forked.*"spawn"'):
        called(a=OnDevice())
    assert called(a=HOST).backend == "cpu"


def test_a_forked_child_gets_the_error_and_lives() -> None:
    """A real fork of a process that believes it has used CUDA."""
    code = """
        import os, sys
        from tilestream.errors import ConfigError
        from tilestream.kernels import language
        language.cuda.is_available, language.cuda.implementation = lambda: True, "NVIDIA"
        language.require_device()
        child = os.fork()
        if child == 0:
            try:
                language.require_device()
            except ConfigError as error:
                os._exit(7 if "forked" in str(error) else 8)
            os._exit(9)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False).returncode == 7


@pytest.mark.parametrize(
    "name", ["bool", "uint8", "uint16", "int16", "int32", "int64", "float16", "float32", "float64"]
)
def test_types_are_named_as_numpy_does(name: str) -> None:
    tensor = torch.zeros(2, dtype=getattr(torch, name))
    assert dtype_of(tensor) == np.dtype(name)
    assert dtype_of(tensor.numpy()) == np.dtype(name)
    made = empty_like(tensor, (3, 4), name)
    assert (type(made), made.dtype, tuple(made.shape)) == (torch.Tensor, tensor.dtype, (3, 4))
    assert made.device.type == "cpu"
    host = empty_like(HOST, (3, 4), name)
    assert (type(host), host.dtype, host.shape) == (np.ndarray, np.dtype(name), (3, 4))


def test_a_type_that_numpy_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"samples of type torch.bfloat16.*a type that NumPy has"):
        dtype_of(torch.zeros(2, dtype=torch.bfloat16))


def test_outputs_of_unknown_libraries_are_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"`out`: got nothing, for inputs of .*OnDevice.*Allocate it and hand it in"):
        empty_like(OnDevice(), (2,), np.uint8)


@pytest.mark.parametrize(
    ("array", "asked", "message"),
    [
        (HOST, {"dtypes": ("uint16", "float32")}, r"got uint8 of shape \(2, 3\), expected samples of type uint16 or f"),
        (HOST, {"ndim": 3}, r"expected 3 axes"),
        (HOST, {"ndim": (1, 4)}, r"expected 1 or 4 axes"),
        (HOST, {"shape": (2, 4)}, r"shape \(2, 3\), expected shape \(2, 4\)"),
        (HOST[:, :0], {}, "expected at least one sample"),
        (HOST[:, ::2], {"contiguous": True}, "not contiguous, expected C order"),
        (HOST.T, {"contiguous": True}, "not contiguous"),
        (torch.zeros(4, 2, dtype=torch.uint8)[::2], {"contiguous": True}, "not contiguous"),
        (torch.zeros(2, dtype=torch.bool), {}, "got bool"),
        (np.array([1, np.nan]), {"dtypes": ("float64",), "finite": True}, "not finite, expected finite ones"),
        (np.array([1, np.inf], np.float16), {"dtypes": ("float16",), "finite": True}, "not finite"),
        (OnDevice((0, 3)), {}, "at least one sample"),
    ],
)
def test_what_operations_ask_for(array, asked, message: str) -> None:
    with pytest.raises(ConfigError, match=f"`a` of `thing`: .*{message}"):
        need("thing", "a", array, **{"dtypes": ("uint8",), **asked})


def test_what_they_get_passes() -> None:
    need("thing", "a", None, dtypes=())
    need("thing", "a", HOST, dtypes=("uint8",), ndim=2, shape=(2, 3), contiguous=True, finite=True)
    need("thing", "a", HOST[:0], dtypes=("uint8",), ndim=(1, 2), empty=True)
    need("thing", "a", HOST[:1].T, dtypes=("uint8",), contiguous=True)
    # looking at values on a device would wait for it
    need("thing", "a", OnDevice(dtype="float32"), dtypes=("float32",), finite=True, contiguous=True)
