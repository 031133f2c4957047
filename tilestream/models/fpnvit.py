"""A transformer over several pyramid levels of one tile, whose maps are fused from coarse to fine.

    x_0 = tile,  x_l+1 = means of 2 x 2 pixels of x_l
    C_l = norm(ViT(x_l))                               one ViT for all levels, in windows of `window` x `window` patches
    P_l = lateral_l(C_l) + P_l+1, each cell repeated 2 x 2                    lateral_l: 1 x 1 convolution
    v_l = mean over the grid of gelu(smooth_l(P_l))                           smooth_l: 3 x 3 convolution
    vector = [v_0, …, v_L-1]

Every level is cut into windows of as many patches, so that a token of level l sees 2^l times as far, at 1 / 2^l of the
detail: what is fine is only seen close by, what is far only coarsely, and the work is 4/3 of the finest level's alone.
The top-down path tells each cell what it lies in. GELU stands before the mean because a mean of linear maps would no
longer know which detail lay in which surroundings.

Feature pyramids: Lin et al., CVPR 2017, https://arxiv.org/abs/1612.03144, section 3; on plain transformers: Li et al.,
ECCV 2022, https://arxiv.org/abs/2203.16527. Blocks: Dosovitskiy et al., ICLR 2021, https://arxiv.org/abs/2010.11929.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tilestream.errors import ConfigError, StageError
from tilestream.models.singly import singly
from tilestream.models.vit import Block, PatchEmbed
from tilestream.models.windowed import from_windows, to_windows

EPS = 1e-6
"""Added to variances by the norms."""


class FPNTransformer(nn.Module):
    """A transformer over pyramid levels with lateral connections and top-down fusion, one vector a tile.

    Parameters
    ----------
    dim : int
        Length of a token, D.
    depth : int
        Blocks of the transformer, B.
    heads : int
        Heads of each block; divides `dim`.
    levels : int
        Pyramid levels, L.
    patch_px : int
        Edge of a patch on every level, P.
    window : int
        Edge of a window in patches, W.
    width : int
        Channels of the fused maps, F.
    channels : int
        Channels of the tile, C.
    lateral : bool
        Whether finer levels enter the fusion; without, it is the coarsest one at every size.
    top_down : bool
        Whether coarser levels are added to finer ones; without, each level stands by itself.

    Notes
    -----
    Parameters with both paths:

        (C P² + 1) D + (W² + L) D + B (12 D² + 13 D) + 2 D + L (D F + F) + L (9 F² + F)

    that is patches, positions in a window and levels, blocks, norm, lateral and smoothing convolutions. Without lateral
    paths L (D F + F) becomes D F + F.

    It takes tiles of any height and width that are multiples of P · W · 2^(L - 1), 256 with the defaults.
    """

    def __init__(  # noqa: PLR0913  # the shape of a network is this many numbers
        self,
        *,
        dim: int = 384,
        depth: int = 12,
        heads: int = 6,
        levels: int = 3,
        patch_px: int = 16,
        window: int = 4,
        width: int = 256,
        channels: int = 3,
        lateral: bool = True,
        top_down: bool = True,
    ) -> None:
        super().__init__()
        if dim % heads or min(levels, window, width) < 1:
            raise ConfigError.of(
                "FPN transformer",
                got=f"dim={dim}, heads={heads}, levels={levels}, window={window}, width={width}",
                expected="a `dim` that `heads` divides, and all others from 1",
                do="Choose other numbers.",
            )
        self.dim = levels * width
        self.levels = levels
        self.window = window
        self.top_down = top_down
        self.multiple_px = patch_px * window * 2 ** (levels - 1)
        self.patch_embed = PatchEmbed(patch_px=patch_px, channels=channels, dim=dim)
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, window * window, dim), std=0.02))
        self.level_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(levels, 1, 1, dim), std=0.02))
        self.blocks = nn.ModuleList(Block(dim, heads, mlp_ratio=4.0, eps=EPS) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=EPS)
        self.laterals = nn.ModuleDict(
            {str(level): nn.Conv2d(dim, width, 1) for level in range(levels) if lateral or level == levels - 1}
        )
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(levels))

    def forward(self, x: Tensor) -> Tensor:
        """Return one vector a tile.

        Parameters
        ----------
        x : Tensor
            `[n, channels, h, w]`.

        Returns
        -------
        Tensor
            `[n, levels * width]`, the finest level first.

        Raises
        ------
        StageError
            When the tiles have other channels, or edges that do not divide.
        """
        self._check(x)
        return singly(self._vectors, x)  # n, levels * width

    def forward_maps(self, x: Tensor) -> list[Tensor]:
        """Return the fused map of each level before the mean, finest first, `[n, width, gh / 2^l, gw / 2^l]`."""
        self._check(x)
        return self._maps(x)

    def _vectors(self, x: Tensor) -> Tensor:
        return torch.cat([one.mean(dim=(2, 3)) for one in self._maps(x)], dim=1)  # n, levels * width

    def _maps(self, x: Tensor) -> list[Tensor]:
        images = [x]  # n, channels, h / 2^l, w / 2^l
        for _ in range(self.levels - 1):
            images.append(F.avg_pool2d(images[-1], 2))
        fused: list[Tensor] = []
        above: Tensor | None = None
        for level in reversed(range(self.levels)):
            above = self._fused(images[level], level, above)  # n, width, gh / 2^l, gw / 2^l
            fused.insert(0, F.gelu(self.smooth[level](above)))
        return fused

    def _fused(self, image: Tensor, level: int, above: Tensor | None) -> Tensor:
        """Return P_l, `[n, width, gh / 2^l, gw / 2^l]`, of a level's image and of P_l+1."""
        below = None if above is None else F.interpolate(above, scale_factor=2.0, mode="nearest")
        if str(level) not in self.laterals:
            assert below is not None  # the coarsest level always has one
            return below
        own: Tensor = self.laterals[str(level)](self._features(image, level))
        return own + below if below is not None and self.top_down else own

    def _features(self, image: Tensor, level: int) -> Tensor:
        """Return C_l, `[n, dim, gh, gw]` for the grid of patches of this level's image."""
        gh, gw = image.shape[2] // self.patch_embed.patch_px, image.shape[3] // self.patch_embed.patch_px
        grid = self.patch_embed(image).reshape(len(image), gh, gw, self.pos_embed.shape[2])  # n, gh, gw, dim
        tokens = to_windows(grid + self.level_embed[level], self.window) + self.pos_embed  # windows, window², dim
        for block in self.blocks:
            tokens = block(tokens)
        return from_windows(self.norm(tokens), (gh, gw)).permute(0, 3, 1, 2)  # n, dim, gh, gw

    def _check(self, x: Tensor) -> None:
        channels, edges = self.patch_embed.channels, x.shape[2:]
        if x.ndim != 4 or x.shape[1] != channels or any(edge % self.multiple_px or not edge for edge in edges):
            raise StageError.of(
                "input of the FPN transformer",
                got=f"shape {tuple(x.shape)}",
                expected=f"(n, {channels}, h, w), h and w multiples of {self.multiple_px}",
                do="Crop the tiles, or choose their channels.",
            )
