"""The shared networks that this process knows, by their digests: tiles in files name theirs, and hold no copy."""

from __future__ import annotations

from tilestream.codecs.pyramid.nets import PyramidNets
from tilestream.errors import SourceError

ENDING = ".tspyramid"
"""How names of files of shared networks end; before it stands their digest."""
_known: dict[bytes, PyramidNets] = {}  # networks never change, and their digest says which they are


def keep_nets(nets: PyramidNets) -> PyramidNets:
    """Return networks after making them known, so that tiles which name them are read from now on.

    Parameters
    ----------
    nets : PyramidNets
        Which; checked.

    Returns
    -------
    PyramidNets
        Those of this digest that were known already, otherwise these.
    """
    return _known.setdefault(nets.digest, nets)


def find_nets(digest: bytes) -> PyramidNets:
    """Return the networks that a tile names.

    Parameters
    ----------
    digest : bytes
        `PyramidNets.digest`.

    Returns
    -------
    PyramidNets
        Known by `keep_nets`.

    Raises
    ------
    SourceError
        When they are not known.
    """
    if digest in _known:
        return _known[digest]
    others = ", ".join(f"`{one.hex()}`" for one in _known) or "none"
    raise SourceError.of(
        "shared networks of a `pyramid` tile",
        got=f"{others} at hand",
        expected=f"`{digest.hex()}`, which the tile names",
        do=f"Load the file `{digest.hex()}{ENDING}` that was written when they were trained (`--weights`).",
    )
