"""The levels of one image, lazily."""

from tilestream.pyramid.pyramid import Pyramid as Pyramid
from tilestream.pyramid.pyramid import open_pyramid as open_pyramid

__all__ = ["Pyramid", "open_pyramid"]
