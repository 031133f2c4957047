"""Which directories of a TIFF file are levels, masks, separate pages, or pictures that must stay inside."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tilestream.errors import SourceError
from tilestream.sources.tiffifd import Ifd, refuse
from tilestream.sources.tiffread import LevelTables
from tilestream.sources.tifftable import TileTable, parse_table
from tilestream.types import Shape

_IDENTIFYING = re.compile(r"\b(label|macro|barcode|slide ?id)\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The selected 2-D image of a file: its levels and what was left out."""

    format: str
    """Short name of the format."""
    ifd: Ifd
    """Directory that describes the image (level 0)."""
    levels: tuple[LevelTables, ...]
    """Levels, finest first."""
    axes: Mapping[str, int] = field(default_factory=dict)
    """Sizes of the axes that are chosen on."""
    thumbnail: TileTable | None = None
    """Small picture of the scan alone."""
    channels: tuple[str, ...] = ()
    """Names of channels where the file states them."""
    colors: tuple[str | None, ...] = ()
    """Colours of the same channels, six hex digits each; empty when the file states none."""
    mpp_yx: tuple[float, float] | None = None
    """Micrometres per pixel where the file states them."""
    identifying: Mapping[str, Ifd] = field(default_factory=dict)
    """Directories of pictures that may show a label, by name; never parsed unless the user asks for them."""
    notes: tuple[str, ...] = ()
    """What a user should know."""


def aperio_layout(ifds: Sequence[Ifd]) -> Layout:
    """Return the levels of an Aperio file: its tiled directories; label and macro images are never parsed.

    Parameters
    ----------
    ifds : sequence of Ifd
        Directories in the order of the file.

    Returns
    -------
    Layout
        Levels and, where there is one, the thumbnail.

    Raises
    ------
    SourceError
        When the first directory cannot be read.
    """
    base = parse_table(ifds[0])
    tables, thumbnail, notes = [base], None, list[str]()
    identifying: dict[str, Ifd] = {}
    for index, ifd in enumerate(ifds[1:], 1):
        text, kind = ifd.text(270).split("|")[0], ifd.one(254, 0)
        if _IDENTIFYING.search(text) or kind & 8 or (kind & 1 and 322 not in ifd):
            add_picture(identifying, ifd, text)
            continue
        table = parse_table(ifd)
        if table.tiled and table.same_kind == base.same_kind and _factor(tables[-1].shape, table.shape, 0.02):
            tables.append(table)
        elif index == 1 and not table.tiled and _factor(base.shape, table.shape, 0.02):
            thumbnail = table
        elif table.tiled:
            notes.append(f"a tiled picture of {table.shape.y} x {table.shape.x} pixels is no level and is left out")
    return Layout(
        format="aperio-svs",
        ifd=ifds[0],
        levels=tuple(LevelTables(tables=(table,)) for table in tables),
        thumbnail=thumbnail,
        identifying=identifying,
        colors=_aperio_colors(ifds[0].text(270), base.samples),
        mpp_yx=_aperio_mpp(ifds[0].text(270)),
        notes=tuple(notes),
    )


def _aperio_mpp(description: str) -> tuple[float, float] | None:
    found = re.search(r"\|\s*MPP\s*=\s*([0-9]+(?:[.,][0-9]+)?)\s*(?:[|;\r\n]|$)", description)
    value = float(found[1].replace(",", ".")) if found else 0.0
    return (value, value) if value > 0 else None


def _aperio_colors(description: str, samples: int) -> tuple[str | None, ...]:
    """Return the colour in which a fluorescence scan of one channel is shown: a number of 24 bits."""
    found = re.search(r"\|\s*DisplayColor\s*=\s*(\d{1,8})\s*(?:\||$)", description)
    return (f"{int(found[1]):06X}",) if samples == 1 and found and int(found[1]) < 1 << 24 else ()


def generic_layout(ifds: Sequence[Ifd], *, page: int, outer: Sequence[Ifd] = (), mask: Sequence[Ifd] = ()) -> Layout:
    """Return one page of a plain TIFF or GeoTIFF with its overviews and masks.

    A directory marked as reduced, or a tiled one of the same proportions and kind that is smaller by 1.5 or more, is a
    level; one marked as a mask belongs to the level of its size; any other starts a page.

    Parameters
    ----------
    ifds : sequence of Ifd
        Directories in the order of the file.
    page : int
        Page wanted.
    outer : sequence of Ifd
        Directories of an external overview file.
    mask : sequence of Ifd
        Directories of an external mask file.

    Returns
    -------
    Layout
        The page; its axis `page` has a size above 1 when there are several.

    Raises
    ------
    SourceError
        When the first directory of the page, or a mask, cannot be read.
    """
    pages, identifying = _split(ifds)
    if page >= len(pages):
        raise refuse(ifds[0].header.file, got=f"{len(pages)} pages", expected=f"page {page}", do="Open it again.")
    head, rest = pages[page]
    base = parse_table(head)
    levels, masks, notes = [base], list[TileTable](), _imagej_notes(head, len(pages))
    for ifd in [*rest, *head.children(), *outer]:
        table, problem = _try_table(ifd)
        if table is None:
            notes.append(problem)
        elif table.mask:
            masks.append(table)
        elif table.same_kind == base.same_kind and _factor(base.shape, table.shape, None):
            levels.append(table)
        else:
            notes.append(f"a smaller picture of {table.shape.y} x {table.shape.x} pixels of another kind is left out")
    masks += [parse_table(ifd) for ifd in mask] if not masks else []
    unique = {table.shape: table for table in reversed(levels)}  # of two of one size the first counts
    ordered = sorted(unique.values(), key=lambda table: -table.shape.area)
    return Layout(
        format="tiff",
        ifd=head,
        levels=_with_masks(ordered, masks, notes),
        identifying=identifying,
        axes={"page": len(pages)} if len(pages) > 1 else {},
        notes=tuple(notes),
    )


def _with_masks(levels: list[TileTable], masks: list[TileTable], notes: list[str]) -> tuple[LevelTables, ...]:
    """Return levels with the mask of their size; one without, where others have one, would show too much as valid."""
    by_shape = {mask.shape: mask for mask in reversed(masks)}
    if by_shape and levels[0].shape not in by_shape:
        notes.append("the mask is of another size than the image and is left out")
        by_shape = {}
    kept = [table for table in levels if not by_shape or table.shape in by_shape]
    if len(kept) < len(levels):
        notes.append(f"{len(levels) - len(kept)} overviews have no mask and are left out, because the image has one")
    return tuple(LevelTables(tables=(table,), mask=by_shape.get(table.shape)) for table in kept)


def _imagej_notes(ifd: Ifd, pages: int) -> list[str]:
    """Return a note for a large ImageJ stack, which describes all its planes by one directory."""
    text = ifd.text(270)[:4096]
    found = re.search(r"^images=(\d+)", text, re.MULTILINE) if text.startswith("ImageJ=") else None
    if found is None or int(found[1]) <= pages:
        return []
    return [f"an ImageJ stack of {found[1]} planes of which {pages} have a directory: the others are not read"]


def add_picture(pictures: dict[str, Ifd], ifd: Ifd, text: str) -> None:
    """Add the directory of a picture that may show a label, named by its text, else by Aperio's rule (1, 9).

    Parameters
    ----------
    pictures : dict
        Directories by name; gets one more, numbered where the name is taken.
    ifd : Ifd
        Its directory.
    text : str
        What describes it.
    """
    found = re.search(r"label|macro", text, re.IGNORECASE)
    name = found[0].lower() if found else "macro" if ifd.one(254, 0) & 8 else "label"
    taken = sum(known.partition("-")[0] == name for known in pictures)
    pictures[f"{name}-{taken + 1}" if taken else name] = ifd


def _split(ifds: Sequence[Ifd]) -> tuple[list[tuple[Ifd, list[Ifd]]], dict[str, Ifd]]:
    """Return pages, a first directory each and those that belong to it; and pictures that may show a label."""
    pages: list[tuple[Ifd, list[Ifd]]] = []
    identifying: dict[str, Ifd] = {}
    for ifd in ifds:
        subfile = ifd.one(254, 0)
        if pages and (subfile & 5 or ifd.one(255, 0) == 2 or _fits(pages[-1][0], ifd)):
            pages[-1][1].append(ifd)
        elif pages and _IDENTIFYING.search(text := ifd.text(270)[:4096]):
            add_picture(identifying, ifd, text)
        else:
            pages.append((ifd, []))
    return pages, identifying


def _fits(base: Ifd, ifd: Ifd) -> bool:
    """Return whether an unmarked directory looks like a level of `base`."""
    tiled = 324 in base and 324 in ifd
    alike = all(base.ints(code) == ifd.ints(code) for code in (258, 262, 277, 339))
    shapes = [Shape(y=max(1, one.one(257, 1)), x=max(1, one.one(256, 1))) for one in (base, ifd)]
    return tiled and alike and _factor(shapes[0], shapes[1], 0.02) >= 1.5


def _try_table(ifd: Ifd) -> tuple[TileTable | None, str]:
    if ifd.one(254, 0) & 4:
        return parse_table(ifd), ""
    try:
        return parse_table(ifd), ""
    except SourceError as error:
        reason = str(error).partition(": ")[2]  # without the path: notes are stored with the results
        return None, f"a directory at byte {ifd.offset} is left out: {reason}"


def _factor(base: Shape, small: Shape, tolerance: float | None) -> float:
    """Return how often `small` goes into `base`; 0 when it is larger or its proportions differ.

    Rounding may cost a pixel on each axis; `tolerance` allows more, and None accepts any proportions.
    """
    if small.y > base.y or small.x > base.x or small == base:
        return 0.0
    factor = float(np.sqrt(base.area / small.area))
    if tolerance is not None:
        for long, short in ((base.y, small.y), (base.x, small.x)):
            if abs(long / factor - short) > max(1.5, tolerance * short):
                return 0.0
    return factor
