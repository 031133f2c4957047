"""How much each part of an image matters: a weighted mean of normalised terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, ClassVar, Literal

import numpy as np

from tilestream.errors import ConfigError
from tilestream.kernels.checks import need_kind
from tilestream.pyramid.pyramid import OPEN_FIRST, Pyramid
from tilestream.relevance.grammar import Maker, terms_of
from tilestream.relevance.look import CELL_PX, Look, seen
from tilestream.relevance.normalise import Normalisation, check_normalisation, normalised
from tilestream.relevance.regrid import regrid
from tilestream.relevance.term import CoarseTerm, Term, term_recipe
from tilestream.relevance.weights import checked_weights
from tilestream.types import ScoreMap, cells_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Relevance:
    """What is worth a closer look, as a term of its own: an image to a map in 0 to 1.

    Terms are normalised by image, brought to the grid of the one with the smallest cells by area, and averaged; where
    one says nothing of a cell the others decide. What is not valid in the coarse picture is not valid here, whatever a
    term says: a hole, a damaged block and the edge of what was scanned are never of interest.
    """

    terms: Mapping[str, Term]
    """Terms by name."""
    weights: Mapping[str, float] | None = None
    """Weight of each term by name, in any unit; None = a quarter for `entropy`, a quarter for what is salient and half
    for queries, as far as there are such; everything for a learned scorer."""
    normalise: Normalisation = "robust"
    """`robust`, `rank` or `none`, see `tilestream.relevance.normalise`."""

    group: ClassVar[Literal["query"]] = "query"

    def __post_init__(self) -> None:
        check_normalisation(self.normalise)
        for name, term in self.terms.items():
            if not callable(term):
                raise ConfigError.of(
                    f"term `{name}`", got=repr(term), expected="a callable from a pyramid to a score map",
                    do="`Relevance.of` takes names.",
                )  # fmt: skip
        checked_weights(self.terms, self.weights)

    @classmethod
    def of(
        cls, text: str, *, makers: Mapping[str, Maker] | None = None, normalise: Normalisation = "robust"
    ) -> Relevance:
        """Return the relevance that a text names.

        Parameters
        ----------
        text : str
            Terms as `--relevance` takes them: `entropy,gradient:0.5`; see `tilestream.relevance.grammar`.
        makers : Mapping, optional
            What makes the terms that need more than the image, such as `query`, of their argument.
        normalise : {"robust", "rank", "none"}
            How terms are made comparable.

        Returns
        -------
        Relevance
            Its terms and weights.

        Raises
        ------
        ConfigError
            When the text cannot be read or a name is unknown.

        Examples
        --------
        >>> Relevance.of("entropy:0.5,gradient:0.25").shares
        {'entropy': 0.6666666666666666, 'gradient': 0.3333333333333333}
        """
        terms, weights = terms_of(text, makers or {})
        return cls(terms=terms, weights=weights, normalise=normalise)

    @cached_property
    def shares(self) -> dict[str, float]:
        """Return the weight of each term, 1 in sum."""
        return checked_weights(self.terms, self.weights)

    @property
    def recipe(self) -> dict[str, Any]:
        """Return what its maps are a function of besides the image; JSON values."""
        terms = {
            name: {**term_recipe(term), "weight": self.shares[name]}
            for name, term in self.terms.items()
            if self.shares[name]
        }
        return {"term": "relevance-1", "normalise": self.normalise, "terms": terms}

    def maps(self, pyr: Pyramid) -> dict[str, ScoreMap]:
        """Return what each term says of an image, on its own grid and in its own unit.

        Parameters
        ----------
        pyr : Pyramid
            The image, of which the coarse level is read once.

        Returns
        -------
        dict
            Maps by the name of the term; none for terms of weight 0.

        Raises
        ------
        ConfigError
            When a term returns no map, one of another image, or values that are not finite.
        """
        return self._maps(pyr)[0]

    def __call__(self, pyr: Pyramid, /) -> ScoreMap:
        """Return how much each part of an image matters, in 0 to 1."""
        return self.seen(pyr)[0]

    def seen(self, pyr: Pyramid) -> tuple[ScoreMap, dict[str, ScoreMap]]:
        """Return how much each part of an image matters, and what each term says of it, from one coarse look.

        Parameters
        ----------
        pyr : Pyramid
            The image.

        Returns
        -------
        relevance : ScoreMap
            In 0 to 1.
        maps : dict
            As `maps` returns them.
        """
        maps, look = self._maps(pyr)
        cell_yx = min((one.cell_yx for one in maps.values()), key=prod)
        grid = cells_of(pyr.info.shape, cell_yx).yx
        total, weight = np.zeros(grid), np.zeros(grid)
        for name, found in maps.items():
            unit = ScoreMap(
                name=name, values=normalised(found, self.normalise), valid=found.valid, cell_yx=found.cell_yx,
                shape=found.shape,
            )  # fmt: skip
            placed = regrid(unit, cell_yx)
            total += self.shares[name] * placed.values
            weight += self.shares[name] * placed.valid
        valid = weight > 0
        if look is not None:
            valid &= regrid(_seen(look), cell_yx).valid
        values = np.divide(total, weight, out=np.zeros(grid), where=valid)
        notes = tuple(dict.fromkeys(note for one in maps.values() for note in one.notes))
        if valid.any() and not values.any():
            notes += ("relevance: nothing stands out",)
        unweighted = [name for name, share in self.shares.items() if not share]
        if self.weights is None and unweighted:
            notes += (f"relevance: beside a learned scorer {', '.join(unweighted)} count only where weights say so",)
        relevance = ScoreMap(
            name="relevance", values=values.astype(np.float32), valid=valid, cell_yx=cell_yx, shape=pyr.info.shape,
            notes=notes, absolute=True,
        )  # fmt: skip
        return relevance, maps

    def _maps(self, pyr: Pyramid) -> tuple[dict[str, ScoreMap], Look | None]:
        need_kind("Relevance", "pyr", pyr, Pyramid, do=OPEN_FIRST)
        look: Look | None = None
        found: dict[str, ScoreMap] = {}
        for name, term in self.terms.items():
            if not self.shares[name]:
                continue
            if isinstance(term, CoarseTerm):
                look = look or Look.of(pyr)
                found[name] = term.of_look(look)
            else:
                found[name] = _checked(name, term(pyr), pyr)
        return found, look


def _seen(look: Look) -> ScoreMap:
    """Return which cells of a coarse picture hold a valid pixel."""
    cells = seen(look.coarse.valid, CELL_PX)
    return look.score_map("valid", cells, cells, cell_px=CELL_PX)


def _checked(name: str, found: object, pyr: Pyramid) -> ScoreMap:
    """Return what a user's term has returned, if it is a map of the image; an array is one of equal cells."""
    shape = pyr.info.shape
    if isinstance(found, np.ndarray) and found.ndim == 2 and found.size and found.dtype.kind in "biuf":
        cell_yx = shape.y / found.shape[0], shape.x / found.shape[1]
        values = found.astype(np.float32)
        return ScoreMap(name=name, values=values, valid=np.ones(found.shape, np.bool_), cell_yx=cell_yx, shape=shape)
    if not isinstance(found, ScoreMap):
        what = f"an array {found.shape} of {found.dtype}" if isinstance(found, np.ndarray) else type(found).__name__
        raise ConfigError.of(
            f"term `{name}`", got=what, expected="a `ScoreMap`, or an array `(y, x)` of numbers over the whole image",
            do="Return one number for each cell.",
        )  # fmt: skip
    if found.shape != shape:
        raise ConfigError.of(
            f"term `{name}`", got=f"a map of an image of {found.shape.y} x {found.shape.x} px",
            expected=f"one of this image, {shape.y} x {shape.x} px", do="Return a map of the pyramid that it is given.",
        )  # fmt: skip
    return found
