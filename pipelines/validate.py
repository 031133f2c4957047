"""Whether an image is what it says: its metadata, its files, and every stored tile of every level."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from tilestream import __version__
from tilestream.errors import DamagedError, SourceError
from tilestream.pipelines.check import available_cores
from tilestream.pipelines.validators import Verdict, foreign_verdicts
from tilestream.sources.address import parse_address
from tilestream.sources.files import File
from tilestream.sources.opening import open_source, recognise
from tilestream.sources.samples import extra_axes
from tilestream.sources.zarrcheck import check_levels
from tilestream.sources.zarrchunks import check_chunks
from tilestream.sources.zarrimages import Findings, stored_images
from tilestream.sources.zarrplace import check_place
from tilestream.types import ImageInfo, Level, Source

MOST_NAMED = 20
"""Damaged tiles that are named; the rest is counted."""
US = f"tilestream {__version__}"


@dataclass(frozen=True, kw_only=True)
class Validation:
    """All verdicts on one image."""

    path: str
    """What was opened."""
    verdicts: tuple[Verdict, ...]
    """Ours, then those of others."""

    @property
    def exit_code(self) -> int:
        """Return 3 when a check says that it is invalid, 0 otherwise."""
        return 3 if any(verdict.outcome == "invalid" for verdict in self.verdicts) else 0


def validate_image(url: str, *, on_level: Callable[[int, int], None] = lambda level, levels: None) -> Validation:
    """Return what all checks that are installed say of one image; every stored tile is read and decoded.

    Parameters
    ----------
    url : str
        Path or URL, with or without a selection.
    on_level : callable
        Told number of the level that is being read, and how many there are.

    Returns
    -------
    Validation
        Verdicts. An image that cannot be opened is an invalid one.

    Raises
    ------
    SourceError
        When there is nothing, or nothing that is an image.
    ConfigError
        When the selection does not exist.

    Notes
    -----
    A tile is good when it can be decoded. A bit flip that leaves a valid stream cannot be seen in a format without
    checksums.
    """
    file = File(url=parse_address(url).url)
    family = recognise(file)
    verdicts: list[Verdict] = []
    source: Source | None = None
    try:
        source = open_source(url)
        verdicts.append(Verdict(check="headers", by=US, outcome="valid", notes=source.info.notes))
    except SourceError as error:
        verdicts.append(Verdict(check="headers", by=US, outcome="invalid", problems=(str(error),)))
    if family == "zarr":
        verdicts += _zarr_verdicts(file)
    if source is not None:
        verdicts.append(_tiles(source, on_level))
    if family == "zarr":
        verdicts += foreign_verdicts(file)
    return Validation(path=url, verdicts=tuple(verdicts))


def _zarr_verdicts(file: File) -> list[Verdict]:
    metadata, chunks = Findings(), Findings()
    found = 0
    for image in stored_images(file, metadata):
        check_levels(image, metadata)
        check_place(image, metadata)
        found += check_chunks(image, chunks)
    chunks.notes.insert(0, f"{found:,} files of pixels")
    return [_own("metadata", metadata), _own("chunks", chunks)]


def _own(check: str, findings: Findings) -> Verdict:
    return Verdict(
        check=check,
        by=US,
        outcome="invalid" if findings.problems else "valid",
        problems=tuple(findings.problems),
        notes=tuple(findings.notes),
    )


def _tiles(source: Source, on_level: Callable[[int, int], None]) -> Verdict:
    """Return the verdict on the tiles of all levels, which are decoded and thrown away."""
    findings, tiles, absent, damaged = Findings(), 0, 0, 0
    levels = source.info.levels
    with ThreadPoolExecutor(available_cores()) as pool:
        for level in levels:
            on_level(level.index, len(levels))
            for iy in range(level.blocks.y):  # a row at a time, so that nothing piles up
                for ix, reason in enumerate(pool.map(partial(_read, source, level, iy), range(level.blocks.x))):
                    tiles += 1
                    absent += reason == _ABSENT
                    if reason not in (None, _ABSENT):
                        damaged += 1
                        if damaged <= MOST_NAMED:
                            findings.problems.append(f"level {level.index}, tile row {iy}, column {ix}: {reason}")
    if damaged > MOST_NAMED:
        findings.problems.append(f"{damaged - MOST_NAMED:,} more")
    sparse = f", {absent:,} of them not stored" if absent else ""
    findings.notes.append(f"{tiles:,} tiles on {len(levels)} levels{sparse}, {damaged:,} damaged")
    findings.notes += _left_out(source.info)
    return _own("tiles", findings)


_ABSENT = ""


def _read(source: Source, level: Level, iy: int, ix: int) -> str | None:
    """Return why a tile cannot be decoded, None when it can, `_ABSENT` when none is stored."""
    try:
        return _ABSENT if source.read_block(level.index, iy, ix) is None else None
    except (DamagedError, SourceError) as error:
        return str(error) or type(error).__name__


def _left_out(info: ImageInfo) -> list[str]:
    axes = {name: size for name, size in extra_axes(info.axes).items() if size > 1}
    if not axes:
        return []
    chosen = ", ".join(f"{name}={info.selection.get(name, 0)} of {size}" for name, size in axes.items())
    return [f"only the tiles of {chosen} were read"]
