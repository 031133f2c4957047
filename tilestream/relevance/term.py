"""What a term of a relevance is, and what of it belongs into a recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MethodType
from typing import Any, Literal, Protocol, TypeAlias, get_args, runtime_checkable

from tilestream.errors import ConfigError
from tilestream.pyramid import Pyramid
from tilestream.registry import source_digest
from tilestream.relevance.look import Look
from tilestream.types import ScoreMap

Group: TypeAlias = Literal["information", "saliency", "query", "scorer"]
"""What a term is about: `information`, how much there is; `saliency`, what stands out; `query`, what was asked for;
`scorer`, what was learned. Weights that nobody states are given by group."""


class Term(Protocol):
    """Any callable from an image to a map of scores at a coarse level, such as a function of a user's.

    An array `(y, x)` of numbers will do for a map whose cells are equal parts of the image and all valid.

    Optional attributes are `recipe`, a mapping of JSON values that says all that its maps are a function of besides the
    image, and `group`; a function without them is known by its module and name, and is a query.
    """

    def __call__(self, pyr: Pyramid, /) -> ScoreMap:
        """Return how much each part of the image matters."""


@runtime_checkable
class CoarseTerm(Protocol):
    """A term that needs no more than a coarse look, which is then read once for all of them."""

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Return what its maps are a function of besides the image; JSON values."""

    def of_look(self, look: Look) -> ScoreMap:
        """Return how much each part of the image matters."""

    def __call__(self, pyr: Pyramid, /) -> ScoreMap:
        """Return the same of an image that nobody has looked at."""


def group_of(term: object) -> Group:
    """Return the group of a term; `query` for one that states none.

    Parameters
    ----------
    term : Term
        Any callable.

    Returns
    -------
    str
        Of `Group`.

    Raises
    ------
    ConfigError
        When it states another.
    """
    group: Group = getattr(term, "group", "query")
    if group not in get_args(Group):
        raise ConfigError.of(
            f"`group` of {term!r}", got=repr(group), expected=" or ".join(map(repr, get_args(Group))),
            do="Leave the attribute out where none of them fits.",
        )  # fmt: skip
    return group


def term_recipe(term: object) -> dict[str, Any]:
    """Return what of a term belongs into a recipe.

    Parameters
    ----------
    term : Term
        Any callable.

    Returns
    -------
    dict
        JSON values: its own `recipe`, else module, name and digest of the source of a function.

    Raises
    ------
    ConfigError
        When it has no recipe and no name by which another process could find it.
    """
    own = getattr(term, "recipe", None)
    if own is not None:
        return _as_json(own, term)
    module, name = getattr(term, "__module__", None), getattr(term, "__qualname__", "<")
    if module in (None, "__main__") or "<" in name or isinstance(term, MethodType):  # which has an object behind it
        raise ConfigError.of(
            f"term {term!r}",
            got="no `recipe`, and no place in a module that another process could import it from",
            expected="a function at the top of a module, or an object with an attribute `recipe`",
            do="Move it into a module: what is stored names the function that decided it.",
        )
    return {"term": f"{module}:{name}", "source": source_digest(f"{module}:{name}")}


def _as_json(recipe: object, term: object) -> dict[str, Any]:
    try:
        found = json.loads(json.dumps(recipe, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError.of(
            f"`recipe` of {term!r}", got=str(error), expected="a mapping of JSON values", do="Leave out what is none."
        ) from error
    if not isinstance(found, dict) or "weight" in found:
        raise ConfigError.of(
            f"`recipe` of {term!r}", got=repr(recipe), expected="a mapping of JSON values, none called `weight`",
            do="Give other names to its parts.",
        )  # fmt: skip
    return found
