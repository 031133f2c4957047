from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tilestream.models.halftype import HalfType  # noqa: E402
from tilestream.models.runners import TorchRunner  # noqa: E402
from tilestream.types import StageContract  # noqa: E402


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_runner_leaves_the_weights_in_float32(dtype):
    torch.manual_seed(0)
    seen = []
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5))
    network[1].register_forward_hook(lambda module, given, found: seen.append((module.weight.dtype, found.dtype)))
    contract = StageContract(name="half", px=2, framework="torch", dtype=dtype, scale=1 / 255, mean=(0.5,), std=(0.5,))
    runner = TorchRunner(lambda: HalfType(network, getattr(torch, dtype)), contract)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 2, 2), np.uint8)
    found = runner.start(pixels)()
    assert found.dtype == np.float32
    assert seen == [(torch.float32, getattr(torch, dtype))]
    exact = TorchRunner(lambda: network, StageContract(**{**vars(contract), "dtype": "float32"})).start(pixels)()
    np.testing.assert_allclose(found, exact, atol=0.02)
    assert not np.array_equal(found, exact)
