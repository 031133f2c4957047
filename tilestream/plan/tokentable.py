"""Tokens as a table, and where they lie."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tilestream.plan.tokenplan import TokenPlan

COLUMNS = ("row", "level", "stored", "x", "y", "width", "height", "relevance", "is_leaf")
"""Of the CSV: the level of tokens and the stored level that is read for it; place and size in level-0 pixels, not cut
off at the edge of the image."""


def token_boxes(plan: TokenPlan) -> npt.NDArray[np.float64]:
    """Return where the tokens lie, `(n, 4)`: y, x, y_stop, x_stop in level-0 pixels.

    Parameters
    ----------
    plan : TokenPlan
        The tokens.

    Returns
    -------
    ndarray of float64
        In the order of the rows; tokens at the edge reach out of the image.
    """
    _, y, x, size = plan.tokens.T
    return np.asarray(np.column_stack([y, x, y + size, x + size]) * np.tile(plan.base.scale_yx, 2), np.float64)


def tokens_csv(plan: TokenPlan) -> Iterator[str]:
    """Yield the lines of a table of the tokens, `COLUMNS` first.

    Parameters
    ----------
    plan : TokenPlan
        The tokens.

    Yields
    ------
    str
        With its line end.
    """
    yield ",".join(COLUMNS) + "\n"
    for row, (y, x, y_stop, x_stop) in enumerate(token_boxes(plan).tolist()):
        level, leaf = int(plan.tokens[row, 0]), int(plan.is_leaf[row])
        place = ",".join(f"{value:.10g}" for value in (x, y, x_stop - x, y_stop - y))
        yield f"{row},{level},{plan.level_of(level).stored},{place},{plan.scores[row]:.6g},{leaf}\n"
