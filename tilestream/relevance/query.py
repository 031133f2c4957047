"""Where an image shows what was asked for: cosine of each tile's vector with those of texts, pictures or places.

    s(t) = C_i cos(v_t, w_i) - C_j cos(v_t, u_j)        see `tilestream.relevance.likeness`

w are the vectors that are wanted, u those that are not; C is the largest, or the mean. Without u the second part is
missing. With texts on both sides it is the margin by which a two-tower model prefers one of them, which leaves out what
all texts have in common. A cosine lies in -1 to 1 and a margin in -2 to 2; how large either is says nothing by itself,
and differs between encoders, so a `Relevance` normalises it by image.

Radford et al., ICML 2021 (arXiv 2103.00020), §3.1.2, 3.1.4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.pyramid import Pyramid, open_pyramid
from tilestream.relevance.likeness import Combine, Vectors, likeness, unit_vectors
from tilestream.relevance.standard import Standard
from tilestream.relevance.vectorfile import is_vector_file, read_vectors
from tilestream.types import Box, ScoreMap, Shape, cells_of


@dataclass(frozen=True, kw_only=True)
class Place:
    """An example on another image than the one that is searched."""

    image: str
    """Path or URL of the image."""
    box: Box
    """Where on it, in pixels of level 0."""


Example: TypeAlias = str | Path | Box | Place | npt.NDArray[Any]
"""A text; the path of a file of vectors, of a picture, or of an outline (GeoJSON) on the image that is searched; a box
on that image, in pixels of level 0; a place on another; or vectors `(d,)` or `(k, d)`."""

OUTLINES = (".geojson", ".json")
"""How names of files of outlines end."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TileVectors:
    """Vectors of the tiles of an image at a coarse level."""

    vectors: npt.NDArray[Any]
    """`(y, x, d)` floats of any length; what stands where nothing is known does not matter."""
    known: npt.NDArray[np.bool_]
    """`(y, x)`; False where a tile is empty, damaged or not wanted."""
    cell_yx: tuple[float, float]
    """Edges of a tile in pixels of level 0."""
    notes: tuple[str, ...] = ()
    """What a user should know."""


class Embedder(Protocol):
    """Makes vectors of tiles, and of what tiles are compared with; the layers above know encoders."""

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Return what its vectors are a function of besides what it is given; JSON values."""

    def tiles(self, pyr: Pyramid) -> TileVectors:
        """Return the vectors of an image's tiles at a coarse level."""

    def place(self, pyr: Pyramid, where: Box | Path, *, searched: Pyramid | None = None) -> Vectors:
        """Return the vectors `(k, d)` of the tiles in a box of level 0, or inside an outline, at that coarse level.

        With the image that is searched, where that is another one, they are what its tiles are compared with.
        """

    def picture(self, path: Path, *, searched: Pyramid | None = None) -> Vectors:
        """Return the vector `(1, d)` of a whole picture, to compare tiles of the image that is searched with."""

    def texts(self, words: Sequence[str]) -> Vectors:
        """Return the vectors `(k, d)` of texts."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Query:
    """The term `query`: how much each tile resembles what is wanted, less what is not.

    A place of several tiles counts as the mean of their directions; texts, pictures and the rows of a file of vectors
    count one by one.
    """

    embedder: Embedder
    """Makes the vectors; `tilestream.pipelines.embedder.TileEmbedder` for any encoder."""
    wanted: Sequence[Example]
    """What is looked for; at least one."""
    unwanted: Sequence[Example] = ()
    """What it is to be told from."""
    combine: Combine = "max"
    """How the cosines with several vectors of one side become one: `max`, any will do; `mean`, all count."""
    standardise: bool = False
    """Whether vectors are first brought to mean 0 and deviation 1 over the tiles of the image, value by value: for
    encoders whose values have units of their own, such as `handcrafted`; see `tilestream.relevance.standard`."""
    name: str = "query"
    """Name of its maps."""

    group: Literal["query"] = "query"

    def __post_init__(self) -> None:
        if self.combine not in get_args(Combine):
            raise _refused("`combine` of a query", repr(self.combine), "`max` or `mean`", "Choose one.")
        if not len(self.wanted):
            raise _refused("query", "nothing that is wanted", "a text, a box, a file or vectors", "Say what to find.")
        for example in (*self.wanted, *self.unwanted):
            _require(example)

    @property
    def recipe(self) -> dict[str, Any]:
        """Return what its maps are a function of besides the image; JSON values."""
        sides = {name: [_described(one) for one in getattr(self, name)] for name in ("wanted", "unwanted")}
        ways = {"combine": self.combine, "standardise": self.standardise}
        return {"term": "query-1", **ways, "embedder": dict(self.embedder.recipe), **sides}

    def vectors(self, pyr: Pyramid | None = None) -> tuple[Vectors, Vectors]:
        """Return the vectors of what is wanted and of what is not, each of length 1.

        Parameters
        ----------
        pyr : Pyramid, optional
            The image on which boxes and outlines lie; not needed where there are none and nothing is standardised.

        Returns
        -------
        wanted : ndarray of float32
            `(k, d)`.
        unwanted : ndarray of float32
            `(m, d)`; m is 0 where all is said by what is wanted.

        Raises
        ------
        ConfigError
            When an example cannot be made into vectors, or they are zero, not finite, or of different lengths.
        """
        return self.sides(pyr, self.standard(pyr) if self.standardise else None)

    def standard(self, pyr: Pyramid | None) -> Standard:
        """Return what brings vectors to one scale on an image; costs a coarse look at it by the encoder."""
        if pyr is None:
            raise _refused("query", "no image by which it is standardised", "an image", "Give it.")
        found = self.embedder.tiles(pyr)
        return Standard.of(found.vectors[found.known])

    def sides(self, pyr: Pyramid | None, standard: Standard | None) -> tuple[Vectors, Vectors]:
        """Return what `vectors` does, where what brings them to one scale is known already."""
        wanted = [self._side_of(example, pyr, standard) for example in self.wanted]
        unwanted = [self._side_of(example, pyr, standard) for example in self.unwanted]
        lengths = {part.shape[1] for part in (*wanted, *unwanted)}
        if len(lengths) > 1:
            do = "Take vectors of the encoder that makes those of the tiles."
            raise _refused("vectors of a query", f"lengths {sorted(lengths)}", "one length", do)
        empty = np.empty((0, lengths.pop()), np.float32)
        return np.concatenate(wanted), np.concatenate([empty, *unwanted])

    def __call__(self, pyr: Pyramid, /) -> ScoreMap:
        """Return how much each tile of an image resembles what was asked for."""
        # what can be wrong with examples is told before the image is looked at
        sides = None if self.standardise else self.sides(pyr, None)
        found = self.embedder.tiles(pyr)
        vectors = found.vectors[found.known]
        if sides is None:
            standard = Standard.of(vectors)
            sides, vectors = self.sides(pyr, standard), standard(vectors)
        wanted, unwanted = sides
        if found.vectors.shape[-1] != wanted.shape[1]:
            raise _refused(
                "vectors of a query",
                f"{wanted.shape[1]} values each",
                f"{found.vectors.shape[-1]}, as many as the encoder gives for a tile",
                "Make them with the same encoder.",
            )
        scores = np.zeros(found.known.shape, np.float32)
        scores[found.known] = likeness(vectors, wanted, unwanted, combine=self.combine)
        return map_of(self.name, scores, found.known, cell_yx=found.cell_yx, shape=pyr.info.shape, notes=found.notes)

    def _side_of(self, example: Example, pyr: Pyramid | None, standard: Standard | None) -> Vectors:
        """Return the unit vectors of one example."""
        what = _named(example)
        found, is_place = self._seen(example, pyr, what)
        if standard is not None:
            found = standard.of_example(found, what=what)
        units = unit_vectors(found, what=what)
        return unit_vectors(units.astype(np.float64).mean(axis=0), what=what) if is_place else units

    def _seen(self, example: Example, pyr: Pyramid | None, what: str) -> tuple[npt.NDArray[Any], bool]:
        """Return the vectors of one example, and whether they are tiles of one place."""
        if isinstance(example, str):
            return self.embedder.texts([example]), False
        if isinstance(example, np.ndarray):
            return example, False
        if isinstance(example, Path) and is_vector_file(example):
            return read_vectors(example), False
        if isinstance(example, Path) and example.suffix.lower() not in OUTLINES:
            return self.embedder.picture(example, searched=pyr), False
        if isinstance(example, Place):
            return self.embedder.place(open_pyramid(example.image), example.box, searched=pyr), True
        if pyr is None:
            raise _refused(what, "no image that it lies on", "an image", "Give it: `query.vectors(pyr)`.")
        return self.embedder.place(pyr, example), True


def map_of(  # noqa: PLR0913 - what a map is made of, each by name
    name: str,
    scores: npt.NDArray[Any],
    known: npt.NDArray[np.bool_],
    *,
    cell_yx: tuple[float, float],
    shape: Shape,
    notes: tuple[str, ...] = (),
    absolute: bool = False,
) -> ScoreMap:
    """Return scores of a grid of tiles as a map of an image.

    Parameters
    ----------
    name : str
        Of the map.
    scores : ndarray
        `(y, x)` of the tiles.
    known : ndarray of bool
        `(y, x)`.
    cell_yx : tuple of float
        Edges of a tile in pixels of level 0.
    shape : Shape
        Of the image.
    notes : tuple of str
        What a user should know.
    absolute : bool
        Whether scores mean the same on every image.

    Returns
    -------
    ScoreMap
        On the cells that cover the image; a tile too many, of a level that is a pixel larger than it should be, is
        left out, and a cell without a tile is not valid.
    """
    grid = cells_of(shape, cell_yx).yx
    rows, columns = (min(have, wanted) for have, wanted in zip(scores.shape, grid, strict=True))
    values, valid = np.zeros(grid, np.float32), np.zeros(grid, np.bool_)
    valid[:rows, :columns] = known[:rows, :columns]
    values[:rows, :columns] = np.where(known, scores, 0)[:rows, :columns]
    return ScoreMap(name=name, values=values, valid=valid, cell_yx=cell_yx, shape=shape, notes=notes, absolute=absolute)


def _require(example: object) -> None:
    """Raise `ConfigError` for what can be no example, before anything is computed."""
    if isinstance(example, str) and not example.strip():
        raise _refused("text of a query", "an empty one", "words", 'Write them: query:"lymphocytes".')
    if isinstance(example, Path) and not example.is_file():
        raise _refused(f"example `{example}` of a query", "no such file", "a file", "Check the path.")
    if isinstance(example, Place) and "://" not in example.image and not Path(example.image.partition("#")[0]).exists():
        raise _refused(f"image `{example.image}` of an example", "nothing there", "an image", "Check the path.")
    if isinstance(example, np.ndarray):
        unit_vectors(example, what="vectors of a query")
    if isinstance(example, Path) and is_vector_file(example):
        unit_vectors(read_vectors(example), what=f"`{example}`")
    if not isinstance(example, str | Path | Box | Place | np.ndarray):
        expected = "a text, a path, a box, a `Place`, or vectors"
        raise _refused("example of a query", f"a {type(example).__name__}", expected, "Give one of these.")


def _named(example: Example) -> str:
    """Return what an example is called in messages."""
    if isinstance(example, str):
        return f"text `{example}` of a query"
    if isinstance(example, Path):
        return f"`{example}`"
    if isinstance(example, np.ndarray):
        return "vectors of a query"
    return "box of a query" if isinstance(example, Box) else f"box of a query on `{example.image}`"


def _described(example: Example) -> Any:
    """Return an example as JSON values that tell it from all others; a file or an image by its content."""
    if isinstance(example, str):
        return {"text": example}
    if isinstance(example, Path):
        return {"file": _digest(example.read_bytes())}
    if isinstance(example, np.ndarray):
        return {"vectors": _digest(np.ascontiguousarray(example, "<f4").tobytes())}
    box = example.box if isinstance(example, Place) else example
    corners = {"box": [box.y, box.x, box.height, box.width], "level": box.level}
    if not isinstance(example, Place):
        return corners
    return {**corners, "image": open_pyramid(example.image).fingerprint}


def _digest(data: bytes) -> str:
    from hashlib import blake2b

    return blake2b(data, digest_size=16).hexdigest()


def _refused(what: str, got: str, expected: str, do: str) -> ConfigError:
    return ConfigError.of(what, got=got, expected=expected, do=do)
