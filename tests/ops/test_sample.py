import pytest
import torch

from tests.kernels.answers import ON_CUDA
from tilestream.errors import ConfigError
from tilestream.ops.sample import sample

DEVICE = "cuda" if ON_CUDA else "cpu"


def inputs(dtype=torch.float64, grid=(6,), channels=(3,)):
    """Odd levels, and positions and levels away from the kinks."""
    torch.manual_seed(0)
    sizes = ((7, 9), (4, 5), (2, 2))
    levels = [torch.rand(*channels, *size, dtype=torch.float64).to(dtype).to(DEVICE) for size in sizes]
    at = torch.rand(*grid, 2, dtype=torch.float64) * torch.tensor([8.0, 10.0]) - 0.7
    level = torch.rand(*grid, dtype=torch.float64) * 3.6 - 0.8
    real = dtype if dtype.is_floating_point and dtype != torch.float16 else torch.float32
    return levels, at.to(DEVICE, real), level.to(DEVICE, real)


@pytest.mark.parametrize("grid", [(6,), (2, 3)])
@pytest.mark.parametrize("channels", [(3,), ()])
def test_gradients_are_those_of_finite_differences(grid, channels) -> None:
    levels, at, level = inputs(grid=grid, channels=channels)
    for tensor in (*levels, at, level):
        tensor.requires_grad_()

    def work(at, level, *levels):
        return sample(levels, at, level, origin_yx=(0, 0))

    assert torch.autograd.gradcheck(work, (at, level, *levels), nondet_tol=1e-12 if ON_CUDA else 0.0)


def test_it_is_a_proper_operation() -> None:
    levels, at, level = inputs()
    tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(torch.ops.tilestream.sample, (levels, at, level, [0, 0]), test_utils=tests)
    wanting = [tensor.clone().requires_grad_() for tensor in (*levels, at, level)]
    torch.library.opcheck(torch.ops.tilestream.sample, (wanting[:3], *wanting[3:], [1, -2]), test_utils=tests)
    grad = torch.rand(3, 6, dtype=torch.float64, device=DEVICE)
    for backward in (torch.ops.tilestream.sample_slopes, torch.ops.tilestream.sample_scatter):
        torch.library.opcheck(backward, (grad, levels, at, level, [0, 0]), test_utils=tests)


def test_values_are_those_of_grid_sample() -> None:
    levels, at, _ = inputs(torch.float32, grid=(4, 5))
    for k, each in enumerate(levels):
        size = torch.tensor(levels[0].shape[1:], device=DEVICE)
        grid = (at / size * 2 - 1).flip(-1)[None]
        expected = torch.nn.functional.grid_sample(each[None], grid, padding_mode="border", align_corners=False)[0]
        torch.testing.assert_close(sample(levels, at, k), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
def test_what_is_not_wanted_is_not_computed(dtype) -> None:
    levels, at, level = inputs(dtype)
    at.requires_grad_()
    result = sample(levels, at, level)
    assert result.dtype == torch.float32
    result.sum().backward()
    assert at.grad is not None
    assert level.grad is None
    if dtype.is_floating_point:
        levels[1].requires_grad_()
        sample(levels, at.detach(), 0.75).sum().backward()
        assert levels[1].grad.dtype == dtype
        torch.testing.assert_close(levels[1].grad.sum().item(), 3 * 6 * 0.75, rtol=2e-3, atol=0)
        assert levels[0].grad is None


def test_same_bits_each_time_on_the_cpu() -> None:
    torch.manual_seed(0)
    grads = []
    level_0 = torch.rand(3, 5, 5)
    at = torch.rand(5000, 2) * 5
    for _ in range(2):
        leaf = level_0.clone().requires_grad_()
        sample([leaf], at, 0).square().sum().backward()
        grads.append(leaf.grad)
    assert torch.equal(*grads)


def test_outside_and_beyond_the_last_level_nothing_changes() -> None:
    levels, *_ = inputs()
    at = torch.tensor([[-3.0, 4.0], [99.0, 4.0], [3.0, -1.0]], dtype=torch.float64, device=DEVICE, requires_grad=True)
    level = torch.tensor([-0.5, 2.0, 7.0], dtype=torch.float64, device=DEVICE, requires_grad=True)
    sample(levels, at, level).sum().backward()
    assert at.grad[0, 0] == at.grad[1, 0] == at.grad[2, 1] == 0
    assert at.grad[0, 1] != 0
    assert not level.grad.any()


def test_what_is_no_tensor_is_refused() -> None:
    levels, at, level = inputs()
    with pytest.raises(ConfigError, match="`at_yx` of `sample`: got ndarray"):
        sample(levels, at.cpu().numpy(), level)
    with pytest.raises(ConfigError, match=r"`levels\[0\]` of `sample`: got list"):
        sample([[1.0]], at, level)
    with pytest.raises(ConfigError, match="last axis of 2"):
        sample(levels, torch.zeros(3, 3, device=DEVICE), 0)
