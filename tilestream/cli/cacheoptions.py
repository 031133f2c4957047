"""Options of the caches, the same for all commands that read images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from tilestream.cli.options import RUNNING, parse_size

Cache = Annotated[
    Any,  # typer takes the type from the parser
    typer.Option(
        "--cache",
        metavar="SIZE",
        parser=parse_size,
        help="Memory for tiles that are kept, shared by all worker processes of a machine: a second run over the same "
        "slides on the same workers reuses what fits (default: 128 MiB a process, an eighth of a machine at most).",
        rich_help_panel=RUNNING,
    ),
]


def parse_disk_cache(text: str) -> tuple[str, int]:
    """Return the folder and the budget of a disk cache.

    Parameters
    ----------
    text : str
        `DIR` or `DIR:SIZE`.

    Returns
    -------
    tuple of str and int
        Absolute path and bytes.

    Raises
    ------
    typer.BadParameter
        When there is no folder, or the size is too small to be of use.
    """
    from tilestream.cache.disk import LEAST_BYTES
    from tilestream.cache.stack import DISK_BYTES

    folder, colon, tail = text.rpartition(":")
    is_size = bool(colon) and re.fullmatch(r"\s*[\d.]+\s*([kmgtp]?i?b?)\s*", tail, re.IGNORECASE) is not None
    folder, budget = (folder, parse_size(tail)) if is_size else (text, DISK_BYTES)
    if not folder.strip():
        raise typer.BadParameter(f"got {text!r}, expected a folder, or a folder and a size such as /scratch/tiles:50GB")
    if budget < LEAST_BYTES:
        raise typer.BadParameter(
            f"got {tail!r}, expected at least {LEAST_BYTES >> 20} MiB, or it keeps next to nothing"
        )
    return str(Path(folder).expanduser().absolute()), budget


DiskCache = Annotated[
    Any,
    typer.Option(
        "--disk-cache",
        metavar="DIR[:SIZE]",
        parser=parse_disk_cache,
        help="Keep tiles of remote images, and of those on network shares, in this folder of a local disk for later "
        "runs (default size: 20 GiB on each machine). An empty folder, or one of an earlier run.",
        rich_help_panel=RUNNING,
    ),
]


def cache_fields(cache: int | None, disk_cache: tuple[str, int] | None) -> dict[str, Any]:
    """Return the options as fields of `EmbedConfig`.

    Parameters
    ----------
    cache : int, optional
        Bytes of memory on each machine.
    disk_cache : tuple of str and int, optional
        Folder and bytes.

    Returns
    -------
    dict
        Fields that differ from their defaults.
    """
    fields: dict[str, Any] = {}
    if cache is not None:
        fields |= {"cache_bytes": cache, "machine_cache_bytes": cache}
    if disk_cache is not None:
        fields |= {"disk_cache": disk_cache[0], "disk_cache_bytes": disk_cache[1]}
    return fields
