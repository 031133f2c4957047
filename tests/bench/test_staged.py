"""Staged dropping against its definition, on a transformer of four small blocks."""

import pytest

torch = pytest.importorskip("torch")


def network(depth: int = 4):
    from tilestream.models.vit import Block

    torch.manual_seed(3)
    return [Block(16, 2, mlp_ratio=2.0, eps=1e-6).eval() for _ in range(depth)]


def tokens(n: int = 3, t: int = 32):
    return torch.rand((n, 1 + t, 16), generator=torch.Generator().manual_seed(5))


def test_keeping_all_is_the_plain_pass() -> None:
    from tests.bench.staged import staged

    blocks, x = network(), tokens()
    with torch.inference_mode():
        found = staged(blocks, x, keep=(1.0, 1.0, 1.0))
        plain = x
        for block in blocks:
            plain = block(plain)
    torch.testing.assert_close(found.first, plain[:, 0], rtol=1e-5, atol=1e-6)  # the order of the keys rounds otherwise
    assert found.token_blocks == 1.0


def test_shares_are_those_of_the_paper_and_every_token_has_one_place() -> None:
    from tests.bench.staged import PIXELS_READ, staged

    found = staged(network(8), tokens())
    assert found.counts == (32, 16, 8, 4)
    assert found.token_blocks == pytest.approx((1 + 0.5 + 0.25 + 0.125) / 4)
    assert torch.equal(found.order.sort(dim=1).values, torch.arange(32).expand(3, 32))
    assert PIXELS_READ == 1.0


def test_the_first_drop_is_by_the_attention_of_the_class_token() -> None:
    from tests.bench.staged import attention_of_first, staged

    blocks, x = network(2), tokens()
    looked, normed = attention_of_first(blocks[0], x), blocks[0].norm1(x)
    q, k, _ = blocks[0].attn.qkv(normed).view(3, 33, 3, 2, 8).unbind(2)  # n, t, heads, 8
    scores = torch.einsum("nhd,nthd->nht", q[:, 0], k) / 8**0.5
    torch.testing.assert_close(looked, scores.softmax(dim=2).mean(dim=1)[:, 1:])
    kept = staged(blocks, x, keep=(0.25,)).order[:, :8]
    for row in range(3):
        assert set(kept[row].tolist()) == set(looked[row].topk(8).indices.tolist())


def test_gradients_reach_the_kept_tokens_through_the_last_stage() -> None:
    from tests.bench.staged import staged

    x = tokens().requires_grad_()
    staged(network(2), x, keep=(0.25,)).first.sum().backward()
    assert bool((x.grad.abs().sum(dim=2) > 0).all())  # those that are dropped were looked at before


@pytest.mark.parametrize(("depth", "keep"), [(2, (0.5, 0.25)), (4, (0.25, 0.5)), (4, (0.5, 0.0))])
def test_what_cannot_be_is_refused(depth: int, keep: tuple[float, ...]) -> None:
    from tests.bench.staged import staged

    with pytest.raises(ValueError, match=r"each needs one|falling shares"):
        staged(network(depth), tokens(), keep=keep)


def test_all_pixels_are_decoded_before_a_token_is_dropped(tmp_path) -> None:
    from tests.bench.bench_staged import decoded_row, read_both

    row = decoded_row(read_both(tmp_path))
    assert row["value"] == 100
    assert row["rival_value"] < 80
