"""HIPT: three transformers, over the pixels of a tile, the tiles of a region and the regions of a slide.

Chen et al., CVPR 2022, https://arxiv.org/abs/2206.02647, written from its definition. The first two were trained with
DINO on 14 x 14 tokens and are run on 16 x 16, so positions are interpolated by DINO's rule. The third is trained with
labels; no weights of it are published.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tilestream.errors import StageError
from tilestream.models.vit import GridEmbed, PatchEmbed, VisionTransformer

SLIDE_DROPOUT = 0.25
"""Share of values that the slide stage drops in training."""


def vit256() -> VisionTransformer:
    """Return the first stage: tiles `[n, 3, 256, 256]`, scaled to -1..1, to vectors `[n, 384]` (ViT-S/16)."""
    return VisionTransformer(PatchEmbed(patch_px=16, channels=3, dim=384), dim=384, depth=12, heads=6)


def vit4k() -> VisionTransformer:
    """Return the second stage: grids `[n, 384, 16, 16]` of the first one's vectors to vectors `[n, 192]`."""
    return VisionTransformer(GridEmbed(channels=384, dim=192), dim=192, depth=6, heads=6)


class GatedAttention(nn.Module):
    """Scores of vectors by gated attention: `c(tanh(a x) * sigmoid(b x))`.

    Parameters
    ----------
    dim : int
        Length of the vectors.

    References
    ----------
    Ilse et al. 2018, https://arxiv.org/abs/1802.04712
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.attention_a = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Dropout(SLIDE_DROPOUT))
        self.attention_b = nn.Sequential(nn.Linear(dim, dim), nn.Sigmoid(), nn.Dropout(SLIDE_DROPOUT))
        self.attention_c = nn.Linear(dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return scores `[..., 1]` of vectors `[..., dim]`."""
        scores: Tensor = self.attention_c(self.attention_a(x) * self.attention_b(x))
        return scores


class SlideTransformer(nn.Module):
    """The third stage: vectors of regions `[b, m, 192]` to vectors of slides `[b, 192]`.

    Parameters
    ----------
    dim : int
        Length of the vectors.
    depth : int
        Layers of its transformer.
    heads : int
        Heads of each.

    Notes
    -----
    It knows nothing of where regions lie: their order does not matter. Names of parameters are those of HIPT's
    `HIPT_LGP_FC` without its classifier.
    """

    def __init__(self, dim: int = 192, *, depth: int = 2, heads: int = 3) -> None:
        super().__init__()
        self.dim = dim
        layer = nn.TransformerEncoderLayer(dim, heads, dim_feedforward=dim, dropout=SLIDE_DROPOUT, batch_first=True)
        self.global_phi = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(SLIDE_DROPOUT))
        self.global_transformer = nn.TransformerEncoder(layer, num_layers=depth, enable_nested_tensor=False)
        self.global_attn_pool = GatedAttention(dim)
        self.global_rho = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Dropout(SLIDE_DROPOUT))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return one vector a slide.

        Parameters
        ----------
        x : Tensor
            `[b, m, dim]`: slides with fewer regions than `m` are filled up with anything finite.
        mask : Tensor, optional
            bool `[b, m]`, True where there is a region.

        Returns
        -------
        Tensor
            `[b, dim]`.

        Raises
        ------
        StageError
            When the mask has another shape, or a slide has no region.
        """
        regions, weights = self._attended(x, mask)  # b, m, dim; b, m
        pooled = (weights[:, None, :] @ regions)[:, 0]  # b, dim
        vector: Tensor = self.global_rho(pooled)  # b, dim
        return vector

    def forward_attention(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the weights of the regions in the pool, `[b, m]`: each row sums to 1, and is 0 where there is none."""
        return self._attended(x, mask)[1]

    def _attended(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        if mask is not None:
            _check_regions(mask, x)
        absent = None if mask is None else ~mask  # b, m
        tokens = self.global_transformer(self.global_phi(x), src_key_padding_mask=absent)  # b, m, dim
        scores = self.global_attn_pool(tokens)[:, :, 0]  # b, m
        if absent is not None:
            tokens = tokens.masked_fill(absent[:, :, None], 0.0)  # 0 times what is not there must be 0
            scores = scores.masked_fill(absent, float("-inf"))
        return tokens, torch.softmax(scores, dim=1)


def _check_regions(mask: Tensor, x: Tensor) -> None:
    if mask.dtype != torch.bool or mask.shape != x.shape[:2]:
        raise StageError.of(
            "mask of regions",
            got=f"{mask.dtype} of shape {tuple(mask.shape)}",
            expected=f"bool of shape {tuple(x.shape[:2])}, True where there is a region",
            do="Give it one value a region.",
        )
    if not bool(mask.any(dim=1).all()):
        raise StageError.of(
            "mask of regions", got="a slide without a region", expected="one or more in each", do="Leave it out."
        )
