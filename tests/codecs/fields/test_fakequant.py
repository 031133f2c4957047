import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tilestream.codecs.entropy import encode_codes
from tilestream.codecs.fields.fakequant import fake_quantise, noisy, rate_bits, scales_each
from tilestream.codecs.quantise import largest_code, quantise

STARTS = (0, 500, 500, 800)


@pytest.fixture
def values():
    random = np.random.default_rng(3)
    return (random.laplace(size=2000) * np.repeat([1e-3, 1, 30], [500, 300, 1200])).astype(np.float32)


@pytest.mark.parametrize("bits", [2, 4, 8, 12])
def test_values_are_those_of_the_file(values, bits):
    tensor = torch.from_numpy(values)
    found = fake_quantise(tensor, scales_each(tensor, STARTS, bits), bits)
    assert (found.numpy() == quantise(values, STARTS, bits).values()).all()


def test_gradients_pass_within_the_range():
    values = torch.tensor([-50.0, -1.3, 0.2, 1.0, 6.9, 50.0], requires_grad=True)
    scales = torch.full((6,), 2.0, requires_grad=True)
    fake_quantise(values, scales, 4).sum().backward()
    assert values.grad.tolist() == [0, 1, 1, 1, 1, 0]
    steps = values.detach() / 2
    rounding = (steps.round() - steps).tolist()
    most = largest_code(4)
    assert scales.grad.tolist() == pytest.approx([-most, *rounding[1:5], most], abs=1e-6)


def test_one_scale_serves_a_group():
    values, scale = torch.linspace(-1, 1, 11), torch.tensor(0.1, requires_grad=True)
    assert torch.allclose(fake_quantise(values, scale, 8), values, atol=1e-6)


def test_noise_is_that_of_a_step():
    scales = torch.tensor([0.5, 4.0])[:, None]
    found = noisy(torch.zeros(2, 4000), scales, torch.Generator().manual_seed(1)) / scales
    assert found.abs().max() <= 0.5
    assert found.std(dim=1).tolist() == pytest.approx([12**-0.5] * 2, rel=0.05)


@pytest.mark.parametrize("spread", [0.2, 0.6, 2.0, 20.0])
@pytest.mark.parametrize("shape", ["laplace", "normal"])
def test_bits_are_about_those_of_the_coder(spread, shape):
    steps = getattr(np.random.default_rng(5), shape)(scale=spread, size=30_000).astype(np.float32)
    told = float(rate_bits(torch.from_numpy(steps), (0, 10_000)))
    coded = 8 * len(encode_codes(np.rint(steps).astype(np.int16), (0, 10_000)))
    assert told == pytest.approx(coded, rel=0.45 if spread < 0.5 else 0.1)


def test_bits_fall_where_values_shrink():
    steps = torch.randn(400, generator=torch.Generator().manual_seed(2), dtype=torch.float64).mul(5)
    steps.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda x: rate_bits(x, (0, 100)), (steps[::8].detach().requires_grad_(True),))
    first = rate_bits(steps)
    first.backward()
    assert (steps.grad * steps >= 0).all()
    assert rate_bits(steps.detach() / 4) < first - 1.5 * 400


def test_nothing_costs_nothing_and_stays_finite():
    steps = torch.zeros(64, requires_grad=True)
    bits = rate_bits(steps, (0, 0, 64))
    bits.backward()
    assert 0 <= float(bits.detach()) < 1e-3
    assert torch.isfinite(steps.grad).all()
    extreme = torch.tensor([0.0, 1e-4, 3e4], requires_grad=True)
    rate_bits(extreme).backward()
    assert torch.isfinite(extreme.grad).all()
