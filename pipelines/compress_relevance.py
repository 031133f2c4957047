"""Where the bytes of a store of tiles go: a relevance that a user names, as weights of the errors of each tile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from tilestream.errors import ConfigError
from tilestream.models.scorerstage import record_of_scorer
from tilestream.pipelines.encoders import EncoderChoice
from tilestream.pipelines.relevance import examples_of, makers_of
from tilestream.pyramid.pyramid import Pyramid
from tilestream.relevance import Relevance, Term
from tilestream.relevance.emphasis import Emphasis, require_db
from tilestream.relevance.grammar import Maker

EMPHASIS_DB = 12.0
"""Decibels between what matters most and what matters least, where nothing else is said."""
ENCODER = "handcrafted"
"""What makes the vectors of terms that compare some: of the encoders, the one that is there without weights."""
MARK = "draw what matters and give mask:FILE"


@dataclass(frozen=True, kw_only=True)
class RelevanceChoice:
    """What matters, and by how much; picklable and small."""

    terms: str
    """As `--relevance` takes them; what compares vectors compares handcrafted ones."""
    db: float = EMPHASIS_DB
    """Decibels between what matters most and what matters least."""

    @classmethod
    def of(cls, terms: str | None, db: float | None) -> RelevanceChoice | None:
        """Return the choice that two options make, None where there is none.

        Parameters
        ----------
        terms : str, optional
            `--relevance`.
        db : float, optional
            `--emphasis`.

        Returns
        -------
        RelevanceChoice or None
            Its terms are understood.

        Raises
        ------
        ConfigError
            When a term or the decibels are not understood, or these are given alone.
        """
        if terms is None:
            if db is not None:
                raise ConfigError.of(
                    "`--emphasis`", got="it without --relevance", expected="what matters as well", do="Give both."
                )
            return None
        choice = cls(terms=terms, db=EMPHASIS_DB if db is None else db)
        require_db(choice.db)
        choice.relevance  # noqa: B018 - terms are looked at when it is made
        return choice

    @cached_property
    def relevance(self) -> Relevance:
        """Return the map maker."""
        makers = makers_of((EncoderChoice(name=ENCODER),))
        own = {"query": partial(_query, makers["query"]), "scorer": partial(_scorer, makers["scorer"])}
        return Relevance.of(self.terms, makers={**makers, **own})

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Return what the weights of an image are a function of besides it; JSON values."""
        return {**self.relevance.recipe, "emphasis_db": self.db}

    def of_image(self, pyramid: Pyramid) -> Emphasis:
        """Return the weights of the errors in an image, for which its coarse level is read.

        Parameters
        ----------
        pyramid : Pyramid
            The image.

        Returns
        -------
        Emphasis
            The same in every process.
        """
        return Emphasis(scores=self.relevance(pyramid), db=self.db)


def _query(make: Maker, argument: str | None) -> Term:
    """Return a query for a place or a picture; raise `ConfigError` where words are looked for."""
    if argument is None:
        raise ConfigError.of(
            "term `query`",
            got="nothing behind it",
            expected="a place or a picture",
            do="Write query:box=Y,X,HEIGHT,WIDTH or query:file=PICTURE.",
        )
    words = [one for side in examples_of(argument) for one in side if isinstance(one, str) and one]
    if words:
        raise ConfigError.of(
            f"text `{words[0]}` of a query",
            got=f"words, which the encoder `{ENCODER}` knows nothing of",
            expected="a place or a picture: compress takes no other encoder",
            do=f"Give query:box=Y,X,HEIGHT,WIDTH or query:file=PICTURE, or {MARK}.",
        )
    return make(argument)


def _scorer(make: Maker, argument: str | None) -> Term:
    """Return the term of a scorer; raise `ConfigError` where it scores vectors that are not made here."""
    record = None if argument is None else record_of_scorer(argument)
    if record is not None and record.takes == "vectors" and record.encoder not in (None, ENCODER):
        raise ConfigError.of(
            f"scorer `{argument}`",
            got=f"one of vectors of `{record.encoder}`",
            expected=f"one of pixels, or of vectors of `{ENCODER}`: compress takes no other encoder",
            do=f"Train such a one with `tilestream train scorer`, or {MARK}.",
        )
    return make(argument)
