"""The plain vision transformer: pre-norm blocks over a class token and a grid of tokens of any size.

    x0     = [cls, embed(pixels or grid)] + positions
    x_l'   = x_l  + proj(softmax(q k^T / sqrt(d)) v),   q, k, v = qkv(norm1(x_l))
    x_l+1  = x_l' + fc2(gelu(fc1(norm2(x_l'))))
    vector = norm(x_L)[cls]

Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929, in the form that DINO trains, https://arxiv.org/abs/2104.14294.
Names of parameters are DINO's, so that its checkpoints load as they are. It runs under `torch.autocast` and in half
types: positions are then interpolated in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tilestream.errors import StageError
from tilestream.models.linear import Linear, linear
from tilestream.models.positions import Positions, resized_positions
from tilestream.models.singly import singly
from tilestream.models.tokenmask import token_keys


class PatchEmbed(nn.Module):
    """Tokens of the patches of an image: one linear map of all pixels of a patch.

    Parameters
    ----------
    patch_px : int
        Edge of a patch.
    channels : int
        Channels of the image.
    dim : int
        Length of a token.
    """

    name: ClassVar[str] = "patch_embed"
    """What a transformer calls it in its state dict."""

    def __init__(self, *, patch_px: int = 16, channels: int = 3, dim: int = 384) -> None:
        super().__init__()
        self.patch_px = patch_px
        self.channels = channels
        self.proj = nn.Conv2d(channels, dim, kernel_size=patch_px, stride=patch_px)

    def grid_yx(self, x: Tensor) -> tuple[int, int]:
        """Return rows and columns of the tokens of images; raise `StageError` where it does not take them."""
        if x.ndim != 4 or x.shape[1] != self.channels or x.shape[2] % self.patch_px or x.shape[3] % self.patch_px:
            raise StageError.of(
                "input of the patch embedding",
                got=f"shape {tuple(x.shape)}",
                expected=f"(n, {self.channels}, h, w), h and w multiples of {self.patch_px}",
                do="Crop the images, or choose their channels.",
            )
        return x.shape[2] // self.patch_px, x.shape[3] // self.patch_px

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens `[n, gh * gw, dim]`, row by row, of images `[n, channels, gh * patch_px, gw * patch_px]`."""
        tokens: Tensor = self.proj(x)  # n, dim, gh, gw
        return tokens.flatten(2).transpose(1, 2)  # n, gh gw, dim


class GridEmbed(nn.Sequential):
    """Tokens of the cells of a grid of vectors, such as those that another transformer made of tiles.

    Parameters
    ----------
    channels : int
        Length of the vectors.
    dim : int
        Length of a token.
    """

    name: ClassVar[str] = "phi"
    """What a transformer calls it in its state dict."""

    def __init__(self, *, channels: int = 384, dim: int = 192) -> None:
        super().__init__(Linear(channels, dim), nn.GELU(), nn.Dropout(0.0))
        self.channels = channels

    def grid_yx(self, x: Tensor) -> tuple[int, int]:
        """Return rows and columns of the tokens of grids; raise `StageError` where it does not take them."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise StageError.of(
                "input of the grid embedding",
                got=f"shape {tuple(x.shape)}",
                expected=f"(n, {self.channels}, gh, gw)",
                do="Give it the vectors of the stage that it was trained on.",
            )
        return x.shape[2], x.shape[3]

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens `[n, gh * gw, dim]`, row by row, of grids `[n, channels, gh, gw]`."""
        tokens = x.flatten(2).transpose(1, 2)  # n, gh gw, channels
        for step in self:
            tokens = step(tokens)
        return tokens  # n, gh gw, dim


class Attention(nn.Module):
    """Self-attention of several heads.

    Parameters
    ----------
    dim : int
        Length of a token.
    heads : int
        Heads; divides `dim`.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return tokens `[n, t, dim]` of tokens `[n, t, dim]`; `mask` is `[n, 1, 1, t]`, True = may be looked at."""
        q, k, v = self._split(self.qkv(x), 3)  # each n, heads, t, dim / heads
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # n, heads, t, dim / heads
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))  # n, t, dim
        return out

    def forward_first(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return what `forward` does for the first token alone, `[n, 1, dim]`: one query, and keys of all."""
        q, k, v = self._first_query(x)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)  # n, heads, 1, dim / heads
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))  # n, 1, dim
        return out

    def weights_first(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the softmax of the first token over all, `[n, heads, t]`."""
        q, k, _ = self._first_query(x)
        scores: Tensor = q @ k.transpose(2, 3) * q.shape[3] ** -0.5  # n, heads, 1, t
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return torch.softmax(scores, dim=3)[:, :, 0]  # n, heads, t

    def _first_query(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        dim = x.shape[2]
        weight, bias = self.qkv.weight, self.qkv.bias  # 3 dim, dim
        (q,) = self._split(linear(x[:, :1], weight[:dim], bias[:dim]), 1)  # n, heads, 1, dim / heads
        k, v = self._split(linear(x, weight[dim:], bias[dim:]), 2)  # each n, heads, t, dim / heads
        return q, k, v

    def _split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        n, t, dims = x.shape
        return x.view(n, t, parts, self.heads, dims // (parts * self.heads)).permute(2, 0, 3, 1, 4).unbind(0)


class MLP(nn.Module):
    """Two linear maps with GELU between.

    Parameters
    ----------
    dim : int
        Length of a token.
    hidden : int
        Length between the two.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return `[..., dim]` of `[..., dim]`."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """Attention and MLP, each after a norm and added to what came in.

    Parameters
    ----------
    dim : int
        Length of a token.
    heads : int
        Heads of the attention.
    mlp_ratio : float
        Length inside the MLP, in lengths of a token.
    eps : float
        Added to variances by the norms.
    """

    def __init__(self, dim: int, heads: int, *, mlp_ratio: float, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = MLP(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return tokens `[n, t, dim]` of tokens `[n, t, dim]`; `mask` is `[n, 1, 1, t]`."""
        x = x + self.attn(self.norm1(x), mask)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

    def forward_first(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return what `forward` does for the first token alone, `[n, 1, dim]`, at a fifth of the cost."""
        first = x[:, :1] + self.attn.forward_first(self.norm1(x), mask)
        out: Tensor = first + self.mlp(self.norm2(first))
        return out


class VisionTransformer(nn.Module):
    """A vision transformer that gives one vector an image, or a grid.

    Parameters
    ----------
    embed : PatchEmbed or GridEmbed
        Makes the tokens; known as `patch_embed` or `phi` from then on.
    dim : int
        Length of a token, as `embed` makes them.
    depth : int
        Blocks.
    heads : int
        Heads of each block; divides `dim`.
    grid_yx : tuple of int
        Grid of the learned positions, rows and columns.
    positions : {"scale", "size"}
        How they are brought to other grids, see `resized_positions`.
    mlp_ratio : float
        Length inside the MLPs, in lengths of a token.
    eps : float
        Added to variances by the norms.

    Notes
    -----
    Where only the vector is wanted, the last block does the class token alone: 7 % less work at 12 blocks, and the same
    vector as `forward_tokens` gives up to rounding.

    On a CPU, where no gradients are recorded, images go through one by one (see `singly`), so that the bits of a vector
    depend on its image alone. It costs 1 % of the best batch there; large ones leave the caches.

    A token that a mask leaves out is looked at by none; its own output has no meaning. A grid in which none counts
    would give a vector that says nothing of the image, so it raises.
    """

    def __init__(  # noqa: PLR0913  # the shape of a network is this many numbers
        self,
        embed: PatchEmbed | GridEmbed,
        *,
        dim: int,
        depth: int,
        heads: int,
        grid_yx: tuple[int, int] = (14, 14),
        positions: Positions = "scale",
        mlp_ratio: float = 4.0,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.grid_yx = grid_yx
        self.positions: Positions = positions
        self._embed = embed.name
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid_yx[0] * grid_yx[1], dim))
        self.add_module(embed.name, embed)
        self.blocks = nn.ModuleList([Block(dim, heads, mlp_ratio=mlp_ratio, eps=eps) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=eps)
        self._start()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return one vector an image.

        Parameters
        ----------
        x : Tensor
            `[n, c, h, w]`, or a grid of vectors `[n, d, gh, gw]`.
        mask : Tensor, optional
            bool `[n, gh, gw]`, True where a token counts.

        Returns
        -------
        Tensor
            `[n, dim]`: the class token after the last norm.

        Raises
        ------
        StageError
            When the input or the mask has another shape than it takes, or no token of an image counts.
        """
        return self._run(self._vector, x, mask)

    def forward_tokens(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return all tokens, the class token first.

        Parameters
        ----------
        x : Tensor
            As `forward` takes it.
        mask : Tensor, optional
            As `forward` takes it; tokens that it leaves out have no meaning in the result.

        Returns
        -------
        Tensor
            `[n, 1 + gh * gw, dim]` after the last norm.
        """
        return self._run(self._tokens, x, mask)

    def forward_attention(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return what the class token looks at in the last block.

        Parameters
        ----------
        x : Tensor
            As `forward` takes it.
        mask : Tensor, optional
            As `forward` takes it; tokens that it leaves out get 0.

        Returns
        -------
        Tensor
            `[n, heads, gh, gw]`, float32 at least: the softmax over all tokens without its first value, the class
            token's of itself; so a map sums to less than 1.
        """
        gh, gw = self._embedding.grid_yx(x)
        return self._run(self._attention, x, mask).reshape(len(x), self._last.attn.heads, gh, gw)

    def forward_both(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what `forward` and `forward_attention` give, to the bit, at the cost of little more than one."""
        gh, gw = self._embedding.grid_yx(x)
        found = self._run(self._both, x, mask)  # n, dim + heads gh gw
        return found[:, : self.dim], found[:, self.dim :].reshape(len(x), self._last.attn.heads, gh, gw)

    def _run(self, last: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, mask: Tensor | None) -> Tensor:
        """Return what the last step makes of the tokens before the last block and of the keys."""
        grid = self._embedding.grid_yx(x)
        keys = None if mask is None else token_keys(mask, (len(x), *grid))  # n, 1, 1, 1 + gh gw
        positions = resized_positions(self.pos_embed, self.grid_yx, grid, rule=self.positions)

        def run(images: Tensor, keys: Tensor | None = None) -> Tensor:
            return last(self._before_last(images, keys, positions), keys)

        return singly(run, x) if keys is None else singly(run, x, keys)

    def _before_last(self, x: Tensor, keys: Tensor | None, positions: Tensor) -> Tensor:
        """Return the tokens before the last block, `[n, 1 + gh * gw, dim]`."""
        tokens: Tensor = self._embedding(x)  # n, gh gw, dim
        first = self.cls_token.to(tokens.dtype).expand(len(x), 1, -1)  # n, 1, dim
        tokens = torch.cat([first, tokens], dim=1) + positions  # n, 1 + gh gw, dim
        for block in self.blocks[:-1]:
            tokens = block(tokens, keys)
        return tokens

    def _vector(self, tokens: Tensor, keys: Tensor | None) -> Tensor:
        vector: Tensor = self.norm(self._last.forward_first(tokens, keys)[:, 0])  # n, dim
        return vector

    def _tokens(self, tokens: Tensor, keys: Tensor | None) -> Tensor:
        normed: Tensor = self.norm(self._last(tokens, keys))  # n, 1 + gh gw, dim
        return normed

    def _attention(self, tokens: Tensor, keys: Tensor | None) -> Tensor:
        return self._last.attn.weights_first(self._last.norm1(tokens), keys)[:, :, 1:]  # n, heads, gh gw

    def _both(self, tokens: Tensor, keys: Tensor | None) -> Tensor:
        return torch.cat([self._vector(tokens, keys), self._attention(tokens, keys).flatten(1)], dim=1)

    @property
    def _embedding(self) -> PatchEmbed | GridEmbed:
        embed = self.get_submodule(self._embed)
        assert isinstance(embed, PatchEmbed | GridEmbed)
        return embed

    @property
    def _last(self) -> Block:
        block = self.blocks[-1]
        assert isinstance(block, Block)
        return block

    def _start(self) -> None:
        """Start as DINO does."""
        for parameter in (self.cls_token, self.pos_embed):
            nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
