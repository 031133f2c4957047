"""A user's callable on the samples of a batch: on the host, or as torch on the device of this process.

On a device three things go on at once: the host decodes a batch, a copy stream sends the one before as it is stored
(uint8 is a quarter of float32), and a compute stream scales and runs the one before that. Vectors come back into pinned
memory, which is waited for only when they are wanted.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from tilestream.cache.device import DeviceKey, OnDevice, device_tiles, make_room, send_once
from tilestream.errors import ConfigError
from tilestream.metrics import spent
from tilestream.types import Array, StageContract

if TYPE_CHECKING:
    import torch

Found = Callable[[], Array]
"""Waits for what a callable has returned and returns it as a NumPy array."""


class Runner(Protocol):
    """Runs one callable on samples `(n, c, h, w)` as they are stored."""

    @property
    def function(self) -> Callable[[], Callable[[Any], Any]]:
        """Return what makes the callable, or returns the one that was made."""

    @property
    def device(self) -> str:
        """Return `cpu`, or the device, such as `cuda:0`."""

    def allocate(self, nbytes: int) -> npt.NDArray[np.uint8]:
        """Return memory that samples are best sent from."""

    def start(self, pixels: Array, key: DeviceKey | None = None) -> Found:
        """Begin with samples that stay as they are until the result was taken; under a key a device may keep them."""


class Once:
    """What a factory makes, made when it is first wanted and once a process.

    Parameters
    ----------
    make : callable
        Called without arguments.
    name : str
        What users call it.
    """

    def __init__(self, make: Callable[[], Any], name: str) -> None:
        self._make = make
        self._name = name
        self._lock = threading.Lock()
        self._made: list[Any] = []

    def __call__(self) -> Any:
        """Return the object; raise `ConfigError` when it cannot be made."""
        with self._lock:
            if not self._made:
                try:
                    self._made.append(self._make())
                except Exception as error:
                    raise ConfigError.of(
                        f"`{self._name}`",
                        got=f"{type(error).__name__}: {error}",
                        expected="an encoder, from a call without arguments",
                        do="Call it so by itself.",
                    ) from error
            return self._made[0]


@dataclass(frozen=True)
class HostRunner:
    """Runs a callable that takes NumPy arrays."""

    function: Callable[[], Callable[[Array], Any]]
    """Returns the callable."""
    contract: StageContract
    """Scaling and type of its samples."""

    @property
    def device(self) -> str:
        """Return `cpu`: what the callable does with the array is its own business."""
        return "cpu"

    def allocate(self, nbytes: int) -> npt.NDArray[np.uint8]:
        """Return plain memory."""
        return np.empty(nbytes, np.uint8)

    def start(self, pixels: Array, key: DeviceKey | None = None) -> Found:
        """Return what the callable has returned; the host has kept the blocks already."""
        function = self.function()
        if is_module(function):
            raise ConfigError.of(
                f"contract of `{self.contract.name}`",
                got="a torch module without `framework`",
                expected="to be told so before it is made",
                do='Add "framework": "torch" to the contract.',
            )
        found = to_numpy(function(scaled(pixels, self.contract)))
        return lambda: found


@dataclass(frozen=True)
class TorchRunner:
    """Runs a callable that takes torch tensors, or a `torch.nn.Module`, where this process computes."""

    function: Callable[[], Callable[[Any], Any]]
    """Returns the callable."""
    contract: StageContract
    """Scaling and type of its samples."""

    @property
    def device(self) -> str:
        """Return `cuda:0` where a CUDA device is visible, else `cpu`: a process has one device."""
        return torch_device()

    def allocate(self, nbytes: int) -> npt.NDArray[np.uint8]:
        """Return pinned memory for a CUDA device: only from such a copy goes on beside the host."""
        import torch

        memory = torch.empty(nbytes, dtype=torch.uint8, pin_memory=self.device != "cpu")
        return np.asarray(memory.numpy())

    def start(self, pixels: Array, key: DeviceKey | None = None) -> Found:
        """Begin with samples; on the CPU this is all of it."""
        import torch

        samples, function = _as_tensor(pixels), self._placed
        with torch.inference_mode():
            if self.device == "cpu":
                with one_torch_thread():
                    found = to_numpy(function(self._scaled(samples)))
                return lambda: found
            compute = partial(self._compute, function)
            try:
                return _start_on_device(samples, self.device, compute, key)
            except torch.OutOfMemoryError:
                if not make_room(self.device):  # tiles that are kept are the first to go
                    raise
            return _start_on_device(samples, self.device, compute, key)

    def _compute(self, function: Callable[[Any], Any], sent: torch.Tensor, is_kept: bool) -> Any:
        """Return what the callable makes of samples; of those that are kept it gets a copy that it may write into."""
        samples = self._scaled(sent)
        return function(samples.clone() if is_kept and samples.data_ptr() == sent.data_ptr() else samples)

    @cached_property
    def _placed(self) -> Callable[[Any], Any]:
        """Return the callable; a module on the device, for inference and in the type of its samples unless it casts."""
        import torch

        function = self.function()
        if not isinstance(function, torch.nn.Module):
            return function
        dtype = None if self.contract.dtype == "source" else torch_type(self.contract.dtype)
        keep = dtype is None or not dtype.is_floating_point or getattr(function, "keeps_type", False)
        return function.eval().to(device=self.device, dtype=None if keep else dtype)

    def _scaled(self, samples: torch.Tensor) -> torch.Tensor:
        """Return the samples as the contract wants them, by the same float32 steps as on the host."""
        import torch

        contract = self.contract
        if contract.scale != 1.0 or contract.mean or contract.std:
            samples = samples.to(torch.float32) * float(np.float32(contract.scale))
            mean, std = self._constants
            if mean is not None:
                samples.sub_(mean)
            if std is not None:
                samples.div_(std)
        return samples if contract.dtype == "source" else samples.to(torch_type(contract.dtype))

    @cached_property
    def _constants(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return mean and standard deviation where it computes; sent with each batch they would make the host wait."""
        import torch

        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=self.device).reshape(1, -1, 1, 1) if values else None
            for values in (self.contract.mean, self.contract.std)
        )
        return mean, std


class _Streams(threading.local):
    """The copy and the compute stream of one thread, by device."""

    def __init__(self) -> None:
        self.by_device: dict[str, tuple[torch.cuda.Stream, torch.cuda.Stream]] = {}

    def of(self, device: str) -> tuple[torch.cuda.Stream, torch.cuda.Stream]:
        import torch

        if device not in self.by_device:
            new = torch.cuda.Stream
            self.by_device[device] = new(device), new(device)  # type: ignore[no-untyped-call]  # torch's own
        return self.by_device[device]


_streams = _Streams()


def _start_on_device(
    samples: torch.Tensor, device: str, compute: Callable[[torch.Tensor, bool], Any], key: DeviceKey | None
) -> Found:
    """Send samples, compute and fetch the result, each in its stream; what is returned waits for the last of it."""
    import torch

    copying, computing = _streams.of(device)
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(4)]  # type: ignore[no-untyped-call]  # torch's own
    tiles = None if key is None else device_tiles(device, lambda: torch.cuda.mem_get_info(device)[0])

    def send() -> OnDevice:
        sent = samples.to(device, non_blocking=True)
        marks[1].record(copying)  # before others may find it
        return OnDevice(sent, marks[1])

    with torch.cuda.stream(copying):
        marks[0].record(copying)
        there, is_kept = send_once(tiles, key, send)
        if there.ready is not marks[1]:
            marks[1].record(copying)
    sent: torch.Tensor = there.samples
    computing.wait_event(there.ready)
    sent.record_stream(computing)  # its memory must not be given away while the other stream reads it
    with torch.cuda.stream(computing):
        found = torch.as_tensor(compute(sent, is_kept)).detach()
        found = found.float() if found.dtype == torch.bfloat16 else found  # NumPy has no such type
        marks[2].record(computing)
        home = torch.empty(found.shape, dtype=found.dtype, pin_memory=True)
        home.copy_(found, non_blocking=True)
        marks[3].record(computing)

    def finished() -> Array:
        marks[3].synchronize()
        spent("transfer", (marks[0].elapsed_time(marks[1]) + marks[2].elapsed_time(marks[3])) / 1000)
        return np.asarray(home.numpy())

    return finished


def is_module(named: Any) -> bool:
    """Return whether an object is a `torch.nn.Module`, or a class of them, without importing torch."""
    torch = sys.modules.get("torch")  # whoever has made a module has imported it
    if torch is None:
        return False
    return issubclass(named if isinstance(named, type) else type(named), torch.nn.Module)


def _as_tensor(pixels: Array) -> torch.Tensor:
    """Return samples as a tensor on their memory, copied only where torch has no such type or layout."""
    import torch

    if not pixels.dtype.isnative:
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))
    if not pixels.flags.writeable or min(pixels.strides, default=0) < 0:
        pixels = pixels.copy()
    return torch.from_numpy(pixels)


@lru_cache(maxsize=1)
def torch_device() -> str:
    """Return where torch computes in this process: `cuda:0` where a device is visible, else `cpu`."""
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def torch_type(name: str) -> torch.dtype:
    """Return torch's type of a name (`float16`, `bfloat16`).

    Parameters
    ----------
    name : str
        As torch and NumPy call it.

    Returns
    -------
    torch.dtype
        The type.

    Raises
    ------
    AttributeError
        When torch has no such type.
    """
    import torch

    found = getattr(torch, name)
    if not isinstance(found, torch.dtype):
        raise AttributeError(f"torch has no type called {name}")
    return found


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Keep torch on the thread that calls it: tasks are what runs in parallel, and sums must not depend on threads."""
    import torch

    outside = _outside()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(outside)


@lru_cache(maxsize=1)
def _outside() -> int:
    import torch

    return torch.get_num_threads()


def scaled(pixels: Array, contract: StageContract) -> Array:
    """Return the samples as the contract wants them; untouched where it wants nothing.

    Parameters
    ----------
    pixels : ndarray
        `(n, c, h, w)` as stored.
    contract : StageContract
        Scale, mean, standard deviation and type.

    Returns
    -------
    ndarray
        Of the contract's type, float32 where that is the source's and something is scaled.
    """
    if contract.scale != 1.0 or contract.mean or contract.std:
        pixels = pixels.astype(np.float32) * np.float32(contract.scale)
        for values, apply in ((contract.mean, np.subtract), (contract.std, np.divide)):
            if values:
                apply(pixels, np.asarray(values, np.float32).reshape(1, -1, 1, 1), out=pixels)
    return pixels if contract.dtype == "source" else pixels.astype(contract.dtype, copy=False)


def to_numpy(found: Any) -> Array:
    """Return the array of a NumPy-like or torch-like result, without importing torch."""
    detach = getattr(found, "detach", None)
    if detach is not None:
        found = detach().cpu()
        if str(getattr(found, "dtype", "")) == "torch.bfloat16":
            found = found.float()  # NumPy has no such type
        found = found.numpy()
    return np.asarray(found)
