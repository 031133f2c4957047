"""What a process reads of a store; imports little, so that processes begin soon."""

from __future__ import annotations

from hashlib import sha256

import numpy as np

from tilestream.pyramid.pyramid import open_pyramid


def levels_of(store):
    """Every level of a store, as our source reads it."""
    pyramid = open_pyramid(str(store))
    return [pyramid.read(level.box) for level in pyramid.levels]


def digest_of(store):
    """The same as a word."""
    return sha256(b"".join(np.ascontiguousarray(level).tobytes() for level in levels_of(store))).hexdigest()
