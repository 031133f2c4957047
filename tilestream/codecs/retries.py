"""What of a network's trouble passes, and how long it is waited for.

Tries are bounded in number and time. What does not pass by itself (no permission, nothing there, a wrong URL, an object
that changed) is never tried again. S3's own client has tried several times before an error arrives here.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenacity import RetryCallState, Retrying

TRIES = 6
"""Most tries of one request."""
TIME_S = 60.0
"""No new try is begun later than this after the first."""
FIRST_WAIT_S = 0.25
"""Wait before the second try, at most; it doubles with each, and each wait is a random share of it."""
LONGEST_WAIT_S = 15.0
"""Longest wait, also where a server asks for more."""
STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP answers after which the same request may be met."""
# What aiohttp, botocore and fsspec raise when a connection breaks or stalls; named, since none of them is required.
_NAMES = frozenset(
    {
        "ClientConnectionError",
        "ClientPayloadError",
        "ConnectionError",
        "FSTimeoutError",
        "HTTPClientError",
        "IncompleteRead",
        "IncompleteReadError",
        "ResponseStreamingError",
        "ShortAnswer",
        "TimeoutError",
    }
)
_ERRNOS = frozenset({errno.EBUSY, errno.EREMOTEIO if hasattr(errno, "EREMOTEIO") else errno.EBUSY})


class ShortAnswer(OSError):
    """An answer that ended before all bytes were there."""


def is_passing(error: BaseException) -> bool:
    """Return whether the same request may be met a little later.

    Parameters
    ----------
    error : BaseException
        What a request raised.

    Returns
    -------
    bool
        True for 5xx, 429, resets, time-outs and answers that were cut short.
    """
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return status in STATUSES
    if any(kind.__name__ in _NAMES for kind in type(error).__mro__):
        return True
    return isinstance(error, OSError) and error.errno in _ERRNOS


def tries(**changes: Any) -> Retrying:
    """Return the policy, to be called as `tries()(function, *arguments)`.

    Parameters
    ----------
    **changes : Any
        What differs from the policy, for tests (`sleep`).

    Returns
    -------
    tenacity.Retrying
        Raises the last error when it gives up.
    """
    import tenacity  # comes with the extra `cloud`, as does all that makes requests

    return tenacity.Retrying(
        stop=tenacity.stop_after_attempt(TRIES) | tenacity.stop_before_delay(TIME_S),
        wait=_wait_s,
        retry=tenacity.retry_if_exception(is_passing),
        reraise=True,
        **changes,
    )


def _wait_s(state: RetryCallState) -> float:
    """Return how long to wait: a random share, so that workers do not come back together, or what the server asks."""
    from tenacity import wait_random_exponential

    shortest_s = wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S)(state)
    error = state.outcome.exception() if state.outcome else None
    headers = getattr(error, "headers", None) or {}
    try:
        asked_s = float(headers.get("Retry-After", 0))
    except ValueError:  # a date
        asked_s = 0.0
    return min(max(shortest_s, asked_s), LONGEST_WAIT_S)
