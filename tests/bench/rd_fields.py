"""The neural fields of the panel: which, at which qualities, and on which pictures where fits take minutes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tilestream import codecs
from tilestream.codecs import Contestant

SOME = ("cmu-a", "os1-half", "kodim01")
"""Pictures that fields are fitted to unless all are asked for: a fit takes a minute or more on two cores."""
_SOURCES = ("fields/*.py", "quantise.py", "entropy.py", "codemodels.py", "tilecodec.py")


@dataclass(frozen=True, kw_only=True)
class FieldEntry:
    """A field of the panel."""

    name: str
    """In `tilestream.registry.CODECS`."""
    qualities: tuple[float, ...] = (10.0, 30.0, 50.0, 70.0, 90.0)
    """Its knob."""
    steps: int = 1500
    """Of each fit."""
    levels: int = 1
    """Fitted at once; 1 is what compares with a codec of one image, a store asks for 4."""
    pictures: tuple[str, ...] = SOME
    """What it is fitted to unless all are asked for."""


_SMALL = {"qualities": (10.0, 30.0, 50.0, 70.0), "steps": 600, "pictures": ("os1-half",)}
"""Of networks of coordinates: all parameters work for each pixel, so that a bit a pixel takes minutes."""
FIELDS = (
    FieldEntry(name="hash"),
    FieldEntry(name="siren", **_SMALL),
    FieldEntry(name="fourier", **_SMALL),
    FieldEntry(name="modulated", levels=4, **_SMALL),
)
"""Others register by a line here. `shared` needs a decoder trained on other pictures: it has its own benchmark."""


def digest() -> str:
    """Return 12 hex digits of BLAKE2b of the code that fits, quantises and codes fields."""
    folder, found = Path(codecs.__file__).parent, hashlib.blake2b(digest_size=6)
    for path in sorted(path for pattern in _SOURCES for path in folder.glob(pattern)):
        found.update(path.read_bytes())
    return found.hexdigest()


def contestants(names: Sequence[str], *, steps: int | None = None) -> list[tuple[Contestant, tuple[str, ...]]]:
    """Return fields as contestants, each with the names of the pictures that it is fitted to.

    Parameters
    ----------
    names : sequence of str
        Of `FIELDS`.
    steps : int, optional
        Of each fit; by default as its entry says.

    Returns
    -------
    list of tuple
        In the order of `FIELDS`. Their version is the code of fields: changed code is measured again.
    """
    version = f"fields {digest()}"
    return [
        (
            Contestant.of_field(one.name, one.qualities, steps=steps or one.steps, levels=one.levels, version=version),
            one.pictures,
        )
        for one in FIELDS
        if one.name in names
    ]
