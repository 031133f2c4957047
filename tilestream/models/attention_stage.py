"""The stage `attention`: maps of what a hierarchical encoder looks at, over regions of its tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.models.attended import Attended, make_attended, try_regions
from tilestream.models.channels import find_channels
from tilestream.models.runners import one_torch_thread, torch_device
from tilestream.types import Array, Batch, ImageInfo, Pending, StageContract, StageSpec

if TYPE_CHECKING:
    import torch

TARGET = "attention"
"""Registered name of the factory below."""
MAPS = ("mean", "region", "tile", "pairs")
"""What can be stored: the mean over all pairs of heads, a map for each head of the network of regions, for each of the
network of tiles, and for each pair of them."""
REGION_PX = 4096
"""Edge of HIPT's regions."""


@dataclass(frozen=True, kw_only=True)
class AttentionStage:
    """An encoder's attention over regions."""

    attended: Attended = field(repr=False, compare=False)
    """The networks."""
    region_px: int
    """Edge of a region."""
    maps: tuple[str, ...]
    """Which maps, of `MAPS`."""
    params: Mapping[str, Any]
    """How it is made."""
    channels: tuple[int, ...] | None = None
    """Positions of its channels in a batch; None = all of them, in stored order."""

    @property
    def contract(self) -> StageContract:
        """Return what it expects and gives: percentiles of attention, one a token."""
        own, halo = self.attended.contract, self._halo_px
        return replace(
            own,
            name=TARGET,
            px=self.region_px + 2 * halo,
            dim=len(self._names),
            output="dense",
            stride=self.attended.token_px,
            halo_px=halo,
            stored="uint8",
            value_range=(0.0, 100.0),
            keeps_place=True,
            framework="torch",
        )

    def for_image(self, image: ImageInfo) -> StageSpec:
        """Return how workers make it for one image; raise `StageError` where the image lacks its channels."""
        positions = find_channels(self.attended.contract, image)
        digests = dict(self.attended.digests)
        return StageSpec(target=TARGET, params={**self.params, "positions": list(positions), "digests": digests})

    def output_names(self, image: ImageInfo) -> tuple[str, ...]:
        """Return the names of its maps: `mean`, `4k_0`, `256_0`, `4k_0_256_0`, after the edges of regions and tiles."""
        return self._names

    @property
    def device(self) -> str:
        """Return where it computes in this process."""
        return torch_device()

    def allocate(self, nbytes: int) -> npt.NDArray[np.uint8]:
        """Return pinned memory for a CUDA device."""
        import torch

        memory = torch.empty(nbytes, dtype=torch.uint8, pin_memory=self.device != "cpu")
        return np.asarray(memory.numpy())

    def __call__(self, batch: Batch) -> Array:
        """Return the maps of a batch of regions, `(n, k, h / stride, w / stride)` float32, NaN in the halo."""
        return self.start(batch)()

    def start(self, batch: Batch) -> Pending:
        """Begin with a batch; what is returned waits for its result."""
        import torch

        with torch.inference_mode():
            if self.device == "cpu":
                with one_torch_thread():
                    found = self._maps(batch).numpy()
                return lambda: found
            there = self._maps(batch)
        return lambda: np.asarray(there.cpu().numpy())

    def example(self, batch: Batch) -> Array:
        """Return noise of the shape of a batch's maps, which packs as badly as ranks of noise do.

        Parameters
        ----------
        batch : Batch
            Regions; they are not looked at, since one takes seconds. The networks were tried when they were made.

        Returns
        -------
        ndarray of float32
            `(n, k, h / stride, w / stride)`.
        """
        n, _, height, width = batch.pixels.shape
        shape = n, len(self._names), height // self.attended.token_px, width // self.attended.token_px
        return np.random.default_rng(0).random(shape, np.float32) * np.float32(100)

    @property
    def _halo_px(self) -> int:
        from tilestream.models.attention import REACH

        return int(REACH * self.attended.contract.px)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        tile = [f"{_short(self.attended.contract.px)}_{head}" for head in range(self.attended.tile_heads)]
        region = [f"{_short(self.region_px)}_{head}" for head in range(self.attended.region_heads)]
        pairs = [f"{outer}_{inner}" for outer in region for inner in tile]
        of = {"mean": ["mean"], "region": region, "tile": tile, "pairs": pairs}
        return tuple(name for kind in self.maps for name in of[kind])

    def _maps(self, batch: Batch) -> torch.Tensor:
        import torch

        samples = batch.pixels if self.channels is None else batch.pixels[:, list(self.channels)]
        valid = np.ones_like(samples[:, 0], np.bool_) if batch.valid is None else batch.valid
        return torch.stack([self._region(*one) for one in zip(samples, valid, strict=True)])

    def _region(self, samples: Array, valid: npt.NDArray[np.bool_]) -> torch.Tensor:
        """Return the maps of one region, `(k, y, x)`, in its window."""
        import torch

        from tilestream.models.attention import factorised, region_sums, tile_sums

        networks, halo, stride = self.attended, self._halo_px, self.attended.token_px
        px, tiles = networks.contract.px, self.region_px // networks.contract.px
        counted = torch.from_numpy(counted_tiles(valid[halo:, halo:], tiles=tiles, px=px))
        window = torch.from_numpy(samples[:, halo:, halo:]).to(self.device, non_blocking=True)
        region_network = networks.region
        own = tile_sums(
            networks.tile, window, counted, tile_px=px, scale=networks.scaled, embeds=region_network is not None
        )
        above = None
        if region_network is not None:
            above = region_sums(region_network, own.vectors, counted, tile_px=px, tokens=px // stride)
        found = factorised(own, above)
        maps = torch.cat([found[kind] for kind in self.maps])
        edge, core = samples.shape[1] // stride, slice(halo // stride, (halo + self.region_px) // stride)
        out = maps.new_full((len(maps), edge, edge), float("nan"))
        out[:, core, core] = maps
        return out


def counted_tiles(valid: npt.NDArray[np.bool_], *, tiles: int, px: int) -> npt.NDArray[np.bool_]:
    """Return which tiles of a region and of its copies count: those with a valid pixel.

    Parameters
    ----------
    valid : ndarray of bool
        `(y, x)` from the upper left corner of the region on.
    tiles : int
        Tiles along the region.
    px : int
        Pixels along a tile.

    Returns
    -------
    ndarray of bool
        `(2, tiles + 1, tiles + 1)`, for the lattices of tiles that are not moved, and moved by half a tile.
    """
    edge = (tiles + 1) * px
    parts = (valid[first : first + edge, first : first + edge] for first in (0, px // 2))
    return np.stack([part.reshape(tiles + 1, px, tiles + 1, px).any(axis=(1, 3)) for part in parts])


def attention(
    encoder: str = "hipt",
    *,
    region_px: int = REGION_PX,
    maps: Sequence[str] = MAPS,
    positions: Sequence[int] | None = None,
    **weights: Any,
) -> AttentionStage:
    """Return the stage `attention`.

    Parameters
    ----------
    encoder : str
        `hipt`, or `module:callable` of what makes a network of tiles with a method `forward_attention`, or a pair of it
        and a network of regions.
    region_px : int
        Edge of a region, a multiple of the encoder's tile.
    maps : sequence of str
        Which maps, of `MAPS`.
    positions : sequence of int, optional
        Positions of its channels in a batch, as `for_image` finds them.
    **weights
        As `make_attended` takes them.

    Returns
    -------
    AttentionStage
        Its networks are made, and were tried on a black tile.

    Raises
    ------
    ConfigError
        When there is no such encoder, it has no attention or no weights, or the region or a map is none that it has.
    """
    made = make_attended(encoder, **weights)
    px, kinds = made.contract.px, tuple(maps)
    if region_px < px or region_px % px:
        raise ConfigError.of(
            "`--region`",
            got=f"{region_px} px",
            expected=f"a multiple of {px} px, the tile of `{encoder}`",
            do="Give one.",
        )
    known = MAPS if made.region is not None else ("mean", "tile")
    if maps is MAPS:
        kinds = known
    if not kinds or len(set(kinds)) < len(kinds) or not set(kinds) <= set(known):
        raise ConfigError.of(
            "`--maps`", got=", ".join(kinds) or "none", expected=f"some of {', '.join(known)}", do="Choose, each once."
        )
    if made.region is not None:
        made = try_regions(made, region_px // px)
    params = {"encoder": encoder, "region_px": region_px, "maps": list(kinds), **weights}
    bound = None if positions is None else tuple(int(k) for k in positions)
    return AttentionStage(attended=made, region_px=region_px, maps=kinds, params=params, channels=bound)


def _short(px: int) -> str:
    """Return what an edge is called: 4k for 4,096 px."""
    return f"{px // 1024}k" if px % 1024 == 0 else str(px)
