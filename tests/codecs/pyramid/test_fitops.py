"""Kernels of a fit compute what plain operations of torch do, and so do their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tilestream.codecs.pyramid import fitops
from tilestream.codecs.pyramid.model import PyramidModel, PyramidShape
from tilestream.types import Shape

Form = Callable[..., torch.Tensor]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def alike(
    host: Callable[..., torch.Tensor],
    plain: Callable[..., torch.Tensor],
    leaves: Sequence[torch.Tensor],
    *,
    rtol: float,
) -> None:
    """Compare values and gradients of two forms, in units of the largest absolute term."""
    found = []
    for form in (host, plain):
        given = [leaf.detach().requires_grad_() for leaf in leaves]
        out = form(*given)
        upstream = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view(out.shape)
        found.append((out.detach(), *torch.autograd.grad(out, given, upstream)))
    for one, other in zip(*found, strict=True):
        scale = float(other.abs().max()) * max(1.0, np.sqrt(max(leaf.numel() for leaf in leaves)))
        assert float((one - other).abs().max()) <= rtol * scale


@pytest.fixture(params=TOLERANCE, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    torch.manual_seed(0)
    return request.param


@pytest.mark.parametrize(("coarse", "fine"), [((5, 4), (9, 8)), ((1, 1), (2, 1)), ((1, 3), (1, 5)), ((8, 9), (16, 18))])
def test_raised(dtype: torch.dtype, coarse: tuple[int, int], fine: tuple[int, int]) -> None:
    leaves = (torch.randn(3, *coarse, dtype=dtype), torch.randn(4, dtype=dtype))
    forms = [lambda grids, taps, form=form: form(grids, taps, fine) for form in (fitops.raised, fitops.raised_plain)]
    alike(*forms, leaves, rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("shape", [(3, 7, 5), (1, 1, 1), (2, 3, 300), (4, 2, 1)])
def test_convolved(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    channels = shape[0]
    leaves = (torch.randn(shape), torch.randn(channels, channels, 3, 3), torch.randn(channels))
    given = [leaf.to(dtype) for leaf in leaves]
    alike(fitops.convolved, fitops.convolved_plain, given, rtol=TOLERANCE[dtype])


@pytest.mark.parametrize(("grids", "hidden", "channels", "count"), [(7, 16, 3, 600), (1, 2, 1, 1), (4, 5, 6, 256)])
def test_mixed(dtype: torch.dtype, grids: int, hidden: int, channels: int, count: int) -> None:
    sizes = [(grids, count), (hidden, grids), (hidden, 1), (channels, hidden), (channels, grids), (channels, 1)]
    leaves = [torch.randn(size, dtype=dtype) for size in sizes]
    forms = [
        lambda *given, form=form: form(given[0], given[1:3], given[3:]) for form in (fitops.mixed, fitops.mixed_plain)
    ]
    alike(*forms, leaves, rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("spread", [0.3, 3.0, 40.0])
def test_priced(dtype: torch.dtype, spread: float) -> None:
    model = PyramidModel(PyramidShape(scales=4, context=5), Shape(y=21, x=18))
    layers = [part.detach().to(dtype) for net in model.context for part in net.layers]
    layers = [part + 0.1 * torch.randn_like(part) for part in layers]
    numbers = spread * torch.randn(len(model.numbers), dtype=dtype)

    def form(which: Callable[..., torch.Tensor], numbers: torch.Tensor, *parts: torch.Tensor) -> torch.Tensor:
        nets = [parts[start : start + 6] for start in range(0, len(parts), 6)]
        return which(numbers, nets, model.neighbours)

    alike(
        lambda *given: form(fitops.priced, *given),
        lambda *given: form(fitops.priced_plain, *given),
        (numbers, *layers),
        rtol=TOLERANCE[dtype],
    )
