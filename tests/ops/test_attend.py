import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from tilestream.errors import ConfigError
from tilestream.ops.attend import attend


def made(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def oracle(q, k, v, opened, members, weight, scale):
    """The definition in loops, one query at a time, in float64: `opened[b, i]` are the blocks that query i opens."""
    out = torch.zeros(*q.shape[:3], v.shape[3], dtype=torch.float64)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for i in range(q.shape[2]):
                scores, values = [], []
                for block, keys in enumerate(members):
                    w = weight[b, keys].double()
                    mine, theirs = k[b, h, keys].double(), v[b, h, keys].double()
                    if block not in opened[b, i] and w.sum() > 0:
                        mine = (w[:, None] * mine).sum(0, keepdim=True) / w.sum()
                        theirs = (w[:, None] * theirs).sum(0, keepdim=True) / w.sum()
                        w = w.sum()[None]
                    for wj, kj, vj in zip(w, mine, theirs, strict=True):
                        if wj > 0:
                            scores.append(scale * float(q[b, h, i].double() @ kj) + math.log(wj))
                            values.append(vj)
                if scores:
                    p = torch.softmax(torch.tensor(scores, dtype=torch.float64), 0)
                    out[b, h, i] = (p[:, None] * torch.stack(values)).sum(0)
    return out


def chosen(q, k, members, weight, top_k, group, scale):
    """The blocks of each query by the coarse pass, in loops; None where a tie leaves it open."""
    opened = {}
    for b in range(q.shape[0]):
        live = [keys for keys in members if weight[b, keys].sum() > 0]
        for first in range(0, q.shape[2], group):
            mass = torch.zeros(len(members), dtype=torch.float64)
            for h in range(q.shape[1]):
                for i in range(first, min(first + group, q.shape[2])):
                    scores = torch.full((len(members),), -math.inf, dtype=torch.float64)
                    for block, keys in enumerate(members):
                        if not any(keys is other for other in live):
                            continue
                        w = weight[b, keys].double()
                        mean = (w[:, None] * k[b, h, keys].double()).sum(0) / w.sum()
                        scores[block] = scale * float(q[b, h, i].double() @ mean) + math.log(w.sum())
                    if live:
                        mass += torch.softmax(scores, 0)
            best = torch.argsort(mass, descending=True)[:top_k].tolist()
            for i in range(first, min(first + group, q.shape[2])):
                opened[b, i] = set(best)
    return opened


@given(data=st.data())
def test_it_is_the_softmax_of_its_definition(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(sum))
    b, h, queries, d = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2)), data.draw(st.integers(1, 5)), 3
    seed = data.draw(st.integers(0, 999))
    keys = sum(counts)
    q, k, v = made(seed, b, h, queries, d), made(seed + 1, b, h, keys, d), made(seed + 2, b, h, keys, 2)
    index = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    by_index = int(index.max()) < keys and data.draw(st.booleans())
    if by_index:
        index = index[torch.randperm(keys, generator=torch.Generator().manual_seed(seed))]
    blocks = {"block_index": index} if by_index else {"block_counts": counts}
    n = None
    if data.draw(st.booleans()):
        n = (made(seed + 3, b, keys) * 3).clamp(min=0)  # half of the keys are invalid
        n = n if data.draw(st.booleans()) else n[0]
    top_k, group = data.draw(st.integers(0, len(counts) + 1)), data.draw(st.sampled_from([None, 1, 2, 7]))
    members = [torch.nonzero(index == block).flatten() for block in range(len(counts))]
    weight = (torch.ones(keys) if n is None else n).expand(b, keys)
    opened = chosen(q, k, members, weight, top_k, group or queries, d**-0.5)
    expected = oracle(q, k, v, opened, members, weight, d**-0.5)
    arguments = {"top_k": top_k, "n": n, "query_block": group, **blocks}
    torch.testing.assert_close(attend(q, k, v, **arguments), expected, rtol=1e-12, atol=1e-12)
    single = attend(q.float(), k.float(), v.float(), **arguments)
    if top_k in (0, len(counts), len(counts) + 1):  # else rounding may choose another block
        torch.testing.assert_close(single, expected.float(), rtol=1e-5, atol=1e-5)
    assert single.dtype == torch.float32


def test_all_blocks_open_is_full_attention_to_the_bit() -> None:
    q, k, v = made(0, 2, 3, 11, 8), made(1, 2, 3, 20, 8), made(2, 2, 3, 20, 8)
    full = scaled_dot_product_attention(q, k, v)
    for counts in ([20], [4, 16], [1] * 20):
        assert torch.equal(attend(q, k, v, top_k=len(counts), block_counts=counts), full)


def test_invalid_keys_are_left_out_of_full_attention_too() -> None:
    q, k, v = made(0, 2, 3, 11, 8), made(1, 2, 3, 20, 8), made(2, 2, 3, 20, 8)
    valid = torch.arange(20) % 3 > 0
    full = scaled_dot_product_attention(q, k[:, :, valid], v[:, :, valid])
    for top_k in (2, 9):
        found = attend(q, k, v, top_k=top_k, block_counts=[10, 10], n=valid)
        torch.testing.assert_close(found, full, rtol=1e-12, atol=1e-12)
    nothing = attend(q, k, v, top_k=1, block_counts=[10, 10], n=torch.stack([valid, torch.zeros(20).bool()]))
    assert not nothing[1].any()
    assert nothing[0].all()
    assert not attend(q, k, v, top_k=2, block_counts=[10, 10], n=torch.zeros(20)).any()


@pytest.mark.parametrize("top_k", [0, 1, 3])
def test_equal_keys_inside_closed_blocks_lose_nothing(top_k: int) -> None:
    counts = torch.tensor([4, 1, 7, 2])
    k = torch.repeat_interleave(made(0, 2, 2, 4, 5), counts, 2)
    q, v = made(1, 2, 2, 9, 5), made(2, 2, 2, 14, 3)
    found = attend(q, k, v, top_k=top_k, block_counts=counts.tolist())
    torch.testing.assert_close(found, scaled_dot_product_attention(q, k, v), rtol=1e-12, atol=1e-12)


def test_blocks_of_one_key_lose_nothing() -> None:
    q, k, v = made(0, 1, 2, 9, 5), made(1, 1, 2, 6, 5), made(2, 1, 2, 6, 5)
    found = attend(q, k, v, top_k=0, block_counts=[1] * 6)
    torch.testing.assert_close(found, scaled_dot_product_attention(q, k, v), rtol=1e-12, atol=1e-12)


def test_a_coarse_key_given_with_its_n_is_that_many_fine_ones() -> None:
    q, k, v = made(0, 1, 2, 9, 5), made(1, 1, 2, 3, 5), made(2, 1, 2, 3, 5)
    n = torch.tensor([16, 1, 4])
    fine_k, fine_v = torch.repeat_interleave(k, n, 2), torch.repeat_interleave(v, n, 2)
    full = scaled_dot_product_attention(q, fine_k, fine_v)
    for top_k in (2, 3):
        found = attend(q, k, v, top_k=top_k, block_counts=[1, 1, 1], n=n)
        torch.testing.assert_close(found, full, rtol=1e-12, atol=1e-12)


def test_no_block_open_is_attention_over_means_alone() -> None:
    q, k, v = made(0, 1, 2, 9, 5), made(1, 1, 2, 12, 5), made(2, 1, 2, 12, 4)
    means = [a.unflatten(2, (3, 4)).mean(3) for a in (k, v)]
    found = attend(q, k, v, top_k=0, block_counts=[4, 4, 4])
    torch.testing.assert_close(found, scaled_dot_product_attention(q, *means), rtol=1e-12, atol=1e-12)


@given(seed=st.integers(0, 999), spread=st.floats(0, 3), top_k=st.integers(0, 3))
def test_the_error_is_bounded_by_the_spread_of_scores(seed: int, spread: float, top_k: int) -> None:
    blocks, m, d = 4, 5, 6
    k = (made(seed, 1, 1, blocks, 1, d) + spread * made(seed + 1, 1, 1, blocks, m, d)).flatten(2, 3)
    q, v = made(seed + 2, 1, 1, 7, d), made(seed + 3, 1, 1, blocks * m, 2)
    members = list(torch.arange(blocks * m).view(blocks, m))
    opened = chosen(q, k, members, torch.ones(1, blocks * m), top_k, 7, d**-0.5)[0, 0]
    scores = (q @ k.mT)[0, 0].unflatten(1, (blocks, m)) * d**-0.5
    off = (scores - scores.mean(2, keepdim=True)).abs().amax((0, 2))
    delta = max(float(off[block]) for block in range(blocks) if block not in opened)
    bound = math.tanh(delta / 2) * (v.amax((0, 1, 2)) - v.amin((0, 1, 2)))
    error = (attend(q, k, v, top_k=top_k, block_counts=[m] * blocks) - scaled_dot_product_attention(q, k, v)).abs()
    assert bool((error <= bound + 1e-12).all())


def test_the_bound_is_not_idle() -> None:
    """Two keys at +δ and -δ around their mean, one query: the error comes close to what is allowed."""
    delta = 0.5
    k, v = torch.tensor([delta, -delta]).view(1, 1, 2, 1), torch.tensor([1.0, 0.0]).view(1, 1, 2, 1)
    q = torch.ones(1, 1, 1, 1)
    error = attend(q, k, v, top_k=0, block_counts=[2], scale=1.0) - scaled_dot_product_attention(q, k, v, scale=1.0)
    bound = math.tanh(delta / 2)
    assert 0.9 * bound < abs(float(error)) <= bound + 1e-7


def test_the_block_that_matters_is_opened() -> None:
    k, q = made(0, 1, 1, 32, 4) * 0.1, torch.zeros(1, 1, 2, 4)
    k[0, 0, 8:12] += torch.tensor([5.0, 0, 0, 0])
    k[0, 0, 20:24] += torch.tensor([0, 5.0, 0, 0])
    q[0, 0, 0, 0], q[0, 0, 1, 1] = 4, 4
    v = made(1, 1, 1, 32, 3)
    full = scaled_dot_product_attention(q.double(), k, v)
    together = attend(q.double(), k, v, top_k=2, block_counts=[4] * 8)
    torch.testing.assert_close(together, full, rtol=0, atol=1e-2)
    # one block is enough when each query chooses for itself, and not when they choose together
    apart = attend(q.double(), k, v, top_k=1, block_counts=[4] * 8, query_block=1)
    torch.testing.assert_close(apart, full, rtol=0, atol=1e-2)
    one = attend(q.double(), k, v, top_k=1, block_counts=[4] * 8)
    assert (one - full).abs().max() > 5e-2


@pytest.mark.parametrize("top_k", [0, 2, 4])
@pytest.mark.parametrize("query_block", [None, 2])
def test_gradients_are_those_of_differences(top_k: int, query_block: int | None) -> None:
    q, k, v = (made(seed, 1, 2, length, 3).requires_grad_() for seed, length in ((0, 5), (1, 9), (2, 9)))
    n = torch.rand(9, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) + 0.5
    n[3] = 0

    def run(q, k, v, live):
        weight = torch.where(n > 0, live, 0.0)
        return attend(q, k, v, top_k=top_k, block_counts=[3, 1, 4, 1], n=weight, query_block=query_block)

    assert torch.autograd.gradcheck(run, (q, k, v, n.clone().clamp(min=0.1).requires_grad_()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_half_and_close(dtype: torch.dtype) -> None:
    q, k, v = made(0, 1, 2, 40, 8), made(1, 1, 2, 64, 8), made(2, 1, 2, 64, 8)
    exact = attend(q, k, v, top_k=0, block_counts=[8] * 8)
    found = attend(q.to(dtype), k.to(dtype), v.to(dtype), top_k=0, block_counts=[8] * 8)
    assert found.dtype == dtype
    assert (found - exact).abs().max() < 8 * torch.finfo(dtype).eps


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("query_block", [None, 3])
@pytest.mark.parametrize("top_k", [0, 2, 5])
def test_a_device_gives_the_same(top_k: int, query_block: int | None) -> None:
    index = torch.arange(30) % 5
    n = (torch.arange(30) % 4).double()

    def run(device: str) -> list[torch.Tensor]:
        q, k, v = (made(i, 2, 3, length, 8).to(device).requires_grad_() for i, length in enumerate((7, 30, 30)))
        arguments = {"block_index": index.to(device), "n": n.to(device), "query_block": query_block}
        out = attend(q, k, v, top_k=top_k, **arguments)
        out.square().sum().backward()
        return [tensor.detach().cpu() for tensor in (out, q.grad, k.grad, v.grad)]

    for mine, theirs in zip(run("cuda"), run("cpu"), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


Q, K = torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 6, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"q": Q.numpy()}, "`q` of `attend`: got ndarray, expected a tensor"),
        ({"q": Q[0]}, r"`q`.*shape \(2, 3, 4\).*\(b, h, length, d\)"),
        ({"q": Q.int()}, "`q`.*int32.*floating point"),
        ({"q": Q[:, :, :0]}, "none of them 0"),
        ({"k": K.double()}, r"`k`.*float64.*expected torch.float32 on cpu"),
        ({"k": K[..., :3]}, r"`k`.*\(1, 2, 6, 3\).*\(1, 2, 6, 4\)"),
        ({"v": K[:, :, :5]}, r"`v`.*\(1, 2, 5, 4\)"),
        ({"top_k": -1}, "`top_k`.*at least 0"),
        ({"query_block": 0}, "`query_block`.*at least 1"),
        ({"block_counts": [3, 2]}, "`block_counts`: got 2 counts that add up to 5.*the 6 keys"),
        ({"block_counts": [7, -1]}, "`block_counts`.*least -1"),
        ({"block_counts": None}, "both or neither"),
        ({"block_index": torch.zeros(6, dtype=torch.int64)}, "both or neither"),
        ({"block_counts": None, "block_index": torch.zeros(6)}, "`block_index`.*float32.*whole numbers"),
        ({"block_counts": None, "block_index": torch.zeros(5, dtype=torch.int64)}, r"`block_index`.*\(6,\)"),
        ({"block_counts": None, "block_index": torch.full((6,), -1)}, "block -1.*numbers from 0"),
        ({"block_counts": None, "block_index": torch.full((6,), 10**9)}, "numbers below 6"),
        ({"n": torch.ones(5)}, r"`n`.*\(6,\) or \(1, 6\)"),
        ({"n": -torch.ones(6)}, "`n`.*below 0"),
        ({"n": torch.full((6,), torch.nan)}, "`n`.*not finite"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message) -> None:
    wanted = {"q": Q, "k": K, "v": K, "top_k": 1, "block_counts": [3, 3], **arguments}
    with pytest.raises(ConfigError, match=message):
        attend(wanted.pop("q"), wanted.pop("k"), wanted.pop("v"), **wanted)
