"""How many bytes a store will take and its making will hold, known before the first of them is written."""

from __future__ import annotations

from dataclasses import dataclass

from tilestream.codecs.metadata import is_fill
from tilestream.codecs.place import Place
from tilestream.errors import BudgetError, OutputError
from tilestream.pyramid.pyramid import Pyramid
from tilestream.pyramid.supertile import levels_of_base, read_base
from tilestream.sinks.layout import StoreLayout
from tilestream.sinks.pyramid import LevelWriter
from tilestream.sinks.tree import staging_of
from tilestream.sources.encoded import encoded_level
from tilestream.stream.budget import memory_limit
from tilestream.types import Box, Shape

SAMPLES = 32
"""Squares from which the share that zstd leaves is told."""
STEP_YX = 0.7548776662466927, 0.5698402909980532
"""Each lies that share of the image further than the one before: they fill it evenly, and no pattern of it fits them.
M. Roberts, The unreasonable effectiveness of quasirandom sequences (2018), the sequence R2."""
SAMPLE_CHUNKS = 2
"""Chunks along the edge of such a square; half its size is one chunk, which tells of coarse levels."""
MARGIN = 1.1
"""A destination must have that much more room than is projected: the share is told from a few squares."""
COARSE = 4 / 3
"""All levels of a pyramid take that many times the bytes of its finest."""


@dataclass(frozen=True, kw_only=True)
class Projected:
    """Bytes of one store."""

    store_bytes: int
    """About what it will take on disk."""
    task_bytes: int
    """Most that one task holds."""

    def require(self, root: Place, *, tasks: int, memory_bytes: int | None, what: str) -> None:
        """Raise unless there is room for the store and for the work on it.

        Parameters
        ----------
        root : Place
            Where the store goes.
        tasks : int
            Tasks that run at once in one process.
        memory_bytes : int, optional
            Most bytes that one process may hold; half of what is free by default.
        what : str
            Name of the input.

        Raises
        ------
        OutputError
            When the disk is too full.
        BudgetError
            When the work holds too much.
        """
        free = root.free_bytes()
        if free is not None:  # what an earlier run has written is there already
            free += sum(staging_of(root).sizes().values())
        if free is not None and free < self.store_bytes * MARGIN:
            raise OutputError.of(
                f"`{root.url}`",
                got=f"{free:,} bytes free",
                expected=f"about {int(self.store_bytes * MARGIN):,} for `{what}`",
                do="Free some space, or choose another `--out` or `--profile`.",
            )
        limit = memory_limit(memory_bytes)
        if tasks * self.task_bytes > limit:
            raise BudgetError.of(
                f"memory for `{what}`",
                got=f"{tasks * self.task_bytes >> 20:,} MiB projected ({tasks} tasks)",
                expected=f"at most {limit >> 20:,} MiB",
                do="Raise --memory, or use --cluster threads:1.",
            )


def project_store(pyramid: Pyramid, layout: StoreLayout, *, halo_px: int = 0) -> Projected:
    """Return the bytes that a store will take and its making will hold.

    Parameters
    ----------
    pyramid : Pyramid
        The image.
    layout : StoreLayout
        Its arrays.
    halo_px : int
        How far around a unit its levels look.

    Returns
    -------
    Projected
        Made levels are projected from a few squares of the image; nothing is guessed of its content.
    """
    pixel_bytes = layout.channels * layout.dtype.itemsize
    made = [level for level in layout.levels if level.copied is None]
    shares = _shares(pyramid, layout) if made else (0.0, 0.0)
    made_bytes = sum(level.shape.area * shares[level.index > 0] for level in made) * pixel_bytes
    copied = [encoded_level(pyramid.source, level.copied) for level in layout.levels if level.copied is not None]
    shrinks = [level.transcoding for level in layout.levels if level.copied is not None]
    copied_bytes = sum(
        int(level.stored_bytes * (1 if shrink is None else shrink.share))
        for level, shrink in zip(copied, shrinks, strict=True)
    )
    block = pyramid.levels[0].block
    edge = layout.unit_px + 2 * halo_px
    strips = block.y * (edge + 2 * block.x) * pixel_bytes
    task = int(edge**2 * (pixel_bytes + 1) * COARSE) + strips if made else 0
    for level, stored in zip((one for one in layout.levels if one.copied is not None), copied, strict=True):
        # the streams of a shard, twice while they are gathered, and a row of its tiles where masks are read
        shard = 2 * stored.stored_bytes // max(1, level.shards.area) + level.chunk.y * level.shard.x * (pixel_bytes + 1)
        task = max(task, shard)
    return Projected(store_bytes=copied_bytes + int(made_bytes), task_bytes=task)


def _shares(pyramid: Pyramid, layout: StoreLayout) -> tuple[float, float]:
    """Return the share of its bytes that the finest level takes when it is encoded, and that a coarser one does."""
    made = next(level for level in layout.levels if level.copied is None)
    writer = LevelWriter(place=Place.of(""), prefix="", layout=layout)
    whole, edge = pyramid.levels[0].shape, made.chunk.y * SAMPLE_CHUNKS
    raw, encoded = [0, 0], [0, 0]
    for y, x in sorted({_square(number, whole, edge) for number in range(SAMPLES)}):
        base = read_base(pyramid, Box(y=y, x=x, height=edge, width=edge))
        for coarse, level in enumerate(levels_of_base(base, 1)):
            raw[coarse] += level.pixels.nbytes
            for part in writer.parts(made, level.pixels):
                if part is not None and not is_fill(part, layout.fill_value):
                    encoded[coarse] += len(writer.encode(made, part))
    return encoded[0] / max(1, raw[0]), encoded[1] / max(1, raw[1])


def _square(number: int, whole: Shape, edge: int) -> tuple[int, int]:
    """Return the first row and column of a square."""
    y, x = (
        int((0.5 + number * step) % 1 * max(0, length - edge + 1))
        for length, step in zip(whole.yx, STEP_YX, strict=True)
    )
    return y, x
