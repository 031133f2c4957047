"""Pixels of tokens, each read once and kept while there is room: of a gaze that moves only the difference is read."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isqrt
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tilestream.errors import BudgetError, ConfigError
from tilestream.fovea.gaze import Tokens, keys_of
from tilestream.fovea.rectangles import Rectangle, rectangles_of
from tilestream.kernels.gather import gather
from tilestream.kernels.patchify import patchify
from tilestream.pyramid.coarse import WINDOW_BYTES
from tilestream.pyramid.pyramid import Pyramid
from tilestream.pyramid.tokenlevels import token_level
from tilestream.types import Array, Box, PlanLevel

Batch = npt.NDArray[np.float32]
KEEP_BYTES = 256 << 20
"""Of pixels that are kept unless the caller says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Normalising:
    """How samples become what a model sees: (sample·scale − mean) / std."""

    mean: Sequence[float] | float = 0.0
    """Of each channel or of all."""
    std: Sequence[float] | float = 1.0
    """Of each channel or of all."""
    scale: float = 1 / 255
    """What samples are multiplied by before."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenTokens:
    """Pixels of tokens, and how much of each there is."""

    pixels: Batch
    """`(n, c, patch_px, patch_px)`, normalised."""
    share: npt.NDArray[np.float32]
    """`(n,)` share of each that is in the image and valid."""
    damage: Mapping[int, str]
    """Row → reason, of tokens of which something could not be decoded; their pixels are not to be believed."""


class Fetch(Protocol):
    """Reads tokens from where they are."""

    channels: int
    """Of the pixels."""

    def __call__(self, tokens: Tokens, patch_px: int) -> SeenTokens:
        """Return tokens, whose pixels own their memory."""


class LevelsInMemory:
    """Tokens of an image whose levels are arrays, each half as wide as the one before.

    Parameters
    ----------
    levels : sequence of ndarray
        `(c, y, x)` or `(y, x)` each, level 0 first, sizes rounded up; `[a, *tilestream.kernels.mip(a)]`.
    normalising : Normalising
        What becomes of samples.
    threads : int, optional
        Most CPU threads, by default all cores.

    Raises
    ------
    ConfigError
        When a level is not half as wide as the one before: tokens would show other places.
    """

    def __init__(self, levels: Sequence[Array], normalising: Normalising, *, threads: int | None = None) -> None:
        self._levels = _halved(levels)
        self._ratios = [2.0**level for level in range(len(self._levels))]
        self._normalising = normalising
        self._threads = threads
        self.channels = int(levels[0].shape[0]) if levels[0].ndim == 3 else 1

    def __call__(self, tokens: Tokens, patch_px: int) -> SeenTokens:
        """Return tokens; beyond the image's edge its nearest pixels."""
        how, share = self._normalising, np.empty(len(tokens), np.float32)
        pixels = gather(
            self._levels, tokens, patch_px=patch_px, mean=how.mean, std=how.std, scale=how.scale, ratios=self._ratios,
            out_share=share, threads=self._threads,
        )  # fmt: skip
        return SeenTokens(pixels=pixels, share=share, damage={})


def _halved(levels: Sequence[Array]) -> list[Array]:
    """Return levels of which each is half as wide as the one before, rounded up."""
    sizes = [tuple(level.shape[-2:]) for level in levels]
    expected = [tuple(-(-edge >> level) for edge in sizes[0]) for level in range(len(sizes))] if sizes else []
    if not sizes or sizes != expected:
        raise ConfigError.of(
            "`levels` of `LevelsInMemory`", got=f"sizes {sizes}", expected=f"{expected or 'level 0 at least'}",
            do="Make them with `tilestream.kernels.mip`, or read a file through `LevelsOfPyramid`.",
        )  # fmt: skip
    return list(levels)


class LevelsOfPyramid:
    """Tokens of a pyramid, read block by block; blocks stay in the process's cache of decoded ones.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    normalising : Normalising
        What becomes of samples.
    base : PlanLevel, optional
        Resolution of tokens of level 0, and the pixels that they lie in; by default that of the image.
    """

    def __init__(self, pyramid: Pyramid, normalising: Normalising, *, base: PlanLevel | None = None) -> None:
        self._pyramid = pyramid
        self._normalising = normalising
        finest = pyramid.levels[0]
        self._base = base or PlanLevel(stored=0, shape=finest.shape, scale_yx=finest.scale_yx)
        self._levels: list[PlanLevel] = []
        self.channels = len(pyramid.channels)

    def __call__(self, tokens: Tokens, patch_px: int) -> SeenTokens:
        """Return tokens, with the mean colour where nothing is valid."""
        pixels = np.empty((len(tokens), patch_px, patch_px, self.channels), self._pyramid.dtype)
        valid = np.ones(pixels.shape[:3], np.bool_)
        damage: dict[int, str] = {}
        for rectangle in self._rectangles(tokens, patch_px):
            self._fill(rectangle, pixels, valid, damage)
        how = self._normalising
        batch = patchify(
            pixels.transpose(0, 3, 1, 2), None if valid.all() else valid, mean=how.mean, std=how.std, scale=how.scale
        )
        share = valid.mean(axis=(1, 2), dtype=np.float32)
        return SeenTokens(pixels=batch, share=share, damage=damage)

    def _level(self, depth: int) -> PlanLevel:
        while len(self._levels) <= depth:
            self._levels.append(token_level(self._pyramid.info, self._base, len(self._levels)))
        return self._levels[depth]

    def _rectangles(self, tokens: Tokens, patch_px: int) -> list[Rectangle]:
        """Return what is read in one go: resampling a token of 16 px costs ten times what its pixels do."""
        found = []
        sample_bytes = self.channels * self._pyramid.dtype.itemsize
        for level in np.unique(tokens[:, 0]).tolist():
            rows = np.flatnonzero(tokens[:, 0] == level)
            stored_px = patch_px * float(max(self._level(level).ratio_yx))
            most = max(1, isqrt(int(WINDOW_BYTES / (stored_px * stored_px * sample_bytes))))
            found += [replace(one, rows=rows[one.rows]) for one in rectangles_of(tokens[rows], most=most)]
        return found

    def _fill(self, rectangle: Rectangle, pixels: Array, valid: npt.NDArray[np.bool_], damage: dict[int, str]) -> None:
        """Read a rectangle into its tokens; where something is damaged, token by token, to know which."""
        level, rows, patch_px = self._level(rectangle.level), rectangle.rows, pixels.shape[1]
        high, wide = rows.shape
        area = np.empty((high * patch_px, wide * patch_px, self.channels), pixels.dtype)
        known = np.ones(area.shape[:2], np.bool_)
        box = Box(
            level=level.stored, y=rectangle.y >> rectangle.level, x=rectangle.x >> rectangle.level,
            height=area.shape[0], width=area.shape[1],
        )  # fmt: skip
        filled = self._pyramid.read_plan(level, box, area, known)
        if filled.damage and rows.size > 1:
            size = patch_px << rectangle.level
            for (i, j), row in np.ndenumerate(rows):
                one = replace(rectangle, y=rectangle.y + i * size, x=rectangle.x + j * size, rows=np.full((1, 1), row))
                self._fill(one, pixels, valid, damage)
            return
        if filled.damage:
            damage[int(rows[0, 0])] = "; ".join(filled.damage)
        pixels[rows] = area.reshape(high, patch_px, wide, patch_px, self.channels).swapaxes(1, 2)
        valid[rows] = known.reshape(high, patch_px, wide, patch_px).swapaxes(1, 2)


class TokenPixels:
    """The pixels of tokens of one image, kept until others need the room; those seen longest ago go first.

    Parameters
    ----------
    fetch : Fetch
        Reads those that are not here.
    patch_px : int
        Edge of a token's pixels.
    keep_bytes : int
        Most bytes of pixels to keep.
    """

    def __init__(self, fetch: Fetch, *, patch_px: int, keep_bytes: int = KEEP_BYTES) -> None:
        self._fetch = fetch
        self._patch_px = patch_px
        self._token_bytes = 4 * fetch.channels * patch_px * patch_px
        self._most = keep_bytes // self._token_bytes
        if self._most < 1:
            least = f"room for a token of {self._token_bytes:,} bytes"
            raise ConfigError.of("`keep_bytes`", got=f"{keep_bytes:,} bytes", expected=least, do="Raise it.")
        # the system gives pages as they are written to
        self._pixels = np.empty((self._most, fetch.channels, patch_px, patch_px), np.float32)
        self._share = np.empty(self._most, np.float32)
        self._slots: OrderedDict[int, int] = OrderedDict()
        self._damage: dict[int, str] = {}
        self._seen: list[int] = []
        self.fetched = 0
        """How many tokens have been fetched."""

    def __len__(self) -> int:
        return len(self._slots)

    def read(self, tokens: Tokens) -> SeenTokens:
        """Return the pixels of tokens; only those that are not here are fetched.

        Parameters
        ----------
        tokens : ndarray of int64
            `(n, 4)`: level, y, x, size; each once.

        Returns
        -------
        SeenTokens
            In the order of the tokens.

        Raises
        ------
        BudgetError
            When so many cannot be kept together.
        """
        if len(tokens) > self._most:
            raise BudgetError.of(
                "pixels of tokens", got=f"{len(tokens):,} tokens of {self._token_bytes:,} bytes",
                expected=f"at most {self._most:,} in `keep_bytes`",
                do=f"Raise `keep_bytes` to {len(tokens) * self._token_bytes:,}, or see less finely.",
            )  # fmt: skip
        self._seen = keys_of(tokens).tolist()
        self._bring(tokens, self._seen)
        slots = [self._slots[key] for key in self._seen]
        damage = {row: self._damage[slot] for row, slot in enumerate(slots) if slot in self._damage}
        return SeenTokens(pixels=self._pixels[slots], share=self._share[slots], damage=damage)

    def read_ahead(self, tokens: Tokens) -> int:
        """Fetch tokens that will be wanted, as far as there is room beside those read last; return how many.

        Parameters
        ----------
        tokens : ndarray of int64
            `(n, 4)`: `GazeMove.ahead`.

        Returns
        -------
        int
            Tokens fetched.
        """
        before = self.fetched
        tokens = tokens[: self._most - len(self._seen)]
        self._bring(tokens, keys_of(tokens).tolist())
        for key in self._seen:
            self._slots.move_to_end(key)
        return self.fetched - before

    def _bring(self, tokens: Tokens, keys: list[int]) -> None:
        """Have tokens here, and make them the last ones to go."""
        missing = [row for row, key in enumerate(keys) if key not in self._slots]
        found = self._fetch(tokens[missing], self._patch_px) if missing else None
        for key in keys:
            if key in self._slots:
                self._slots.move_to_end(key)
        if found is None:
            return
        slots = []
        for row in missing:
            # slots are taken in order until all are in use
            slot = len(self._slots) if len(self._slots) < self._most else self._slots.popitem(last=False)[1]
            self._slots[keys[row]] = slot
            self._damage.pop(slot, None)
            slots.append(slot)
        self._pixels[slots], self._share[slots] = found.pixels, found.share
        self._damage.update({slots[row]: reason for row, reason in found.damage.items()})
        self.fetched += len(missing)
