"""A gaze that moves: which tokens it sees, which of them are new, and which it will want next."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import SupportsFloat

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.fovea.fovea import Fovea
from tilestream.fovea.prediction import GazePredictor, Motion
from tilestream.kernels.checks import need_kind
from tilestream.kernels.fovea import HYSTERESIS
from tilestream.types import Shape

Tokens = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class GazeMove:
    """What one sample of a gaze changes."""

    tokens: Tokens
    """`(n, 4)`: level, y, x, size of what is seen now; coarsest first, row by row."""
    is_new: npt.NDArray[np.bool_]
    """`(n,)` which of them were not seen before the move."""
    dropped: Tokens
    """`(m, 4)` tokens that were seen and are no more."""
    ahead: Tokens
    """`(k, 4)` tokens that are not seen now and will be, if the gaze goes on as it moves; to be read in advance."""

    @property
    def new(self) -> Tokens:
        """Return the tokens that have to be read."""
        return self.tokens[self.is_new]


class GazeStream:
    """Tokens of an image under a gaze; small movements change nothing, others only what they must.

    Parameters
    ----------
    fovea : Fovea
        How detail falls off; the gaze takes the place of its fixations.
    shape : Shape
        Size of the image, px.
    patch_px : int
        Edge of a token at level 0.
    hysteresis : float
        In levels: a token stays until the level that its place asks for is that far beyond it.
    predictor : GazePredictor, optional
        Foresees where a gaze goes; by default nothing is foreseen.

    Examples
    --------
    >>> from tilestream.types import Shape
    >>> fovea = Fovea(fixations_yx=(512, 512), e0_px=45, max_level=4)
    >>> stream = GazeStream(fovea, Shape(y=1024, x=1024), patch_px=16, predictor=GazePredictor())
    >>> len(stream.move((512, 512), 0.0).new)
    268
    >>> move = stream.move((530, 560), 0.016)
    >>> len(move.tokens), len(move.new), len(move.ahead)
    (268, 25, 22)
    """

    def __init__(
        self,
        fovea: Fovea,
        shape: Shape,
        *,
        patch_px: int,
        hysteresis: float = HYSTERESIS,
        predictor: GazePredictor | None = None,
    ) -> None:
        need_kind("GazeStream", "fovea", fovea, Fovea, do="Make one: `tilestream.Fovea`.")
        need_kind("GazeStream", "shape", shape, Shape, do="Take that of the image: `pyramid.levels[0].shape`.")
        self._fovea = replace(fovea, max_level=fovea.depth(shape, patch_px=patch_px))
        self._shape = shape
        self._patch_px = patch_px
        self._hysteresis = hysteresis
        self._predictor = predictor
        self._tokens: Tokens | None = None
        self._motion: Motion | None = None

    @property
    def tokens(self) -> Tokens:
        """Return what is seen now, `(n, 4)`; nothing before the first move."""
        return np.empty((0, 4), np.int64) if self._tokens is None else self._tokens

    def move(self, yx: tuple[float, float], t_s: float) -> GazeMove:
        """Return what is seen of a place looked at, and how that differs from what was seen before.

        Parameters
        ----------
        yx : tuple of float
            Where the gaze is, px.
        t_s : float
            When, seconds of any clock that goes on.

        Returns
        -------
        GazeMove
            Tokens now, new, dropped and ahead.

        Raises
        ------
        ConfigError
            When the place is outside of the image or no number, or time does not go on. Nothing has changed then: a
            sample that the tracker lost is passed over by not calling.
        """
        fovea = replace(self._fovea, fixations_yx=(yx,))
        predictor = self._predictor or GazePredictor()
        at = fovea.fixations_yx[0]
        if self._motion is None:
            motion = Motion(yx=at, t_s=_time(t_s))
        else:
            motion = self._motion.seen(at, _time(t_s), predictor)
        before = self.tokens
        tokens = self._seen_by(fovea, self._tokens)
        ahead = tokens[:0]
        if self._predictor is not None and any(motion.velocity_yx):
            y, x = motion.ahead(self._predictor)
            inside = (min(max(y, 0), self._shape.y), min(max(x, 0), self._shape.x))
            foreseen = self._seen_by(replace(fovea, fixations_yx=(inside,)), tokens)
            ahead = foreseen[~_among(foreseen, tokens)]
        self._tokens, self._motion = tokens, motion
        is_new = ~_among(tokens, before)
        return GazeMove(tokens=tokens, is_new=is_new, dropped=before[~_among(before, tokens)], ahead=ahead)

    def _seen_by(self, fovea: Fovea, previous: Tokens | None) -> Tokens:
        return fovea.tokens(self._shape, patch_px=self._patch_px, previous=previous, hysteresis=self._hysteresis)


def keys_of(tokens: Tokens) -> Tokens:
    """Return one number for each token, which no other of the same image and patch has.

    Parameters
    ----------
    tokens : ndarray of int64
        `(n, 4)`: level, y, x, size; fewer than 2^29 along an axis.

    Returns
    -------
    ndarray of int64
        `(n,)`.
    """
    level, y, x, size = tokens.T
    return np.asarray((level << 58) | (y // size << 29) | x // size)


def _among(tokens: Tokens, others: Tokens) -> npt.NDArray[np.bool_]:
    """Return which tokens are also among others."""
    return np.isin(keys_of(tokens), keys_of(others), assume_unique=True)


def _time(t_s: object) -> float:
    if isinstance(t_s, bool) or not isinstance(t_s, SupportsFloat) or not abs(float(t_s)) < float("inf"):
        raise ConfigError.of("`t_s` of a gaze", got=repr(t_s), expected="finite seconds", do="Give a clock's time.")
    return float(t_s)
