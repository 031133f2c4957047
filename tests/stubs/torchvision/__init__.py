"""Stands in for torchvision where its wheel does not fit torch: timm, open_clip and transformers import its names.

Nothing in it works. What the tests run of these libraries never transforms an image on the host.
"""

import enum
import importlib.machinery
import sys
import types

__version__ = "0.0"


class Interpolation(enum.Enum):
    """The names under which those libraries ask for an interpolation."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


class Absent:
    """Any other name: may be derived from and named, not used."""

    def __init__(self, *args, **kwargs):
        raise NotImplementedError("torchvision is not there")


class Part(types.ModuleType):
    """A module that has every name."""

    __path__ = ()

    def __getattr__(self, name):
        """Return a class of that name."""
        if name.startswith("__"):
            raise AttributeError(name)
        return Interpolation if name == "InterpolationMode" else type(name, (Absent,), {})


def _add(name):
    module = Part(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    sys.modules[name] = module
    parent, _, last = name.rpartition(".")
    setattr(sys.modules[parent], last, module)


for _name in ("transforms", "transforms.v2", "transforms.functional", "transforms.v2.functional", "io"):
    _add(f"{__name__}.{_name}")
for _name in ("datasets", "datasets.folder", "models", "ops", "ops.misc"):
    _add(f"{__name__}.{_name}")
