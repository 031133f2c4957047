"""What CF says of samples: which of them are no measurement, factor and offset, the meaning of classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilestream.pyramid import Pyramid
from tilestream.types import ClassBand


def fill_of(pyramid: Pyramid) -> Any:
    """Return what stands where nothing was measured: nodata as stored, NaN for floats that have none, else 0.

    Parameters
    ----------
    pyramid : Pyramid
        The image.

    Returns
    -------
    scalar
        Of the samples' type.
    """
    nodata, dtype = nodata_of(pyramid), pyramid.dtype
    if nodata is not None:
        return dtype.type(nodata)
    return dtype.type(np.nan if dtype.kind == "f" else 0)


def nodata_of(pyramid: Pyramid) -> float | int | None:
    """Return nodata as a value of the samples' type.

    Parameters
    ----------
    pyramid : Pyramid
        The image.

    Returns
    -------
    number or None
        None where there is none, or none that a sample can hold.
    """
    nodata, dtype = pyramid.info.nodata, pyramid.dtype
    if dtype.kind == "f":
        return np.nan if nodata is None and pyramid.info.validity else nodata
    if nodata is None or dtype.kind not in "iu" or not float(nodata).is_integer():
        return None
    return int(nodata) if np.iinfo(dtype).min <= nodata <= np.iinfo(dtype).max else None


def coding_of(pyr: Pyramid) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return how samples are to be read by CF, and what else is to be known of them.

    Parameters
    ----------
    pyr : Pyramid
        The image.

    Returns
    -------
    coding : dict
        `_FillValue` where there is nodata, `scale_factor` and `add_offset` where all channels have the same.
    attrs : dict
        `channel_scale` and `channel_offset` where channels differ; `nodata` where no sample can hold it.
    """
    coding: dict[str, Any] = {}
    attrs: dict[str, Any] = {}
    nodata = nodata_of(pyr)
    if nodata is not None:
        coding["_FillValue"] = nodata
    elif pyr.info.nodata is not None:
        attrs["nodata"] = pyr.info.nodata
    scales, offsets = ([getattr(channel, name) for channel in pyr.channels] for name in ("scale", "offset"))
    if len(set(scales)) == len(set(offsets)) == 1:
        coding |= {} if scales[0] == 1 else {"scale_factor": scales[0]}
        coding |= {} if offsets[0] == 0 else {"add_offset": offsets[0]}
    else:
        attrs |= {"channel_scale": scales, "channel_offset": offsets}
    return coding, attrs


def flags_of(band: ClassBand, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return what the numbers of a class layer mean, as CF says it.

    Parameters
    ----------
    band : ClassBand
        The layer.
    dtype : dtype
        Type of its samples.

    Returns
    -------
    dict
        `flag_values` or, for bit fields, `flag_masks` and `flag_values`, with `flag_meanings`; a field of several bits
        has a meaning for each of its values above 0.
    """
    if band.bits:
        fields = [
            (name, first, value, count) for name, (first, count) in band.bits.items() for value in range(1, 1 << count)
        ]
        names = [name if count == 1 else f"{name}_{value}" for name, _, value, count in fields]
        masks = [((1 << count) - 1) << first for _, first, _, count in fields]
        values = [value << first for _, first, value, _ in fields]
        flags = {"flag_masks": np.array(masks, dtype), "flag_values": np.array(values, dtype)}
    else:
        names = list(band.values.values())
        flags = {"flag_values": np.array(list(band.values), dtype)} if names else {}
    return {"long_name": band.name, **flags, **({"flag_meanings": " ".join(names)} if names else {})}
