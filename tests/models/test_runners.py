"""Callables of torch, modules and factories, on the device of the process."""

import json
import sys
import threading
from contextlib import nullcontext
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from tests.models.test_handcrafted import batch_of, image_of
from tilestream.cache import device
from tilestream.errors import ConfigError, StageError
from tilestream.metrics import collect
from tilestream.models import runners
from tilestream.models.adapter import adapt
from tilestream.models.runners import torch_device
from tilestream.types import DeviceStage, StageContract

torch = pytest.importorskip("torch")

PIXELS = np.moveaxis(np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8), 3, 1)
SCALING = {"scale": 1 / 255, "mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3]}


@pytest.fixture(autouse=True)
def small_networks_on_one_thread() -> None:
    """Leave torch as it is: which threads it has is tested here."""


@pytest.fixture
def user(monkeypatch):
    """A module of a user's, in which tests put callables."""
    module = ModuleType("users_model")
    monkeypatch.setitem(sys.modules, "users_model", module)
    return module


def bind(target="encode", **params):
    """Make a stage the way workers do, through JSON."""
    spec = adapt(f"users_model:{target}", **params).for_image(image_of())
    return adapt(**json.loads(json.dumps(dict(spec.params))))


def flat(pixels):
    return pixels.reshape(len(pixels), -1)


class Model(torch.nn.Module):
    """A small model whose weights are its own."""

    contract = StageContract(name="model", px=16, dim=4, framework="torch", scale=1 / 255, mean=(0.5,), std=(0.1,))
    made = 0

    def __init__(self):
        super().__init__()
        Model.made += 1
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.nn.Parameter(torch.randn(4, 3 * 16 * 16, generator=generator))
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, samples):
        return self.dropout(torch.nn.functional.linear(samples.flatten(1), self.weight))


def test_a_torch_callable_gets_tensors_scaled_to_the_same_bits_as_on_the_host(user):
    seen = []
    user.encode = lambda samples: seen.append(samples) or flat(samples)
    host = bind(px=16, **SCALING)(batch_of(PIXELS))
    assert isinstance(seen[-1], np.ndarray)
    found = bind(px=16, framework="torch", **SCALING)(batch_of(PIXELS))
    assert seen[-1].device.type == torch_device().partition(":")[0]
    assert seen[-1].is_contiguous(memory_format=torch.channels_last)
    assert_array_equal(found, host)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "int16", "float32", "float64"])
def test_samples_of_any_type_reach_torch_and_stay_as_they_are(user, dtype):
    user.encode = lambda samples: flat(samples.float())
    pixels = np.moveaxis(np.arange(2 * 4 * 4 * 3).reshape(2, 4, 4, 3).astype(dtype), 3, 1)
    before = pixels.copy()
    for params in ({}, {"scale": 0.5, "mean": [1.0]}):
        found = bind(px=4, framework="torch", **params)(batch_of(pixels))
        assert_array_equal(found, flat(pixels.astype("f4") * params.get("scale", 1) - params.get("mean", [0])[0]))
        assert_array_equal(pixels, before)


def test_memory_that_cannot_be_written_or_runs_backwards_is_taken_too(user):
    user.encode = lambda samples: flat(samples.float())
    stage = bind(px=16, framework="torch")
    frozen = PIXELS.copy()
    frozen.flags.writeable = False
    assert_array_equal(stage(batch_of(frozen)), flat(PIXELS))
    assert_array_equal(stage(batch_of(PIXELS[:, ::-1])), flat(PIXELS[:, ::-1]))


def test_a_module_is_run_for_inference_and_is_known_as_torch(user):
    user.encode = Model()
    del user.encode.dropout
    user.encode.dropout = lambda values: torch.nn.functional.dropout(values, training=user.encode.training)
    assert bind().contract.is_model
    first, second = bind()(batch_of(PIXELS)), bind()(batch_of(PIXELS))
    assert_array_equal(first, second)
    assert not user.encode.training


def test_a_class_is_made_once_a_process_and_not_before_it_is_used(user):
    user.Encoder = Model
    Model.made = 0
    stage = bind("Encoder")
    assert stage.contract.is_model
    assert Model.made == 0
    results = []
    threads = [threading.Thread(target=lambda: results.append(stage(batch_of(PIXELS)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Model.made == 1
    assert all(np.array_equal(result, results[0]) for result in results)


def test_a_function_without_parameters_makes_the_encoder(user):
    def make():
        return lambda pixels: pixels.mean(axis=(2, 3))

    make.contract = {"px": 16, "name": "made"}
    user.make = make
    assert_array_equal(bind("make")(batch_of(PIXELS)), PIXELS.mean(axis=(2, 3)).astype("f4"))


def test_half_precision_is_that_of_the_module_too(user):
    user.Encoder = Model
    stage = bind("Encoder", dtype="bfloat16")
    assert np.isfinite(stage(batch_of(PIXELS))).all()


def test_what_cannot_be_met_is_refused(user, monkeypatch):
    user.encode = lambda samples: samples
    with pytest.raises(ConfigError, match=r"got framework `jax`, expected `numpy` or `torch`"):
        bind(px=16, framework="jax")
    with pytest.raises(ConfigError, match="float17"):
        bind(px=16, framework="torch", dtype="float17")

    def make():
        raise FileNotFoundError("weights.pt")

    make.contract = {"px": 16}
    user.make = make
    with pytest.raises(ConfigError, match=r"`users_model:make`: got FileNotFoundError: weights.pt"):
        bind("make")(batch_of(PIXELS))
    undeclared = lambda: Model()  # noqa: E731
    undeclared.contract = {"px": 16}
    user.undeclared = undeclared
    with pytest.raises(ConfigError, match='Add "framework": "torch"'):
        bind("undeclared")(batch_of(PIXELS))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install -e '.\[torch\]'"):
        bind(px=16, framework="torch")


def test_wrong_vectors_are_refused_as_on_the_host(user):
    user.encode = lambda samples: samples.float().mean()
    with pytest.raises(StageError, match=r"output of `encode`.*shape \(\)"):
        bind(px=16, framework="torch")(batch_of(PIXELS))


def test_torch_keeps_to_the_thread_that_calls_it_and_gives_the_others_back(user, monkeypatch):
    seen = []
    user.encode = lambda samples: seen.append(torch.get_num_threads()) or flat(samples.float())
    before = torch.get_num_threads()
    monkeypatch.setattr("tilestream.models.runners._outside", lambda: 3)
    torch.set_num_threads(3)
    try:
        bind(px=16, framework="torch")(batch_of(PIXELS))
        after = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    assert after == 3
    if torch_device() == "cpu":
        assert seen == [1]


def test_stages_can_be_started_and_waited_for(user):
    user.encode = lambda samples: flat(samples.float())
    stage = bind(px=16, framework="torch")
    assert isinstance(stage, DeviceStage)
    memory = stage.allocate(PIXELS.nbytes)
    assert memory.dtype == np.uint8
    assert memory.shape == (PIXELS.nbytes,)
    pixels = np.moveaxis(memory.reshape(5, 16, 16, 3), 3, 1)
    pixels[...] = PIXELS
    assert_array_equal(stage.start(batch_of(pixels))(), flat(PIXELS))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_device_many_batches_may_be_under_way(user):
    user.encode = lambda samples: flat(samples).double().cumsum(1)[:, ::64]
    stage = bind(px=16, framework="torch", **SCALING)
    assert stage.device == "cuda:0"
    rng = np.random.default_rng(2)
    memories = [stage.allocate(64 * PIXELS[0].nbytes).reshape(64, 16, 16, 3) for _ in range(3)]
    mean, std = (np.float32(SCALING[name]) for name in ("mean", "std"))
    with collect() as meter:
        for _ in range(20):
            for memory in memories:
                memory[...] = rng.integers(0, 256, memory.shape, dtype=np.uint8)
            pending = [stage.start(batch_of(np.moveaxis(memory, 3, 1))) for memory in memories]
            for found, memory in zip(pending, memories, strict=True):
                expected = np.moveaxis((memory * np.float32(1 / 255) - mean) / std, 3, 1)
                expected = flat(expected).astype("f8").cumsum(1)[:, ::64]
                np.testing.assert_allclose(found(), expected, rtol=1e-4, atol=1e-2)
    assert meter.seconds["transfer"] > 0


class FakeEvent:
    """A mark in a stream that does all at once."""

    def __init__(self, enable_timing=False):
        self.recorded = False

    def record(self, stream):
        self.recorded = True

    def elapsed_time(self, other):
        assert self.recorded
        assert other.recorded
        return 0.0

    def synchronize(self):
        assert self.recorded


class FakeStream:
    def __init__(self, device):
        pass

    def wait_event(self, event):
        assert event.recorded


@pytest.fixture
def fake_cuda(monkeypatch):
    """What the device path calls, on the memory of the host: for its order, not for its speed."""
    empty = torch.empty
    fakes = {"Event": FakeEvent, "Stream": FakeStream, "stream": lambda stream: nullcontext()}
    for name, fake in {**fakes, "mem_get_info": lambda device: (1 << 30, 1 << 31)}.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch, "empty", lambda *args, pin_memory=False, **kwargs: empty(*args, **kwargs))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    monkeypatch.setattr(torch.Tensor, "to", sent_to(torch.Tensor.to))
    monkeypatch.setattr(runners, "torch_device", lambda: "meta:0")
    monkeypatch.setattr(runners, "_streams", runners._Streams())
    monkeypatch.setattr(device, "_tiers", {})


def sent_to(to):
    def move(tensor, *args, **kwargs):
        if args == ("meta:0",):
            return tensor.clone()
        return to(tensor, *args, **kwargs)

    return move


def send_some(user) -> None:
    user.encode = lambda samples: flat(samples.add_(1).float())  # in place, on samples as they are stored
    stage = bind(px=16, framework="torch")
    batch = replace(batch_of(PIXELS.copy()), source="an image in its state")
    with collect() as meter:
        found = [stage.start(batch)() for _ in range(3)]
    for one in found:
        assert_array_equal(one, flat(PIXELS + 1))
    assert meter.counts["cache.device.hits"] == 2
    other = replace(batch_of(PIXELS[::-1].copy()), source="another image")
    assert_array_equal(stage.start(other)(), flat(PIXELS[::-1] + 1))
    batch = batch_of(PIXELS.copy())  # which nobody may keep
    assert_array_equal(stage.start(batch)(), flat(PIXELS + 1))


def test_tiles_are_sent_once_and_nobody_writes_into_them(user, fake_cuda):
    send_some(user)


def test_tiles_that_are_kept_are_the_first_to_go_when_memory_is_short(user, fake_cuda):
    batch = replace(batch_of(PIXELS.copy()), source="an image in its state")
    user.encode = lambda samples: flat(samples.float())
    expected = bind(px=16, framework="torch").start(batch)()
    kept = device.device_tiles("meta:0", lambda: 0)
    assert kept.held_bytes

    def greedy(samples):
        if kept.held_bytes:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return flat(samples.float())

    user.greedy = greedy
    assert_array_equal(bind("greedy", px=16, framework="torch").start(batch)(), expected)
    assert kept.held_bytes == 0  # and none are kept from now on

    def never(samples):
        raise torch.OutOfMemoryError("CUDA out of memory")

    user.never = never
    with pytest.raises(torch.OutOfMemoryError):
        bind("never", px=16, framework="torch").start(batch)()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_device_tiles_are_sent_once_and_nobody_writes_into_them(user):
    send_some(user)
