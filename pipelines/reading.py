"""How much of an image a run has read: pixels decoded on each stored level, and bytes of its files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path

from tilestream.pipelines.keys import is_remote
from tilestream.pyramid.keeping import DECODED
from tilestream.pyramid.pyramid import Pyramid
from tilestream.sources.address import parse_address
from tilestream.sources.files import File
from tilestream.sources.stamps import stamps_of

MOST_FILES = 10_000
"""Files of a folder that are asked for their size: a Zarr without shards can have millions."""


def stored_bytes(address: str, pyramid: Pyramid) -> int | None:
    """Return the size of the files of an image, None where it is not known.

    Parameters
    ----------
    address : str
        Path or URL, perhaps with what is selected of it.
    pyramid : Pyramid
        The image.

    Returns
    -------
    int or None
        Bytes; None for remote folders and for folders of more than 10,000 files, which would have to be listed.
    """
    url = parse_address(address).url
    try:
        if is_remote(url):
            return File(url=url).size
        path = Path(url.removeprefix("file://"))
        if path.is_dir():
            sizes = [part.stat().st_size for part in islice(path.rglob("*"), MOST_FILES + 1) if part.is_file()]
            return None if len(sizes) > MOST_FILES else sum(sizes)
        # the metadata of a scene are small, and its bands beside them are not
        return max(path.stat().st_size, sum(stamp.size_bytes for stamp in stamps_of(pyramid.source)))
    except (OSError, NotImplementedError):
        return None  # a remote folder: its size would take a listing of every object


def decoded_px(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Return the pixels that were decoded, by stored level.

    Parameters
    ----------
    counts : iterable of Mapping
        Counts of the tasks that have worked on the image.

    Returns
    -------
    dict
        Pixels by the number of the level, finest first. A block that a cache has given is not decoded again; one that
        two super-tiles touch may be decoded for each.
    """
    found: Counter[int] = Counter()
    for one in counts:
        for name, amount in one.items():
            if name.startswith(DECODED):
                found[int(name.removeprefix(DECODED))] += amount
    return {str(level): found[level] for level in sorted(found)}
