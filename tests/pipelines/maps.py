"""Stages of maps for tests, where workers can import them."""

from __future__ import annotations

import os

import numpy as np
from scipy import ndimage


def blur(x):
    """3 x 3 mean of the first channel."""
    return ndimage.uniform_filter(x[:, :1], (0, 0, 3, 3), mode="nearest")


blur.contract = {"px": 66, "output": "dense", "halo_px": 1, "void_px": 1, "dim": 1}


def classes(x):
    """Scores of two classes on squares of 4 px."""
    n, _, h, w = x.shape
    share = x[:, 0].reshape(n, h // 4, 4, w // 4, 4).mean(axis=(2, 4)) / 255
    return np.stack([1 - share, share], axis=1).astype("f4")


classes.contract = {"px": 64, "output": "dense", "stride": 4, "classes": ["dark", "light"]}


def scaled(x):
    return x[:, :1].astype("f4") / 255


scaled.contract = {"px": 64, "output": "dense", "stored": "uint8", "value_range": [0, 1]}
scaled.output_names = ["share"]


def dying(x):
    """`blur`, in a process that ends at its n-th batch."""
    dying.calls += 1
    if dying.calls >= int(os.environ.get("DIE_AT", "1000000")):
        os._exit(9)
    return blur(x)


dying.calls = 0
dying.contract = {**blur.contract, "name": "blur"}


def vector(x):
    return x.mean(axis=(2, 3))


vector.contract = {"px": 64}


def bad_shape(x):
    return x[:, :, :5, :5]


bad_shape.contract = {"px": 64, "output": "dense"}


def no_dtype(x):
    return x[:, :1].astype("f4")


no_dtype.contract = {"px": 64, "output": "dense", "stored": "uint8"}


def raising(x):
    raise ValueError("no weights")


raising.contract = {"px": 64, "output": "dense", "dim": 1}


def nothing(x):
    return np.full_like(x[:, :1], np.nan, "f4")


nothing.contract = {"px": 64, "output": "dense"}


def encode(x):
    """Without one value on dark tiles, with two channels and the name of a step of ours."""
    found = np.repeat(x[:, :1].astype("f4"), 2, axis=1)
    found[x[:, 0].mean(axis=(1, 2)) < 120] = np.nan
    return found


encode.contract = {"px": 64, "output": "dense", "dim": 2}


def holed(x):
    """Without a value where the image is dark."""
    found = x[:, :1].astype("f4")
    found[found < 100] = np.nan
    return found


holed.contract = {"px": 64, "output": "dense", "dim": 1}


def named(x):
    return x[:, :1]


named.contract = {"px": 64, "output": "dense", "name": "features"}


def stack_of(x):
    """Without a contract."""
    return x


def one_of_all(x):
    """One map, of however many tiles."""
    return x[:, :1].astype("f4").mean(axis=0, keepdims=True)


one_of_all.contract = {"px": 64, "output": "dense"}
