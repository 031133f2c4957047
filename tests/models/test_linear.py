from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from tilestream.models.linear import Linear, linear  # noqa: E402


@pytest.fixture
def operands():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in ((3, 50, 20), (70, 20), (70,))]


@pytest.mark.parametrize("with_bias", [True, False])
def test_without_gradients_it_is_the_same_map(operands, with_bias):
    x, weight, bias = operands
    bias = bias if with_bias else None
    expected = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    with torch.no_grad():
        for form in (x, x[:, :1], x.transpose(0, 1), x[:0], x[0, 0]):
            assert linear(form, weight, bias).shape == F.linear(form, weight, bias).shape
        found = linear(x, weight, bias)
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(linear(x[:, :1], weight, bias), found[:, :1], atol=1e-5, rtol=0)
        torch.testing.assert_close(linear(x.transpose(0, 1), weight, bias), found.transpose(0, 1), atol=1e-5, rtol=0)
        part = None if bias is None else bias[20:60]
        torch.testing.assert_close(linear(x, weight[20:60], part), found[..., 20:60], atol=1e-5, rtol=0)


def test_gradients_and_types_are_torchs(operands):
    x, weight, bias = operands
    layer, plain = Linear(20, 70), torch.nn.Linear(20, 70)
    plain.load_state_dict(layer.state_dict())
    layer(x).sin().sum().backward()
    plain(x).sin().sum().backward()
    assert torch.equal(layer.weight.grad, plain.weight.grad)
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        assert torch.equal(
            linear(x.double(), weight.double(), bias.double()), F.linear(*(t.double() for t in operands))
        )
        assert linear(x.bfloat16(), weight.bfloat16(), bias.bfloat16()).dtype == torch.bfloat16


def test_a_compiled_graph_and_an_export_go_through_torch(operands):
    layer = Linear(20, 70)
    with torch.no_grad():
        exported = torch.export.export(layer, (operands[0],))
        assert "mkldnn" not in exported.graph_module.code
        torch.testing.assert_close(exported.module()(operands[0]), layer(operands[0]))
