"""`tilestream::downsample` against the kernel, its gradients against differences, and what torch asks of operations."""

import pytest
import torch
from numpy.testing import assert_array_equal

from tilestream.errors import ConfigError
from tilestream.kernels.fir import FILTERS
from tilestream.kernels.mip import mip_levels
from tilestream.ops.downsample import downsample


def noise(shape, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("shape", [(1, 3), (5, 6), (2, 9, 7)])
@pytest.mark.parametrize("filter", FILTERS)
def test_gradients_are_those_of_differences(shape, filter) -> None:
    a = noise(shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: tuple(downsample(t, filter=filter, levels=2)), (a,))


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize("filter", ["binomial", "lanczos"])
def test_gradients_of_valid_pixels(filter, share) -> None:
    a = noise((1, 2, 9, 8))
    a[0, 0, 2, 2] = torch.nan
    valid = torch.rand((1, 9, 8), generator=torch.Generator().manual_seed(1)) < share
    valid[:, 2, 2] = False  # differences of what is not finite are none
    assert torch.autograd.gradcheck(
        lambda t: tuple(downsample(t, valid, filter=filter, levels=2)), (a.requires_grad_(),)
    )


def test_what_is_not_finite_gets_no_gradient() -> None:
    a = noise((1, 6, 6))
    a[0, 1, 1] = torch.inf
    a.requires_grad_()
    downsample(a, filter="lanczos")[0].sum().backward()
    assert a.grad[0, 1, 1] == 0
    assert bool(torch.isfinite(a.grad).all())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_levels_are_those_of_the_kernel(dtype) -> None:
    a, valid = (noise((2, 3, 21, 34)) * 50).abs().to(dtype), noise((2, 21, 34)) > -1
    got = downsample(a, valid, filter="kaiser", levels=3)
    for level, expected in zip(got, mip_levels(a.numpy(), valid.numpy(), levels=3, filter="kaiser"), strict=True):
        assert_array_equal(level, expected.pixels)


@pytest.mark.parametrize("masked", [False, True])
def test_torch_finds_nothing_to_object_to(masked) -> None:
    a, valid = noise((2, 3, 9, 12)), noise((2, 9, 12)) > 0 if masked else None
    torch.library.opcheck(torch.ops.tilestream.downsample.default, (a.requires_grad_(), valid, "lanczos"))
    gradient = torch.ones(2, 3, 5, 6, dtype=torch.float64)
    torch.library.opcheck(torch.ops.tilestream.downsample_backward.default, (gradient, a.detach(), valid, "lanczos"))


@pytest.mark.parametrize(
    ("a", "keywords", "message"),
    [
        ([[1.0]], {}, "`a` of `downsample`"),
        (torch.ones(4, 4), {"filter": "sinc"}, "'sinc'"),
        (torch.ones(4, 4), {"levels": 1.5}, "`levels`"),
        (torch.zeros(4, 4, dtype=torch.float16, requires_grad=True), {}, "float16.*gradient"),
    ],
)
def test_what_cannot_be_reduced_is_refused(a, keywords, message) -> None:
    with pytest.raises(ConfigError, match=message):
        downsample(a, **keywords)
