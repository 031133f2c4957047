"""Where the bytes of a store of tiles go: a relevance that a user names, as weights of the errors of each tile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tilestream.errors import ConfigError
from tilestream.pipelines.encoders import EncoderChoice
from tilestream.pipelines.relevance import relevance_of
from tilestream.pyramid.pyramid import Pyramid
from tilestream.relevance import Relevance
from tilestream.relevance.emphasis import Emphasis, require_db

EMPHASIS_DB = 12.0
"""Decibels between what matters most and what matters least, where nothing else is said."""


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
        return relevance_of(self.terms, encoders=(EncoderChoice(name="handcrafted"),))

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
