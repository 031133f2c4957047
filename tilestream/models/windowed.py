"""A transformer over grids of vectors whose tokens attend inside windows, every other time shifted by half a window.

    x'     = x  + attention of the tokens of each window (norm1(x)) with a learned bias for each offset and head
    x''    = x' + mlp(norm2(x'))
    vector = mean of norm(x_L) over the tokens that count

The windows and relative position bias of Swin (Liu et al., ICCV 2021, https://arxiv.org/abs/2103.14030) on one grid,
without its merging of tokens. Work grows with the grid, not with its square: for regions of more tiles than a plain
transformer is worth. Grids may have any size: they are filled up to whole windows with tokens that none looks at, and a
shift is a filling of half a window before the first, which gives the windows that Swin's masked cyclic shift does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tilestream.errors import ConfigError, StageError
from tilestream.models.linear import Linear
from tilestream.models.singly import singly
from tilestream.models.vit import MLP, GridEmbed

EPS = 1e-6
"""Added to variances by the norms."""


class WindowAttention(nn.Module):
    """Attention among the tokens of one window.

    Parameters
    ----------
    dim : int
        Length of a token.
    heads : int
        Heads; divides `dim`.
    window : int
        Edge of a window in tokens.
    """

    offset_of: Tensor

    def __init__(self, dim: int, *, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)
        offsets = (2 * window - 1) ** 2
        self.offset_bias = nn.Parameter(nn.init.trunc_normal_(torch.empty(offsets, heads), std=0.02))
        self.register_buffer("offset_of", window_offsets(window), persistent=False)  # t, t

    def forward(self, x: Tensor, may_see: Tensor | None = None) -> Tensor:
        """Return tokens `[n, t, dim]` of tokens `[n, t, dim]`; `may_see` is `[n, t, t]`, query by key."""
        n, t, dim = x.shape
        parts = self.qkv(x).view(n, t, 3, self.heads, dim // self.heads)  # n, t, 3, heads, dim / heads
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # each n, heads, t, dim / heads
        bias = self.offset_bias[self.offset_of].permute(2, 0, 1)[None]  # 1, heads, t, t
        if may_see is not None:
            bias = torch.where(may_see[:, None], bias, -torch.inf)  # n, heads, t, t
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))  # n, heads, t, dim / heads
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))  # n, t, dim
        return out


class WindowBlock(nn.Module):
    """Attention inside windows and MLP, each after a norm and added to what came in.

    Parameters
    ----------
    dim : int
        Length of a token.
    heads : int
        Heads of the attention.
    window : int
        Edge of a window in tokens.
    is_shifted : bool
        Whether windows begin half a window before the grid.
    """

    def __init__(self, dim: int, *, heads: int, window: int, is_shifted: bool) -> None:
        super().__init__()
        self.window = window
        self.is_shifted = is_shifted
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = WindowAttention(dim, heads=heads, window=window)
        self.norm2 = nn.LayerNorm(dim, eps=EPS)
        self.mlp = MLP(dim, 4 * dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return tokens `[n, gh, gw, dim]` of as many; none looks at those where `mask [n, gh, gw]` is False."""
        filled = self._filled(self.norm1(x))  # n, fh, fw, dim: multiples of a window
        seen = to_windows(self._filled(mask[..., None]), self.window)[..., 0]  # k, t
        # each token sees itself, so that a row of a softmax is never empty; those not looked at come to nothing else
        itself = torch.eye(seen.shape[1], dtype=torch.bool, device=x.device)  # t, t
        mixed = self.attn(to_windows(filled, self.window), seen[:, None, :] | itself)  # k, t, dim
        mixed = from_windows(mixed, (filled.shape[1], filled.shape[2]))  # n, fh, fw, dim
        top, left = self._before(x.shape[1]), self._before(x.shape[2])
        x = x + mixed[:, top : top + x.shape[1], left : left + x.shape[2]]  # n, gh, gw, dim
        out: Tensor = x + self.mlp(self.norm2(x))  # n, gh, gw, dim
        return out

    def _before(self, cells: int) -> int:
        """Return how far windows begin before the grid; a grid of one window needs no second cut."""
        return self.window // 2 if self.is_shifted and cells > self.window else 0

    def _filled(self, x: Tensor) -> Tensor:
        top, left = self._before(x.shape[1]), self._before(x.shape[2])
        bottom, right = -(top + x.shape[1]) % self.window, -(left + x.shape[2]) % self.window
        return F.pad(x, (0, 0, left, right, top, bottom))


class WindowedTransformer(nn.Module):
    """A transformer with shifted windows that gives one vector a grid of vectors.

    Parameters
    ----------
    channels : int
        Length of the grid's vectors.
    dim : int
        Length of a token, and of the vector.
    depth : int
        Blocks; every second one is shifted.
    heads : int
        Heads of each block; divides `dim`.
    window : int
        Edge of a window in tokens.
    """

    def __init__(self, channels: int, *, dim: int = 192, depth: int = 6, heads: int = 6, window: int = 4) -> None:
        super().__init__()
        if dim % heads or window < 1:
            raise ConfigError.of(
                "windowed transformer",
                got=f"dim={dim}, heads={heads}, window={window}",
                expected="a `dim` that `heads` divides, and a `window` from 1",
                do="Choose other numbers.",
            )
        self.dim = dim
        self.phi = GridEmbed(channels=channels, dim=dim)
        self.blocks = nn.ModuleList(
            WindowBlock(dim, heads=heads, window=window, is_shifted=bool(index % 2)) for index in range(depth)
        )
        self.norm = nn.LayerNorm(dim, eps=EPS)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return one vector a grid.

        Parameters
        ----------
        x : Tensor
            `[n, channels, gh, gw]`.
        mask : Tensor, optional
            bool `[n, gh, gw]`, True where a token counts; what others hold has no influence, even NaN.

        Returns
        -------
        Tensor
            `[n, dim]`.

        Raises
        ------
        StageError
            When the grids or the mask have another shape than it takes, or no token of a grid counts.
        """
        return singly(self._vectors, x, _checked_mask(mask, (len(x), *self.phi.grid_yx(x)), x.device))  # n, dim

    def forward_tokens(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return all tokens after the last norm, `[n, gh, gw, dim]`; those that do not count have no meaning."""
        return singly(self._tokens, x, _checked_mask(mask, (len(x), *self.phi.grid_yx(x)), x.device))

    def _vectors(self, x: Tensor, mask: Tensor) -> Tensor:
        tokens = self._tokens(x, mask)  # n, gh, gw, dim
        total = torch.where(mask[..., None], tokens, 0.0).sum(dim=(1, 2))  # n, dim
        return total / mask.sum(dim=(1, 2))[:, None]  # n, dim

    def _tokens(self, x: Tensor, mask: Tensor) -> Tensor:
        tokens = self.phi(torch.where(mask[:, None], x, 0.0)).reshape(*mask.shape, self.dim)  # n, gh, gw, dim
        for block in self.blocks:
            tokens = block(tokens, mask)
        normed: Tensor = self.norm(tokens)  # n, gh, gw, dim
        return normed


def to_windows(x: Tensor, window: int) -> Tensor:
    """Return the tokens of each window, `[n (h / window) (w / window), window², d]`, of a grid `[n, h, w, d]`."""
    n, h, w, d = x.shape
    cut = x.reshape(n, h // window, window, w // window, window, d).transpose(2, 3)
    return cut.reshape(n * (h // window) * (w // window), window * window, d)


def from_windows(x: Tensor, grid_yx: tuple[int, int]) -> Tensor:
    """Return the grid `[n, h, w, d]` of the tokens of its windows, which `to_windows` gave; `grid_yx` is `h, w`."""
    h, w = grid_yx
    window = round(x.shape[1] ** 0.5)
    n = len(x) * window * window // (h * w)
    cut = x.reshape(n, h // window, w // window, window, window, x.shape[2]).transpose(2, 3)
    return cut.reshape(n, h, w, x.shape[2])


def window_offsets(window: int) -> Tensor:
    """Return a number for the offset of each query from each key, `[window², window²]`, below (2 window - 1)²."""
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    places = torch.stack([y.flatten(), x.flatten()], dim=1)  # t, 2
    offsets = places[:, None] - places[None, :] + window - 1  # t, t, 2
    return offsets[..., 0] * (2 * window - 1) + offsets[..., 1]


def _checked_mask(mask: Tensor | None, grids: tuple[int, int, int], device: torch.device) -> Tensor:
    if mask is None:
        return torch.ones(grids, dtype=torch.bool, device=device)
    if mask.dtype != torch.bool or tuple(mask.shape) != grids:
        raise StageError.of(
            "mask of tokens",
            got=f"{mask.dtype} of shape {tuple(mask.shape)}",
            expected=f"bool of shape {grids}, True where a token counts",
            do="Give it one value a token.",
        )
    empty = ~mask.flatten(1).any(dim=1)  # n
    if bool(empty.any()):
        raise StageError.of(
            "mask of tokens",
            got=f"no token that counts in {int(empty.sum())} of {len(mask)} grids",
            expected="one or more in each",
            do="Leave such grids out: a vector of them would say nothing of the image.",
        )
    return mask
