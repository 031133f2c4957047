"""Images as xarray sees them: the engine `tilestream`, its index of pixel centres, and the accessor `.tiles`."""

from tilestream.xr.accessor import TilesAccessor as TilesAccessor
from tilestream.xr.accessor import register
from tilestream.xr.index import PixelGridIndex as PixelGridIndex

register()

__all__ = ["PixelGridIndex", "TilesAccessor"]
