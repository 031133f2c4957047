"""The relevance that a user names in words, with what its terms need: files and models of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tilestream.pipelines.encoders import EncoderChoice
from tilestream.relevance import Relevance
from tilestream.relevance.grammar import Maker
from tilestream.relevance.normalise import Normalisation


def relevance_of(
    text: str, *, encoders: Sequence[EncoderChoice] = (), normalise: Normalisation = "robust"
) -> Relevance:
    """Return the relevance that `--relevance` names.

    Parameters
    ----------
    text : str
        Terms with their weights, see `tilestream.relevance.grammar`.
    encoders : sequence of EncoderChoice
        Encoders of the run, for terms that compare vectors.
    normalise : {"robust", "rank", "none"}
        How terms are made comparable.

    Returns
    -------
    Relevance
        Ready to be called with an image.

    Raises
    ------
    ConfigError
        When the text cannot be read, a name is unknown, or a term lacks what it needs.
    """
    return Relevance.of(text, makers=_makers(encoders), normalise=normalise)


def _makers(encoders: Sequence[EncoderChoice]) -> Mapping[str, Maker]:
    """Return what makes the terms that need more than an image."""
    del encoders
    return {}
