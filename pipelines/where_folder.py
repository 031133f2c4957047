"""`--where FOLDER`: a file of coordinates for each slide, found by the slide's name as TRIDENT and CLAM name it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tilestream.errors import ConfigError
from tilestream.pipelines.cohort import Cohort
from tilestream.pipelines.keys import is_remote
from tilestream.sinks.jobfiles import stem_of
from tilestream.sources.patchfiles import is_patch_file

PATCHES = "patches"
"""Folder of coordinates in a job of TRIDENT and in one of CLAM."""
ENDINGS = ("_patches.h5", ".h5")
"""Of TRIDENT's files, and of all others."""


def give_coordinates(cohort: Cohort, where: str) -> Cohort:
    """Return a cohort in which each slide has its own file of a folder of coordinates.

    Parameters
    ----------
    cohort : Cohort
        The inputs; masks that a manifest gives them stay.
    where : str
        What `--where` says; anything but a folder with files of coordinates changes nothing.

    Returns
    -------
    Cohort
        Slides without a file name one that is not there, which is told when their turn comes.

    Raises
    ------
    ConfigError
        When none of the slides has a file, or two of them share one.
    """
    folder = coordinates_folder(where)
    if folder is None:
        return cohort
    names = {path.name for path in folder.iterdir() if is_patch_file(path)}
    taken: dict[str, str] = {}
    entries = []
    for entry in cohort.entries:
        if entry.mask is None:
            stem = stem_of(entry.key)
            name = next((name for ending in ENDINGS if (name := f"{stem}{ending}") in names), f"{stem}{ENDINGS[0]}")
            if name in taken and name in names:
                raise ConfigError.of(
                    f"`{folder / name}`",
                    got=f"the patches of both `{taken[name]}` and `{entry.key}`",
                    expected="a name for each slide",
                    do="Give each its own file in the column `mask` of a manifest (`--manifest`).",
                )
            taken[name] = entry.key
            entry = replace(entry, mask=str(folder / name))
        entries.append(entry)
    if taken and not names & set(taken):
        raise ConfigError.of(
            f"`{where}`",
            got=f"coordinates of {len(names):,} slides, none of which is an input (such as `{min(names)}`)",
            expected=f"files such as `{next(iter(taken))}`",
            do="Check both paths, or name files in the column `mask` of a manifest (`--manifest`).",
        )
    return replace(cohort, entries=tuple(entries))


def coordinates_folder(where: str) -> Path | None:
    """Return the folder of coordinates that a path means, None where it means something else."""
    if is_remote(where):
        return None
    path = Path(where.removeprefix("file://"))
    for folder in (path, path / PATCHES):
        if folder.is_dir() and any(is_patch_file(one) for one in folder.iterdir()):
            return folder.absolute()
    return None
