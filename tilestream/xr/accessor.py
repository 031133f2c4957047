"""The accessor `.tiles` of DataArray, Dataset and DataTree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import xarray as xr

if TYPE_CHECKING:
    from tilestream.plan.tiles import TilePlan
    from tilestream.pyramid import Pyramid
    from tilestream.xr.subject import Subject


class TilesAccessor:
    """Tiles, thumbnail and other resolutions of an image; shows it in a notebook.

    Parameters
    ----------
    found : DataArray, Dataset or DataTree
        An image that `engine="tilestream"` opened, also a part of it; or any other with axes y and x.

    Notes
    -----
    All levels of the image are used as long as the object holds its stored pixels. What was computed with is an image
    of its own: then `thumbnail` and `plan` look at the computed values, all of them. Which part of the image an object
    is, its coordinates say; keep them.
    """

    def __init__(self, found: Any) -> None:
        self._found = found

    @property
    def pyramid(self) -> Pyramid:
        """Return the whole image with all its levels, for `ts.stream_tiles` and the rest of tilestream."""
        return self._subject.pyramid

    def plan(self, **options: Any) -> TilePlan:
        """Return the plan of the tiles that lie in the object.

        Parameters
        ----------
        **options : Any
            As for `ts.plan_tiles`: `tile_px`, `mpp`, `halo_px`, `where` …; without `mpp` at the object's resolution.

        Returns
        -------
        TilePlan
            Tiles of the whole image's grid whose centres lie in the object, so that parts share none.

        Raises
        ------
        ConfigError
            When the options contradict each other or the image.
        """
        from tilestream.xr.planning import plan_part

        return plan_part(self._subject, **options)

    def thumbnail(self, max_px: int = 512) -> xr.DataArray:
        """Return the object at most `max_px` high and wide, in memory.

        Parameters
        ----------
        max_px : int
            Longest edge of the result, px.

        Returns
        -------
        DataArray
            `(c, y, x)` with coordinates, area-weighted from the coarsest level that is fine enough; attribute `damage`
            where blocks could not be decoded, which count as not measured.
        """
        from tilestream.xr.pictures import thumbnail_of

        return thumbnail_of(self._subject, max_px)

    def at(self, *, mpp: float | None = None, gsd_m: float | None = None) -> xr.DataArray:
        """Return the object at another resolution, lazily.

        Parameters
        ----------
        mpp : float, optional
            Micrometres per pixel.
        gsd_m : float, optional
            Metres per pixel, for a scene whose CRS is in metres.

        Returns
        -------
        DataArray
            Pixels whose centres lie in the object, from the coarsest stored level that is fine enough; area-weighted
            where none is within 5 % of what was asked. Attribute `mpp_yx` says what it is.

        Raises
        ------
        ConfigError
            When the resolution of the image is unknown, or more than twice as coarse as asked.
        """
        from tilestream.xr.planning import part_at

        return part_at(self._subject, mpp=mpp, gsd_m=gsd_m)

    def __repr__(self) -> str:
        from tilestream.xr.card import card_text

        return card_text(self._subject)

    def _repr_html_(self) -> str:
        from tilestream.xr.card import card_html

        return card_html(self._subject)

    @property
    def _subject(self) -> Subject:
        # anew each time: xarray keeps the accessor, and the object may have been loaded and edited since
        from tilestream.xr.subject import subject_of

        return subject_of(self._found)


def register() -> None:
    """Give DataArray, Dataset and DataTree their `.tiles`."""
    registrars: tuple[Any, ...] = (  # untyped in xarray
        xr.register_dataarray_accessor,
        xr.register_dataset_accessor,
        xr.register_datatree_accessor,
    )
    for registrar in registrars:
        registrar("tiles")(TilesAccessor)
