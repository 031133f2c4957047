"""The xarray engine `tilestream`: `xr.open_datatree(url, engine="tilestream")`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import xarray as xr
from xarray.backends import BackendEntrypoint

from tilestream.errors import ConfigError

if TYPE_CHECKING:
    from tilestream.pyramid import Pyramid


class TilestreamBackend(BackendEntrypoint):
    """Opens slides, scenes, OME-Zarr and whatever else `ts.open_pyramid` opens, lazily.

    Notes
    -----
    xarray loads this module whenever it looks for an engine, so what reads images is imported when one is opened.
    """

    description: ClassVar[str] = "Slides, scenes and pyramids of any format, lazily, with coordinates of pixel centres"
    url: ClassVar[str] = ""
    supports_groups: ClassVar[bool] = True

    def open_dataset(  # noqa: PLR0913 - xarray hands over each option of a user as a keyword
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        mask_and_scale: bool = True,
        level: int | None = None,
        mpp: float | None = None,
        gsd_m: float | None = None,
        source: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> xr.Dataset:
        """Return one level of an image.

        Parameters
        ----------
        filename_or_obj : str, path, array or Pyramid
            What `ts.open_pyramid` takes, also with a selection (`image.zarr#t=3`), or what it returned.
        drop_variables : str or iterable of str, optional
            Variables to leave out.
        mask_and_scale : bool
            Whether nodata becomes NaN and a common factor and offset are applied.
        level : int, optional
            Stored level; 0, the finest, by default.
        mpp : float, optional
            Micrometres per pixel instead of a level; resampled where no stored level has them.
        gsd_m : float, optional
            Metres per pixel, the same for a scene whose CRS is in metres.
        source : str, optional
            Family that must read it (`tiff`, `openslide`, `dicom`, `zarr` …).
        storage_options : Mapping, optional
            fsspec storage options.

        Returns
        -------
        Dataset
            `image` with its coordinates.
        """
        from tilestream.xr.resolution import level_at
        from tilestream.xr.tree import image_attrs, level_dataset

        pyramid = _open(filename_or_obj, source, storage_options)
        chosen = level_at(pyramid, level=level, mpp=mpp, gsd_m=gsd_m)
        dataset = level_dataset(pyramid, chosen, mask_and_scale=mask_and_scale)
        dataset.attrs = {**image_attrs(pyramid), **dataset.attrs}
        return dataset.drop_vars(_names(drop_variables), errors="ignore")

    def open_datatree(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        mask_and_scale: bool = True,
        source: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> xr.DataTree:
        """Return all levels of an image; the parameters are those of `open_dataset`."""
        groups = self.open_groups_as_dict(
            filename_or_obj,
            drop_variables=drop_variables,
            mask_and_scale=mask_and_scale,
            source=source,
            storage_options=storage_options,
        )
        return xr.DataTree.from_dict(groups)

    def open_groups_as_dict(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        mask_and_scale: bool = True,
        source: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> dict[str, xr.Dataset]:
        """Return the groups of an image's tree by path; the parameters are those of `open_dataset`."""
        from tilestream.xr.tree import to_datasets

        pyramid = _open(filename_or_obj, source, storage_options)
        groups = to_datasets(pyramid, mask_and_scale=mask_and_scale)
        dropped = _names(drop_variables)
        return {path: dataset.drop_vars(dropped, errors="ignore") for path, dataset in groups.items()}

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return whether the engine takes a file unasked."""
        from tilestream.xr.guess import is_ours

        return is_ours(filename_or_obj)


def _open(target: Any, source: str | None, storage_options: Mapping[str, Any] | None) -> Pyramid:
    from tilestream.pyramid import Pyramid, open_pyramid

    if isinstance(target, Pyramid):
        if source is not None or storage_options is not None:
            raise ConfigError.of(
                "`xr.open_*`",
                got="a pyramid with `source` or `storage_options`",
                expected="them with a path or URL",
                do="Give them to `ts.open_pyramid`.",
            )
        return target
    return open_pyramid(target, source=source, options=storage_options)


def _names(drop_variables: str | Iterable[str] | None) -> list[str]:
    if drop_variables is None:
        return []
    return [drop_variables] if isinstance(drop_variables, str) else list(drop_variables)
