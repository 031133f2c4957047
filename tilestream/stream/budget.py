"""How many bytes a plan will hold at once, known before the first pixel is read."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import dataclass

import psutil
from distributed import get_worker
from distributed.system import MEMORY_LIMIT

from tilestream.errors import BudgetError
from tilestream.plan.tiles import TilePlan
from tilestream.pyramid.planned import FOOTPRINT_BYTES
from tilestream.pyramid.pyramid import Pyramid
from tilestream.stream.supply import RESERVE
from tilestream.stream.unitarea import band_bytes

WRITE_COPIES = 3
"""Rows of a unit stand in the results, in the encoded part and in the file's buffer."""
DEFAULT_SHARE = 0.5
"""Share of the memory free now that a run may take when nothing is said."""


@dataclass(frozen=True, kw_only=True)
class Projection:
    """Bytes by purpose; all but the cache are for one task."""

    batch_bytes: int
    """Pixels and validity of the tiles that enter a stage together."""
    decode_bytes: int
    """Blocks kept for the next row of tiles and the one being decoded, and the stored pixels under a resampled tile."""
    rows_bytes: int
    """Vectors of a unit until they are written."""
    cache_bytes: int
    """Decoded blocks kept in each process."""
    tasks: int
    """Tasks that run at once in one process."""

    @property
    def total_bytes(self) -> int:
        """Return the most bytes that one process will hold."""
        return self.cache_bytes + self.tasks * (self.batch_bytes + self.decode_bytes + self.rows_bytes)

    def require(self, limit_bytes: int, what: str) -> None:
        """Raise unless the projection fits.

        Parameters
        ----------
        limit_bytes : int
            Most bytes one process may hold.
        what : str
            Name of the input.

        Raises
        ------
        BudgetError
            With the numbers and what to change.
        """
        if self.total_bytes <= limit_bytes:
            return
        raise BudgetError.of(
            f"memory for `{what}`",
            got=(
                f"{_mib(self.total_bytes)} projected ({self.tasks} tasks x (batch {_mib(self.batch_bytes)} + decoding "
                f"{_mib(self.decode_bytes)} + rows {_mib(self.rows_bytes)}) + cache {_mib(self.cache_bytes)})"
            ),
            expected=f"at most {_mib(limit_bytes)}",
            do=self._advice(),
        )

    def _advice(self) -> str:
        if self.decode_bytes >= max(self.batch_bytes, self.rows_bytes):
            return "Its blocks are that large: raise --memory, use --cluster threads:1, or store it in tiles first."
        return "Raise --memory, or lower --batch or --super-tile, or use --cluster threads:1."


def project(pyramid: Pyramid, plan: TilePlan, *, batch: int, dims: int, tasks: int, decoders: int = 0) -> Projection:
    """Return the bytes that running a plan on an image will hold in one process.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    plan : TilePlan
        Its tiles.
    batch : int
        Tiles in a batch.
    dims : int
        Values a tile that the stages give, all together.
    tasks : int
        Tasks that run at once in one process.
    decoders : int
        Threads that decode ahead for each task.

    Returns
    -------
    Projection
        Bytes by purpose.
    """
    level, grid = plan.level, plan.grid
    sample = len(pyramid.channels) * pyramid.dtype.itemsize
    edge = grid.tile_px + 2 * grid.halo_px
    unit_tiles = min((plan.super_tile_px // grid.step_px) ** 2, len(plan))
    stored = pyramid.levels[level.stored]
    ratio_y, ratio_x = level.ratio_yx
    width_px = math.ceil((plan.super_tile_px + 2 * grid.halo_px) * ratio_x)
    decode = band_bytes(pyramid, level, edge_px=edge, width_px=width_px) + stored.block.area * (sample + 1)
    if not level.is_stored:
        footprint = (math.ceil(edge * ratio_y) + 1) * (math.ceil(edge * ratio_x) + 1) * (sample + 1)
        decode += min(footprint, 2 * FOOTPRINT_BYTES)
    decoders = min(decoders, -(-unit_tiles // batch))
    buffers = decoders + RESERVE if decoders else 1
    return Projection(
        # besides the buffers, what is left of one of them when tiles were taken out
        batch_bytes=(buffers + 1) * min(batch, unit_tiles) * edge * edge * (sample + 1),
        decode_bytes=decode * max(1, decoders),
        rows_bytes=WRITE_COPIES * unit_tiles * (dims * 4 + 16),
        cache_bytes=pyramid.cache_bytes,
        tasks=tasks,
    )


def memory_limit(given_bytes: int | None) -> int:
    """Return the bytes a process may hold: what was given, else a share of what is free now and its own."""
    if given_bytes is not None:
        return given_bytes
    return int(min(psutil.virtual_memory().available, *_allotted()) * DEFAULT_SHARE)


def _allotted() -> list[int]:
    """Return what container, batch job and cluster profile leave to this process, where they say it."""
    limits = [MEMORY_LIMIT]
    per_node = os.environ.get("SLURM_MEM_PER_NODE", "")  # MiB; 0 means all; what is free is the whole node's
    if per_node.isdigit() and int(per_node):
        limits.append(int(per_node) << 20)
    with suppress(ValueError):  # outside of a worker
        limits.append(get_worker().memory_manager.memory_limit or MEMORY_LIMIT)
    return limits


def _mib(nbytes: int) -> str:
    return f"{nbytes / (1 << 20):,.0f} MiB"
