"""Networks that make one vector of a bag of vectors: a slide of its regions, or a region of its tiles.

All take `x [b, n, d]` and `mask [b, n]`, in which True is a row that counts, and give `[b, dim]`. What a row that does
not count holds, NaN and infinity included, changes neither values nor gradients. The order of the rows has no
influence (but for the rounding of sums). A bag in which no row counts gives zeros and sends no gradient back, so that
it cannot spoil a batch of a training; whoever stores vectors knows from the mask that they mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from tilestream.errors import ConfigError, StageError


class MeanPool(nn.Module):
    """Mean of the rows that count; nothing to train.

    Parameters
    ----------
    dim : int
        Length of a row.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the means, `[b, dim]`.

        Parameters
        ----------
        x : Tensor
            `[b, n, dim]`.
        mask : Tensor of bool, optional
            `[b, n]`, by default all count.

        Returns
        -------
        Tensor
            `[b, dim]`; zeros where no row counts.
        """
        x, mask = _bag(x, mask, self.dim)
        count = mask.sum(1, keepdim=True).clamp(min=1)  # b, 1
        return x.sum(1) / count  # b, dim


class GatedAttention(nn.Module):
    """Mean of the rows weighted by gated attention (ABMIL).

        a = softmax over rows of  w · (tanh(V x) ⊙ sigmoid(U x)),     vector = Σ a x

    Parameters
    ----------
    dim : int
        Length of a row.
    hidden : int
        Length of V x and U x.
    embed : int, optional
        Length of what is pooled: rows pass a linear layer and ReLU first. By default they are pooled as they are.
    dropout : float
        Share of the gated values that is dropped in training.

    References
    ----------
    Ilse, Tomczak and Welling, Attention-based deep multiple instance learning, ICML 2018, arXiv 1802.04712, equation 9.
    """

    def __init__(self, dim: int, *, hidden: int = 128, embed: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.dim = dim if embed is None else embed
        self._rows = dim
        self.embed = nn.Identity() if embed is None else nn.Sequential(nn.Linear(dim, embed), nn.ReLU())
        self.content = nn.Linear(self.dim, hidden)
        self.gate = nn.Linear(self.dim, hidden)
        self.dropout = nn.Dropout(dropout)
        # no bias: it would be the same for all rows, which a softmax does not see, and never learn
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the weighted means, `[b, .dim]`.

        Parameters
        ----------
        x : Tensor
            `[b, n, dim]`.
        mask : Tensor of bool, optional
            `[b, n]`, by default all count.

        Returns
        -------
        Tensor
            `[b, .dim]`; zeros where no row counts.
        """
        x, mask = _bag(x, mask, self._rows)
        x = self.embed(x)  # b, n, .dim
        attention = self._attention(x, mask)  # b, n
        return (attention[:, None] @ x)[:, 0]  # b, .dim

    def forward_attention(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return how much each row counts, `[b, n]`.

        Parameters
        ----------
        x : Tensor
            `[b, n, dim]`.
        mask : Tensor of bool, optional
            `[b, n]`, by default all count.

        Returns
        -------
        Tensor
            `[b, n]`, at least 0 and 1 in sum; exactly 0 where a row does not count, and everywhere where none does.
        """
        x, mask = _bag(x, mask, self._rows)
        return self._attention(self.embed(x), mask)

    def _attention(self, x: Tensor, mask: Tensor) -> Tensor:
        gated = torch.tanh(self.content(x)) * torch.sigmoid(self.gate(x))  # b, n, hidden
        score = self.score(self.dropout(gated))[..., 0]  # b, n
        some = mask.any(1, keepdim=True)  # b, 1
        score = score.masked_fill(~mask & some, -torch.inf)  # b, n: a bag without rows keeps finite scores
        return torch.where(mask, torch.softmax(score, 1), 0.0)  # b, n


class MeanMLP(nn.Module):
    """Mean of the rows that count, then a perceptron with one hidden layer (SiMLP).

    Parameters
    ----------
    dim : int
        Length of a row.
    hidden : int
        Length of the hidden layer.
    out : int, optional
        Length of the vector, by default that of the hidden layer.
    dropout : float
        Share of the hidden values that is dropped in training.

    References
    ----------
    Li et al., Can we simplify slide-level fine-tuning of pathology foundation models?, 2025, arXiv 2502.20823.
    """

    def __init__(self, dim: int, *, hidden: int = 512, out: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        self.dim = hidden if out is None else out
        self.pool = MeanPool(dim)
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, self.dim))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the vectors, `[b, .dim]`.

        Parameters
        ----------
        x : Tensor
            `[b, n, dim]`.
        mask : Tensor of bool, optional
            `[b, n]`, by default all count.

        Returns
        -------
        Tensor
            `[b, .dim]`; zeros where no row counts.
        """
        pooled = self.pool(x, mask)  # b, dim
        return _zero_without_rows(self.layers(pooled), mask)  # b, .dim


class BagTransformer(nn.Module):
    """Rows that attend to each other, then one vector: that of a class token, or the rows' weighted mean.

    Rows have no positions, so that the vector does not depend on their order. Time grows with n², memory with n.

    Parameters
    ----------
    dim : int
        Length of a row.
    width : int
        Length of a token, and of the vector; a multiple of `heads`.
    depth : int
        Number of blocks, with the norm before attention and perceptron.
    heads : int
        Attention heads of a block.
    pool : str
        `cls` for a class token, `attention` for gated attention over the rows.
    dropout : float
        Share that is dropped in training.

    References
    ----------
    Vaswani et al., Attention is all you need, 2017, arXiv 1706.03762; the order of norms as in Xiong et al., ICML 2020,
    arXiv 2002.04745; a class token as in Dosovitskiy et al., ICLR 2021, arXiv 2010.11929.
    """

    def __init__(
        self, dim: int, *, width: int = 192, depth: int = 2, heads: int = 4, pool: str = "cls", dropout: float = 0.0
    ) -> None:
        super().__init__()
        if pool not in ("cls", "attention"):
            raise ConfigError.of("`pool` of the aggregator", got=pool, expected="`cls` or `attention`", do="Name one.")
        if width % heads:
            do = "Choose a multiple."
            raise ConfigError.of("`width` of the aggregator", got=width, expected=f"a multiple of {heads} heads", do=do)
        self.dim = width
        self._rows = dim
        self.embed = nn.Linear(dim, width)
        # a list, since nn.TransformerEncoder would start all blocks from the same weights
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True)
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.cls_token = (
            nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, width), std=0.02)) if pool == "cls" else None
        )
        self.pool = GatedAttention(width) if pool == "attention" else None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the vectors, `[b, width]`.

        Parameters
        ----------
        x : Tensor
            `[b, n, dim]`.
        mask : Tensor of bool, optional
            `[b, n]`, by default all count.

        Returns
        -------
        Tensor
            `[b, width]`; zeros where no row counts.
        """
        x, mask = _bag(x, mask, self._rows)
        if not x.shape[1]:  # torch's layers refuse sequences without a token
            return x.new_zeros(len(x), self.dim)  # b, width
        x = self.embed(x)  # b, n, width
        # a bag without rows attends to what it has, and is set to zeros below: no row of a softmax is empty
        keys = mask | ~mask.any(1, keepdim=True)  # b, n
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.to(x.dtype).expand(len(x), 1, -1), x], 1)  # b, 1 + n, width
            keys = nn.functional.pad(keys, (1, 0), value=True)  # b, 1 + n
        for block in self.blocks:
            x = block(x, src_key_padding_mask=~keys)  # b, (1 +) n, width
        x = self.norm(x)  # b, (1 +) n, width
        pooled = x[:, 0] if self.pool is None else self.pool(x, mask)  # b, width
        return _zero_without_rows(pooled, mask)  # b, width


def _bag(x: Tensor, mask: Tensor | None, dim: int) -> tuple[Tensor, Tensor]:
    """Return rows with zeros where they do not count, whatever was there, and the mask."""
    if x.ndim != 3 or x.shape[2] != dim:
        raise StageError.of(
            "bag of an aggregator",
            got=f"shape {tuple(x.shape)}",
            expected=f"(bags, rows, {dim})",
            do="Give it the vectors that it was made for.",
        )
    if mask is None:
        return x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    if mask.shape != x.shape[:2] or mask.dtype != torch.bool:
        raise StageError.of(
            "mask of an aggregator",
            got=f"{mask.dtype} of shape {tuple(mask.shape)}",
            expected=f"torch.bool of shape {tuple(x.shape[:2])}",
            do="Give one truth value a row.",
        )
    return torch.where(mask[..., None], x, 0.0), mask  # not x * mask: NaN * 0 is NaN


def _zero_without_rows(pooled: Tensor, mask: Tensor | None) -> Tensor:
    """Return `[b, d]` with zeros for bags in which no row counts."""
    return pooled if mask is None else torch.where(mask.any(1, keepdim=True), pooled, 0.0)


AGGREGATORS: Mapping[str, Callable[..., nn.Module]] = {
    "abmil": GatedAttention,
    "mean": MeanPool,
    "simlp": MeanMLP,
    "transformer": BagTransformer,
}
"""What makes each aggregator of `dim` and keyword parameters of its own; `.dim` is the length of what it gives."""
