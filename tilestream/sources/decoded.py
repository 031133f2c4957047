"""Images that can only be decoded whole, kept in this process for the many windows that are cut from them."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from tilestream.types import Block


class DecodedImages:
    """Whole decoded images by fingerprint, least recently used out first; safe under threads and after a fork.

    The one used last is always kept: decoding it for every window costs far more than its memory.

    Parameters
    ----------
    budget_bytes : callable
        Returns the most bytes held once there is more than one image, which may change.
    """

    def __init__(self, budget_bytes: Callable[[], int]) -> None:
        self._budget = budget_bytes
        self.renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        """Forget everything, locks included: a parent may have held one when it forked."""
        self._lock = Lock()
        self._images: OrderedDict[str, Block] = OrderedDict()
        self._making: dict[str, Lock] = {}

    def get(self, key: str, decode: Callable[[], Block]) -> Block:
        """Return an image, decoded by one thread while others that want the same one wait.

        Parameters
        ----------
        key : str
            Fingerprint.
        decode : callable
            Makes the image; what it raises is passed on and nothing is kept.

        Returns
        -------
        Block
            The whole image.
        """
        with self._lock:
            making = self._making.setdefault(key, Lock())
        with making:
            with self._lock:
                if key in self._images:
                    self._images.move_to_end(key)
                    return self._images[key]
            block = decode()
            with self._lock:
                self._images[key] = block
                while len(self._images) > 1 and self._held() > self._budget():
                    old, _ = self._images.popitem(last=False)
                    self._making.pop(old, None)
            return block

    def _held(self) -> int:
        return sum(b.pixels.nbytes + (b.valid.nbytes if b.valid is not None else 0) for b in self._images.values())
