"""MViTv2: a transformer whose stages halve the grid and double the width, with attention over pooled tokens.

    q, k, v = norm(pool(x W))           pool: depthwise 3x3 convolution inside each head, stride of q and of k, v
    a       = softmax(q k^T / sqrt(d) + q·R_y(y_q - y_k) + q·R_x(x_q - x_k))
    x'      = proj(a v + q)             residual pooling: the pooled query is added

Li et al., CVPR 2022, https://arxiv.org/abs/2112.01526: pooling attention as in section 3.1 (Fan et al., ICCV 2021,
https://arxiv.org/abs/2104.11227), decomposed relative positions (equation 4) and residual pooling (equation 5), with
the width doubled inside the attention of a stage's first block. No class token: the vector is the mean of all tokens.
Names of parameters are timm's, so that a file of its `mvitv2_tiny` loads as it is; for the authors' see `own_names`.

Relative positions are learned for the grids of one input size. For any other, the tables are interpolated linearly to
the 2 · max(q, k) - 1 distances of the new grid, as the authors do for detection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tilestream.errors import StageError
from tilestream.models.linear import Linear
from tilestream.models.singly import singly
from tilestream.models.vit import MLP

PATCH_STRIDE = 4
"""Pixels between tokens of the first stage; patches of 7 x 7 overlap."""

COARSEST = 4
"""Keys and values of the first stage are pooled by this stride, those of each later one by half of it, at least 1."""

EPS = 1e-6
"""Added to variances by the norms."""

TINY_DEPTHS = (1, 2, 5, 2)
"""Blocks of each stage of MViTv2-T."""


class PoolingAttention(nn.Module):
    """Attention over tokens that were pooled after their projection, with relative positions.

    Parameters
    ----------
    dim : int
        Length of a token that comes in.
    out : int
        Length of a token that goes out.
    heads : int
        Heads; divides `out`.
    q_stride : int
        Stride at which queries are pooled: the grid shrinks by it.
    kv_stride : int
        Stride at which keys and values are pooled.
    cells : int
        Edge of the square grid of tokens that the tables of relative positions are learned for.
    """

    def __init__(self, dim: int, out: int, *, heads: int, q_stride: int, kv_stride: int, cells: int) -> None:
        super().__init__()
        self.heads = heads
        width = out // heads
        self.qkv = Linear(dim, 3 * out)
        for name, stride in (("q", q_stride), ("k", kv_stride), ("v", kv_stride)):
            pool = nn.Conv2d(width, width, 3, stride=stride, padding=1, groups=width, bias=False)
            self.add_module(f"pool_{name}", pool)
            self.add_module(f"norm_{name}", nn.LayerNorm(width, eps=EPS))
        distances = 2 * max(-(-cells // q_stride), -(-cells // kv_stride)) - 1
        self.rel_pos_h = nn.Parameter(nn.init.trunc_normal_(torch.empty(distances, width), std=0.02))
        self.rel_pos_w = nn.Parameter(nn.init.trunc_normal_(torch.empty(distances, width), std=0.02))
        self.proj = Linear(out, out)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens `[n, qh, qw, out]` of tokens `[n, h, w, dim]`; `qh` is `h / q_stride`, rounded up."""
        q, k, v = self.pooled(x)  # n, heads, qh, qw, width; k and v: n, heads, kh, kw, width
        bias = self.positions(q, (k.shape[2], k.shape[3]))  # n, heads, qh qw, kh kw
        queries = q.flatten(2, 3)  # n, heads, qh qw, width
        mixed = F.scaled_dot_product_attention(queries, k.flatten(2, 3), v.flatten(2, 3), attn_mask=bias)
        mixed = (mixed + queries).view(q.shape)  # n, heads, qh, qw, width
        out: Tensor = self.proj(mixed.permute(0, 2, 3, 1, 4).flatten(3))  # n, qh, qw, out
        return out

    def pooled(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of tokens `[n, h, w, dim]`, each `[n, heads, its grid, width]`."""
        n, h, w, _ = x.shape
        width = self.rel_pos_h.shape[1]
        projected = (
            self.qkv(x).view(n, h, w, 3, self.heads, width).permute(3, 0, 4, 5, 1, 2)
        )  # 3, n, heads, width, h, w
        found = []
        for name, part in zip("qkv", projected, strict=True):
            images = self.get_submodule(f"pool_{name}")(part.flatten(0, 1))  # n heads, width, its h, its w
            tokens = images.permute(0, 2, 3, 1).unflatten(0, (n, self.heads))  # n, heads, its h, its w, width
            found.append(self.get_submodule(f"norm_{name}")(tokens))
        return found[0], found[1], found[2]

    def positions(self, q: Tensor, keys_yx: tuple[int, int]) -> Tensor:
        """Return what distances add to scores, `[n, heads, qh qw, kh kw]`, of queries `[n, heads, qh, qw, width]`."""
        qh, qw = q.shape[2:4]
        table_y = relative_table(self.rel_pos_h, qh, keys_yx[0])  # qh, kh, width
        table_x = relative_table(self.rel_pos_w, qw, keys_yx[1])  # qw, kw, width
        along_y = torch.einsum("nhyxc,ykc->nhyxk", q, table_y.to(q.dtype))  # n, heads, qh, qw, kh
        along_x = torch.einsum("nhyxc,xkc->nhyxk", q, table_x.to(q.dtype))  # n, heads, qh, qw, kw
        both = along_y[..., :, None] + along_x[..., None, :]  # n, heads, qh, qw, kh, kw
        return both.flatten(4).flatten(2, 3)  # n, heads, qh qw, kh kw


def relative_table(table: Tensor, queries: int, keys: int) -> Tensor:
    """Return the learned vector of the distance between each query and each key along one axis.

    Parameters
    ----------
    table : Tensor
        `[distances, width]`: first that of the first query from the last key.
    queries : int
        Queries along the axis.
    keys : int
        Keys along the axis; they span the same length as the queries.

    Returns
    -------
    Tensor
        `[queries, keys, width]`. Distances are counted in steps of the finer of the two.
    """
    distances = 2 * max(queries, keys) - 1
    if len(table) != distances:
        exact = table.to(torch.promote_types(table.dtype, torch.float32))
        table = F.interpolate(exact.t()[None], size=distances, mode="linear")[0].t().to(table.dtype)
    q_step, k_step = max(keys / queries, 1.0), max(queries / keys, 1.0)
    q = torch.arange(queries, device=table.device)[:, None] * q_step  # queries, 1
    k = torch.arange(keys, device=table.device)[None, :] * k_step  # 1, keys
    return table[(q - k + (keys - 1) * k_step).long()]  # queries, keys, width


class MultiscaleBlock(nn.Module):
    """Pooling attention and MLP, each after a norm; what is added to them is pooled and widened alike.

    Parameters
    ----------
    dim : int
        Length of a token that comes in.
    out : int
        Length of a token that goes out.
    heads : int
        Heads of the attention.
    q_stride : int
        By which the grid shrinks.
    kv_stride : int
        By which keys and values are pooled.
    cells : int
        Edge of the grid that relative positions are learned for.
    """

    def __init__(self, dim: int, out: int, *, heads: int, q_stride: int, kv_stride: int, cells: int) -> None:
        super().__init__()
        self.q_stride = q_stride
        self.norm1 = nn.LayerNorm(dim, eps=EPS)
        self.attn = PoolingAttention(dim, out, heads=heads, q_stride=q_stride, kv_stride=kv_stride, cells=cells)
        self.shortcut_proj_attn = Linear(dim, out) if dim != out else None
        self.norm2 = nn.LayerNorm(out, eps=EPS)
        self.mlp = MLP(out, 4 * out)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens `[n, qh, qw, out]` of tokens `[n, h, w, dim]`."""
        normed = self.norm1(x)  # n, h, w, dim
        # the authors widen the normed tokens, but add the others as they are
        shortcut = x if self.shortcut_proj_attn is None else self.shortcut_proj_attn(normed)  # n, h, w, out
        if self.q_stride > 1:
            images = F.max_pool2d(
                shortcut.permute(0, 3, 1, 2), self.q_stride + 1, self.q_stride, (self.q_stride + 1) // 2
            )  # n, out, qh, qw
            shortcut = images.permute(0, 2, 3, 1)  # n, qh, qw, out
        x = shortcut + self.attn(normed)  # n, qh, qw, out
        out: Tensor = x + self.mlp(self.norm2(x))  # n, qh, qw, out
        return out


class OverlappingPatches(nn.Module):
    """Tokens of overlapping patches of 7 x 7 pixels, 4 apart.

    Parameters
    ----------
    channels : int
        Channels of the image.
    dim : int
        Length of a token.
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, kernel_size=7, stride=PATCH_STRIDE, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens `[n, h / 4, w / 4, dim]` of images `[n, channels, h, w]`."""
        tokens: Tensor = self.proj(x)  # n, dim, h / 4, w / 4
        return tokens.permute(0, 2, 3, 1)  # n, h / 4, w / 4, dim


class MultiscaleTransformer(nn.Module):
    """A multiscale transformer that gives one vector an image.

    Parameters
    ----------
    dims : sequence of int
        Length of a token in each stage.
    depths : sequence of int
        Blocks of each stage; the first block of all but the first stage halves the grid.
    heads : sequence of int
        Heads in each stage.
    channels : int
        Channels of the image.
    px : int
        Edge of the square images that relative positions are learned for.

    Notes
    -----
    It takes images of any height and width that are multiples of 4 · 2^(stages - 1), 32 with four stages.
    """

    def __init__(
        self,
        *,
        dims: Sequence[int] = (96, 192, 384, 768),
        depths: Sequence[int] = TINY_DEPTHS,
        heads: Sequence[int] = (1, 2, 4, 8),
        channels: int = 3,
        px: int = 224,
    ) -> None:
        super().__init__()
        self.dim = dims[-1]
        self.channels = channels
        self.multiple_px = PATCH_STRIDE * 2 ** (len(dims) - 1)
        self.patch_embed = OverlappingPatches(channels, dims[0])
        self.stages = nn.ModuleList()
        dim, cells = dims[0], px // PATCH_STRIDE
        for index, (out, depth, count) in enumerate(zip(dims, depths, heads, strict=True)):
            blocks = nn.ModuleList()
            kv_stride = max(COARSEST // 2**index, 1)
            for number in range(depth):
                q_stride = 2 if index and not number else 1
                blocks.append(
                    MultiscaleBlock(dim, out, heads=count, q_stride=q_stride, kv_stride=kv_stride, cells=cells)
                )
                dim, cells = out, cells // q_stride
            self.stages.append(nn.ModuleDict({"blocks": blocks}))
        self.norm = nn.LayerNorm(self.dim, eps=EPS)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return one vector an image.

        Parameters
        ----------
        x : Tensor
            `[n, channels, h, w]`.

        Returns
        -------
        Tensor
            `[n, dim]`: the mean of all tokens after the last norm.

        Raises
        ------
        StageError
            When the images have other channels, or edges that do not divide.
        """
        self._check(x)
        return singly(self._vectors, x)  # n, dim

    def forward_tokens(self, x: Tensor) -> Tensor:
        """Return all tokens after the last norm, `[n, h / 32, w / 32, dim]` of images `[n, channels, h, w]`."""
        self._check(x)
        return singly(self._tokens, x)

    def _vectors(self, x: Tensor) -> Tensor:
        return self._tokens(x).mean(dim=(1, 2))  # n, dim

    def _tokens(self, x: Tensor) -> Tensor:
        tokens = self.patch_embed(x)  # n, h / 4, w / 4, dims[0]
        for stage in self.stages:
            for block in stage.get_submodule("blocks").children():
                tokens = block(tokens)  # n, halved from stage to stage, dims of the stage
        normed: Tensor = self.norm(tokens)  # n, h / 32, w / 32, dim
        return normed

    def _check(self, x: Tensor) -> None:
        edges = x.shape[2:]
        if x.ndim != 4 or x.shape[1] != self.channels or any(edge % self.multiple_px or not edge for edge in edges):
            raise StageError.of(
                "input of the multiscale transformer",
                got=f"shape {tuple(x.shape)}",
                expected=f"(n, {self.channels}, h, w), h and w multiples of {self.multiple_px}",
                do="Crop the images, or choose their channels.",
            )


def mvitv2_tiny() -> MultiscaleTransformer:
    """Return MViTv2-T without its classifier: images `[n, 3, 224, 224]` to vectors `[n, 768]`.

    Returns
    -------
    MultiscaleTransformer
        23,404,320 parameters; 24,173,320 with a classifier of 1000 classes, the paper's 24 M.
    """
    return MultiscaleTransformer()


def own_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a file under the names of this module.

    Parameters
    ----------
    tensors : Mapping
        A state dict of `mvitv2_tiny`, of timm's, which has the same names, or of the authors' code, which counts its
        blocks through all stages.

    Returns
    -------
    dict
        All of them, those of a classifier too.
    """
    places = [(stage, number) for stage, depth in enumerate(TINY_DEPTHS) for number in range(depth)]

    def renamed(name: str) -> str:
        found = re.match(r"blocks\.(\d+)\.(proj\.)?", name)
        if found is None or int(found[1]) >= len(places):
            return name
        stage, number = places[int(found[1])]
        shortcut = "shortcut_proj_attn." if found[2] else ""
        return f"stages.{stage}.blocks.{number}.{shortcut}{name[found.end() :]}"

    return {renamed(name): tensor for name, tensor in tensors.items()}
