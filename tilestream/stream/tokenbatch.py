"""Tokens of a plan as normalised arrays with their places and sizes, for transformers and vision-language models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tilestream.errors import ConfigError
from tilestream.kernels.tokens import affine_of
from tilestream.plan.planned import require_plan
from tilestream.plan.tokenplan import TokenPlan
from tilestream.pyramid.pyramid import Pyramid
from tilestream.stream.batches import Slots, UnitReader, new_outcome
from tilestream.types import Array

DTYPES = ("float16", "float32")
"""Types of normalised samples."""
TILES = 64
"""Tokens that are decoded before they are normalised together."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenBatch:
    """Tokens in the order of their rows; `torch.from_numpy` takes every array as it is."""

    pixels: Array
    """`(n, c, p, p)` normalised. A pixel that is not valid was 0 before that, as stages see it; so are all those of a
    token whose `status` is not 0, which nothing is known of."""
    yx: npt.NDArray[np.float32]
    """`(n, 2)` middle of each token's part inside the image, 0 … 1 from its first to its last edge."""
    level: npt.NDArray[np.int64]
    """`(n,)` its pixels are 2^level as wide as those of the plan's level 0."""
    size: npt.NDArray[np.int64]
    """`(n,)` edge, pixels of the plan's level 0."""
    share: npt.NDArray[np.float32]
    """`(n,)` share of its pixels that lie in the image and are valid; 0 where nothing is known."""
    status: npt.NDArray[np.uint8]
    """`(n,)` `TileStatus`; not 0 for damaged tokens and those without a valid pixel."""
    rows: npt.NDArray[np.int64]
    """`(n,)` feature rows."""
    reasons: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Why tokens are damaged → their rows."""

    @property
    def area(self) -> npt.NDArray[np.float32]:
        """Return `(n,)` how many finest tokens each stands for, by valid area: `n` of `ops.attend`."""
        return np.asarray(4.0**self.level * self.share, np.float32)

    @property
    def log_area(self) -> npt.NDArray[np.float32]:
        """Return `(n,)` log of `area`, to be added to scores of attention; -inf for keys that must not be attended."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.area), np.float32)


def read_tokens(
    pyr: Pyramid,
    plan: TokenPlan,
    *,
    mean: Sequence[float] | float = 0.0,
    std: Sequence[float] | float = 1.0,
    scale: float | None = None,
    dtype: str = "float32",
) -> TokenBatch:
    """Return all tokens of a plan as one batch.

    Parameters
    ----------
    pyr : Pyramid
        The image.
    plan : TokenPlan
        Which tokens; of a walk `WalkPlan.walked()`.
    mean, std : float or sequence of float
        Of all channels or of each, in the units of `scale`: (sample · scale - mean) / std.
    scale : float, optional
        What samples are multiplied by; 1/255 for 8 bits unless given, 1 for other types.
    dtype : str
        `float32` or `float16`.

    Returns
    -------
    TokenBatch
        A row for each token; those that cannot be decoded say so.

    Raises
    ------
    ConfigError
        When there is not one number a channel, a type is none of samples, or the plan is of another image.

    Examples
    --------
    >>> import numpy as np
    >>> import tilestream as ts
    >>> pyr = ts.open_pyramid(np.zeros((100, 100), np.uint8))
    >>> batch = ts.read_tokens(pyr, ts.plan_tokens(pyr, budget=7), mean=0.5, std=0.5)
    >>> batch.pixels.shape, float(batch.pixels.min())
    ((7, 1, 16, 16), -1.0)
    """
    require_plan("read_tokens", pyr, plan)
    how = _how(pyr, mean=mean, std=std, scale=scale, dtype=dtype)
    return _read(pyr, plan, range(len(plan)), how)


def iter_tokens(  # noqa: PLR0913 - those of `read_tokens`, and how many
    pyr: Pyramid,
    plan: TokenPlan,
    *,
    batch: int = 256,
    mean: Sequence[float] | float = 0.0,
    std: Sequence[float] | float = 1.0,
    scale: float | None = None,
    dtype: str = "float32",
) -> Iterator[TokenBatch]:
    """Yield the tokens of a plan in the order of their rows, `batch` at a time.

    Parameters
    ----------
    pyr : Pyramid
        The image.
    plan : TokenPlan
        Which tokens.
    batch : int
        Tokens of each batch; the last may have fewer.
    mean, std, scale, dtype
        As in `read_tokens`.

    Yields
    ------
    TokenBatch
        Owns its memory.

    Notes
    -----
    Memory is that of one batch and the decoded blocks of one unit.
    """
    if batch < 1:
        raise ConfigError.of("`batch`", got=batch, expected="at least 1 token", do="Correct it.")
    require_plan("read_tokens", pyr, plan)
    how = _how(pyr, mean=mean, std=std, scale=scale, dtype=dtype)
    for first in range(0, len(plan), batch):
        yield _read(pyr, plan, range(first, min(first + batch, len(plan))), how)


@dataclass(frozen=True, kw_only=True, eq=False)
class _How:
    """What becomes of samples."""

    gain: npt.NDArray[np.float32]
    """`(c, 1, 1)`."""
    offset: npt.NDArray[np.float32]
    """`(c, 1, 1)`, of a sample of 0."""
    dtype: str
    """Type of the result."""


def _how(
    pyr: Pyramid, *, mean: Sequence[float] | float, std: Sequence[float] | float, scale: float | None, dtype: str
) -> _How:
    if dtype not in DTYPES:
        raise ConfigError.of("`dtype`", got=repr(dtype), expected=f"one of {list(DTYPES)}", do="Choose one.")
    if scale is None:
        scale = 1 / 255 if pyr.dtype == np.uint8 else 1.0
    gain, offset = affine_of(len(pyr.channels), mean, std, scale).T[:, :, None, None]
    return _How(gain=gain, offset=offset, dtype=dtype)


def _read(pyr: Pyramid, plan: TokenPlan, rows: range, how: _How) -> TokenBatch:
    """Return the tokens of some rows."""
    edge, n = plan.patch_px, len(rows)
    pixels = np.empty((n, len(pyr.channels), edge, edge), how.dtype)
    pixels[:] = how.offset
    status, share = np.zeros(n, np.uint8), np.zeros(n, np.float32)
    reasons: dict[str, list[int]] = {}
    slots = Slots()
    for unit in plan.units_within(rows):
        first, stop = max(rows.start, unit.rows.start), min(rows.stop, unit.rows.stop)
        part = range(first - unit.first_row, stop - unit.first_row)
        outcome = new_outcome(unit)
        reader = UnitReader(pyr, unit, outcome, part)
        try:
            for at in range(part.start, part.stop, TILES):
                found = reader.read(at, min(at + TILES, part.stop), slots)
                if found is not None:
                    pixels[found.rows - rows.start] = found.pixels * how.gain + how.offset
        finally:
            reader.close()
        here = slice(first - rows.start, stop - rows.start)
        status[here], share[here] = outcome.status[part.start : part.stop], outcome.valid_share[part.start : part.stop]
        for reason, damaged in outcome.damaged.items():
            reasons.setdefault(reason, []).extend(damaged)
    tokens = plan.tokens[rows.start : rows.stop]
    low, shape = tokens[:, 1:3], np.array(plan.base.shape.yx)
    return TokenBatch(
        pixels=pixels,
        yx=((low + np.minimum(low + tokens[:, 3:], shape)) / (2 * shape)).astype(np.float32),
        level=tokens[:, 0],
        size=tokens[:, 3],
        share=share,
        status=status,
        rows=np.arange(rows.start, rows.stop),
        reasons={reason: tuple(damaged) for reason, damaged in reasons.items()},
    )
