"""Bags of vectors: what counts, what does not, and in no order."""

import math

import pytest

torch = pytest.importorskip("torch")

from tilestream.errors import ConfigError, StageError  # noqa: E402
from tilestream.models.aggregators import AGGREGATORS, GatedAttention, MeanPool  # noqa: E402

DIM = 6
FORMS = {
    "mean": ("mean", {}),
    "abmil": ("abmil", {"hidden": 5}),
    "abmil with embedding": ("abmil", {"hidden": 5, "embed": 7}),
    "simlp": ("simlp", {"hidden": 8, "out": 3}),
    "transformer": ("transformer", {"width": 8, "depth": 2, "heads": 2}),
    "transformer with attention": ("transformer", {"width": 8, "depth": 1, "heads": 2, "pool": "attention"}),
}


@pytest.fixture(params=FORMS)
def model(request):
    name, params = FORMS[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return AGGREGATORS[name](DIM, **params).double()


def bags(bags=3, rows=5, seed=0):
    return torch.randn(bags, rows, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0, 0, 1, 0]], dtype=torch.bool)


def test_shapes_and_length(model):
    assert model(bags(), MASK).shape == (3, model.dim)
    assert model.float()(bags().float()).dtype == torch.float32


@pytest.mark.parametrize("training", [True, False])
def test_each_bag_is_the_bag_of_its_rows_that_count(model, training):
    # in inference torch takes another path through its encoder layers
    with torch.set_grad_enabled(training):
        model.train(training)
        x = bags()
        together = model(x, MASK)
        for one, mask, found in zip(x, MASK, together, strict=True):
            torch.testing.assert_close(found, model(one[mask][None])[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1e30])
@pytest.mark.parametrize("training", [True, False])
def test_rows_that_do_not_count_have_no_influence(model, value, training):
    clean, spoiled = bags().requires_grad_(), bags()
    spoiled[~MASK] = value
    spoiled.requires_grad_()
    model.train(training)
    if not training:
        with torch.inference_mode():
            assert torch.equal(model(clean, MASK), model(spoiled, MASK))
        return
    gradients = [torch.autograd.grad(model(x, MASK).square().sum(), [x, *model.parameters()]) for x in (clean, spoiled)]
    for one, other in zip(*gradients, strict=True):
        assert torch.equal(one, other)
        assert one.isfinite().all()
    assert not gradients[1][0][~MASK].any()


def test_the_order_of_rows_has_no_influence(model):
    x, order = bags(rows=9), torch.randperm(9, generator=torch.Generator().manual_seed(1))
    mask = torch.arange(9).expand(3, 9) < torch.tensor([[9], [4], [7]])
    torch.testing.assert_close(model(x[:, order], mask[:, order]), model(x, mask), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(model(x.flip(0), mask), model(x, mask))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("rows", [0, 5])
def test_a_bag_without_rows_is_zeros_and_sends_no_gradient(model, rows, training):
    x = torch.full((2, rows, DIM), math.nan, dtype=torch.float64)
    nothing = torch.zeros(2, rows, dtype=torch.bool)
    with torch.set_grad_enabled(training):
        found = model.train(training)(x, nothing)
    assert found.shape == (2, model.dim)
    assert not found.any()
    if training and found.requires_grad:
        found.sum().backward()
        assert not any(p.grad is not None and p.grad.any() for p in model.parameters())


def test_gradients_reach_every_parameter(model):
    x = bags().requires_grad_()
    model(x, MASK).square().sum().backward()
    assert x.grad[MASK].any(-1).all()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().max() > 1e-9, name


def test_gradients_are_those_of_finite_differences(model):
    x = bags(2, 3).requires_grad_()
    mask = torch.tensor([[True, False, True], [True, True, True]])
    assert torch.autograd.gradcheck(lambda x: model(x, mask), x)


def test_frozen_models_still_pass_gradients_on(model):
    x = bags().requires_grad_()
    model.requires_grad_(False)(x, MASK).square().sum().backward()
    assert x.grad[MASK].any()
    assert all(p.grad is None for p in model.parameters())


def test_state_comes_back_from_a_file(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    with torch.no_grad():
        before = model(bags(), MASK)
        for parameter in model.parameters():
            parameter.add_(1)
    model.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(model(bags(), MASK), before)


def test_mean_is_the_mean():
    x = bags()
    expected = torch.stack([one[mask].mean(0) for one, mask in zip(x, MASK, strict=True)])
    torch.testing.assert_close(MeanPool(DIM)(x, MASK), expected)
    assert not list(MeanPool(DIM).parameters())


@pytest.mark.parametrize("embed", [None, 4])
def test_attention_weighs_rows_by_the_papers_formula(embed):
    model = GatedAttention(DIM, hidden=3, embed=embed).double()
    x = bags()
    model.requires_grad_(False)
    attention = model.forward_attention(x, MASK)
    for b in range(3):
        rows = [k for k in range(5) if MASK[b, k]]
        h = [x[b, k] if embed is None else torch.relu(model.embed[0](x[b, k])) for k in rows]
        scores = [
            (model.score.weight[0] * torch.tanh(model.content(one)) * torch.sigmoid(model.gate(one))).sum() for one in h
        ]
        total = sum(math.exp(s) for s in scores)
        expected = [math.exp(s) / total for s in scores]
        assert attention[b, rows].tolist() == pytest.approx(expected)
        assert not attention[b, ~MASK[b]].any()
        vector = sum(a * one for a, one in zip(expected, h, strict=True))
        torch.testing.assert_close(model(x, MASK)[b], vector)
    assert not model.forward_attention(x, torch.zeros_like(MASK)).any()


@pytest.mark.parametrize(
    ("x", "mask", "named"),
    [
        (torch.zeros(2, 3, DIM + 1), None, r"\(bags, rows, 6\)"),
        (torch.zeros(3, DIM), None, r"\(bags, rows, 6\)"),
        (torch.zeros(2, 3, DIM), torch.ones(2, 4, dtype=torch.bool), r"torch.bool of shape \(2, 3\)"),
        (torch.zeros(2, 3, DIM), torch.ones(2, 3), "torch.bool of shape"),
    ],
)
def test_bags_of_another_form_are_refused(model, x, mask, named):
    with pytest.raises(StageError, match=named):
        model(x.double(), mask)


@pytest.mark.parametrize(
    ("params", "named"), [({"pool": "max"}, "`cls` or `attention`"), ({"width": 7}, "multiple of 4 heads")]
)
def test_transformers_that_cannot_be_made_are_refused(params, named):
    with pytest.raises(ConfigError, match=named):
        AGGREGATORS["transformer"](DIM, **params)
