"""How much vectors resemble what is wanted, less what is not.

s(v) = C_i cos(v, w_i) - C_j cos(v, u_j),    C the largest or the mean
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from tilestream import kernels
from tilestream.errors import ConfigError

Vectors: TypeAlias = npt.NDArray[np.float32]
Combine: TypeAlias = Literal["max", "mean"]


def likeness(
    vectors: npt.NDArray[Any],
    wanted: Vectors,
    unwanted: Vectors | None = None,
    *,
    combine: Combine = "max",
    threads: int | None = None,
) -> Vectors:
    """Return how much vectors resemble what is wanted, less what is not: s of the formula above.

    Parameters
    ----------
    vectors : ndarray
        `(n, d)` floats of any length.
    wanted : ndarray of float32
        `(k, d)` unit vectors.
    unwanted : ndarray of float32, optional
        `(m, d)` unit vectors.
    combine : {"max", "mean"}
        How several cosines become one.
    threads : int, optional
        Most CPU threads; by default all cores.

    Returns
    -------
    ndarray of float32
        `(n,)`, each from its own vector alone; 0 for a vector without direction.

    Raises
    ------
    ConfigError
        When a vector is not finite.
    """
    join = np.max if combine == "max" else np.mean
    found = join(cosines(vectors, wanted, threads=threads), axis=1)
    if unwanted is not None and len(unwanted):
        found = found - join(cosines(vectors, unwanted, threads=threads), axis=1)
    return np.asarray(found, np.float32)


def cosines(vectors: npt.NDArray[Any], units: Vectors, *, threads: int | None = None) -> Vectors:
    """Return the cosine of each of many vectors with each of a few.

    Parameters
    ----------
    vectors : ndarray
        `(n, d)` floats of any length, float16 as they are stored too.
    units : ndarray of float32
        `(k, d)` of length 1.
    threads : int, optional
        Most CPU threads; by default all cores.

    Returns
    -------
    ndarray of float32
        `(n, k)`, each from its own vector alone; 0 for a vector without direction.

    Raises
    ------
    ConfigError
        When a vector is not finite.
    """
    stored = vectors if vectors.dtype in (np.float16, np.float32) else np.asarray(vectors, np.float32)
    found = np.asarray(kernels.cosines(stored, np.ascontiguousarray(units, np.float32), threads=threads))
    bad = int(np.count_nonzero(~np.isfinite(found).all(axis=1)))
    if bad:
        raise _refused(
            "vectors of tiles",
            f"{bad:,} of {len(vectors):,} that are not finite",
            "finite ones",
            "Check the encoder and its weights.",
        )
    return np.clip(found, -1, 1, out=found)


def unit_vectors(vectors: npt.NDArray[Any], *, what: str) -> Vectors:
    """Return vectors of length 1.

    Parameters
    ----------
    vectors : ndarray
        `(d,)` or `(k, d)`.
    what : str
        Whose they are, for messages.

    Returns
    -------
    ndarray of float32
        `(k, d)`.

    Raises
    ------
    ConfigError
        When there is none, one is zero or not finite, or they are of another shape.
    """
    found = np.atleast_2d(np.asarray(vectors))
    if found.ndim != 2 or not found.size or found.dtype.kind not in "fiu":
        expected = "numbers (d,) or (k, d)"
        raise _refused(what, f"{found.dtype} {np.shape(vectors)}", expected, "Give one vector, or several in rows.")
    found = found.astype(np.float64)
    lengths = np.sqrt(np.square(found).sum(axis=1, keepdims=True))
    if not np.isfinite(lengths).all():
        raise _refused(what, "values that are not finite", "finite ones", "Make the vectors anew.")
    if not lengths.all():
        raise _refused(what, "a vector of zeros", "vectors with a direction", "Leave it out.")
    return np.asarray(found / lengths, np.float32)


def _refused(what: str, got: str, expected: str, do: str) -> ConfigError:
    return ConfigError.of(what, got=got, expected=expected, do=do)
