"""The neural codecs of the panel: which, at which qualities, and on which pictures where fits take minutes."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from tests.bench import rd_shared
from tests.bench.rd_pictures import CROPS, SMALL_PX
from tilestream import codecs
from tilestream.codecs import Contestant
from tilestream.codecs.tilecodec import tile_codec

SOME = ("cmu-a", "os1-half", "kodim01")
"""Pictures that fields are fitted to unless all are asked for: a fit takes a minute or more on two cores."""
SMALL_ONES = tuple(crop.name for crop in CROPS if crop.edge_px == SMALL_PX)
"""Pictures of 256 px, to which networks are fitted."""
_COMMON = ("quantise.py", "entropy.py", "codemodels.py", "container.py")
_SOURCES = {"pyramid": ("pyramid/*.py",)}
_FIELDS = ("fields/*.py", "tilecodec.py")
_SHARED = ("shared*.py", "analysis*.py", "muon.py")
_NO_BYTES = ("torchdecode.py", "pyramidtile.py", "residual*.py")
"""Files of the pyramid codec that only read, or bound errors."""
_RATES = (22.0, 40.0, 57.0, 74.0)
"""Qualities of the pyramid codec that give 0.4 to 3 bits per pixel of tissue."""


@dataclass(frozen=True, kw_only=True)
class FieldEntry:
    """A neural codec of the panel."""

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

    @property
    def version(self) -> str:
        """Return what its bytes depend on besides its qualities: the code that fits, quantises and codes, and steps."""
        code = digest((*_COMMON, *_SOURCES.get(self.name, _FIELDS)), without=(*_NO_BYTES, *_SHARED))
        return f"{self.name} {code} steps {self.steps} levels {self.levels}"

    @property
    def contestant(self) -> Contestant:
        """Return it as a contestant: changed code is measured again."""
        given = {"codec": self.name, "steps": self.steps, "levels": self.levels}
        codecs = {quality: tile_codec({**given, "quality": quality}) for quality in self.qualities}
        return Contestant.of_tiles(self.name, codecs, version=self.version)


_SMALL = {"qualities": (10.0, 30.0, 50.0, 70.0), "steps": 600, "pictures": ("os1-half",)}
"""Of networks of coordinates: all parameters work for each pixel, so that a bit a pixel takes minutes."""
FIELDS = (
    FieldEntry(name="hash"),
    FieldEntry(name="siren", **_SMALL),
    FieldEntry(name="fourier", **_SMALL),
    FieldEntry(name="modulated", levels=4, **_SMALL),
    FieldEntry(name="pyramid", qualities=_RATES, steps=4000, pictures=SMALL_ONES),
)
"""Others register by a line here. `shared` needs a decoder trained on other pictures: it has its own benchmark."""

NAMES = (*(one.name for one in FIELDS), *rd_shared.KINDS)
"""Of all neural codecs of the panel."""


def digest(sources: Sequence[str], *, without: Sequence[str] = ()) -> str:
    """Return 12 hex digits of BLAKE2b of what code does: comments, docstrings and layout are left out.

    Parameters
    ----------
    sources : sequence of str
        Patterns of files of `tilestream.codecs`.
    without : sequence of str
        Patterns of names of those that do not count.

    Returns
    -------
    str
        The same as long as the code does the same for the same reason.
    """
    folder, found = Path(codecs.__file__).parent, hashlib.blake2b(digest_size=6)
    for path in sorted(path for pattern in sources for path in folder.glob(pattern)):
        if not any(fnmatch(path.name, one) for one in without):
            found.update(ast.dump(_bare(ast.parse(path.read_text()))).encode())
    return found.hexdigest()


def _bare(tree: ast.Module) -> ast.Module:
    """Return a tree without docstrings, those of fields and constants among them."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [one for one in body if not _is_text(one)]
    return tree


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def contestants(
    names: Sequence[str], *, networks: Path, steps: int | None = None
) -> list[tuple[Contestant, tuple[str, ...]]]:
    """Return neural codecs as contestants, each with the names of the pictures that it is fitted to.

    Parameters
    ----------
    names : sequence of str
        Of `NAMES`.
    networks : Path
        Folder of shared networks; those that are missing are trained.
    steps : int, optional
        Of each fit; by default as its entry says.

    Returns
    -------
    list of tuple
        In the order of `NAMES`; one of shared networks is there for each set of pictures that they are for. Their
        version is the code: what was changed is measured again.
    """
    chosen = [one if steps is None else replace(one, steps=steps) for one in FIELDS if one.name in names]
    shared = [name for name in rd_shared.KINDS if name in names]
    found = [(one.contestant, one.pictures) for one in chosen]
    if shared:
        code = digest((*_COMMON, *_SOURCES["pyramid"]), without=_NO_BYTES)
        found += rd_shared.contestants(shared, networks, code=code)
    return found
