"""`tilestream::mip` against sums in torch, its gradients against differences, and what torch asks of operations."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from tilestream.errors import ConfigError
from tilestream.kernels.mip import mip as mip_kernel
from tilestream.ops.mip import mip

SHAPES = [(1, 3), (5, 6), (2, 9, 7), (2, 3, 6, 5)]


def noise(shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("restart", [1, 2, 4])
def test_gradients_are_those_of_differences(shape, restart) -> None:
    a = noise(shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: tuple(mip(t, restart=restart)), (a,))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("restart", [1, 4])
def test_gradients_of_valid_pixels(shape, restart) -> None:
    a = noise(shape).requires_grad_()
    valid = noise((*shape[:-3], *shape[-2:])) > 0
    assert torch.autograd.gradcheck(lambda t: tuple(mip(t, valid, restart=restart)), (a,))


def test_what_is_not_finite_gets_no_gradient() -> None:
    a = torch.ones(1, 4, 4)
    a[0, 0, 0] = torch.nan
    a.requires_grad_()
    mip(a)[0].sum().backward()
    third = torch.tensor(1 / 3)
    assert_array_equal(a.grad[0, :2, :2], torch.stack([torch.stack([third * 0, third]), torch.stack([third, third])]))
    assert_array_equal(a.grad[0, 2:], 0.25)


def test_a_level_that_nobody_asks_for_adds_nothing() -> None:
    a = noise((3, 8, 8)).requires_grad_()
    mip(a)[1].sum().backward()
    assert_array_equal(a.grad, 1 / 16)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.float16, torch.float32, torch.float64])
def test_levels_are_those_of_the_kernel(dtype) -> None:
    a = (noise((2, 3, 21, 34)) * 50).abs().to(dtype)
    for tensor in (a, a.to(memory_format=torch.channels_last), a[..., ::2]):
        for got, expected in zip(mip(tensor), mip_kernel(tensor.numpy()), strict=True):
            assert got.dtype == dtype
            assert_array_equal(got, expected)
            assert got.stride(1) == 1 or tensor.stride(1) != 1


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("masked", [False, True])
def test_torch_finds_nothing_to_object_to(dtype, masked) -> None:
    a = (noise((2, 3, 9, 12)) * 50).abs().to(dtype)
    valid = noise((2, 9, 12)) > 0 if masked else None
    for tensor in (a, a.to(memory_format=torch.channels_last)):
        given = tensor.clone(memory_format=torch.preserve_format).requires_grad_(dtype.is_floating_point)
        torch.library.opcheck(torch.ops.tilestream.mip.default, (given, valid, 4, 2))
    if dtype.is_floating_point:
        gradients = [torch.ones_like(level) for level in mip(a, levels=3)]
        torch.library.opcheck(torch.ops.tilestream.mip_backward.default, (gradients, a, valid, 2))


def test_integers_have_no_gradient() -> None:
    assert not any(level.requires_grad for level in mip(torch.zeros(4, 4, dtype=torch.uint8)))
    with pytest.raises(ConfigError, match=r"float16.*gradient"):
        mip(torch.zeros(4, 4, dtype=torch.float16, requires_grad=True))


def test_one_pixel_has_no_levels() -> None:
    assert mip(torch.zeros(1, 1)) == []


def test_large_gradients_are_split_over_threads() -> None:
    a = torch.zeros(3, 300, 501, requires_grad=True)
    sum(level.sum() for level in mip(a)).backward()
    # every level is a mean, so the gradients of a level sum to its size
    total = sum(int(np.prod(level.shape)) for level in mip(a.detach()))
    assert float(a.grad.double().sum()) == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize(
    ("a", "levels", "name"),
    [
        (np.ones((4, 4)), None, "a"),
        (torch.ones(4, 4), 2**31, "levels"),
        (torch.ones(4, 4), -1, "levels"),
        (torch.ones(4, 4), 1.5, "levels"),
    ],
)
def test_what_is_no_tensor_or_no_number_of_levels_is_refused(a: object, levels: object, name: str) -> None:
    with pytest.raises(ConfigError, match=f"`{name}` of `mip`: got "):
        mip(a, levels=levels)
