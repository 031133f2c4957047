"""A STAC item as one scene: the files beside it, or, where none lies there, those that its links point to.

Bands are assets with one entry in `eo:bands` (STAC 1.0) or `bands` (1.1); their factors stand in `raster:bands` or in
`raster:scale`. Items of two catalogues need more than that:

- Sentinel-2 from processing baseline 04.00 on is stored with an offset of -0.1. `earthsearch:boa_offset_applied` says
  that the offset was taken out of the pixels, and goes before `raster:bands`, which may state it nevertheless.
- Landsat Collection 2 level 2 states no factors in some catalogues; they are those of the product guide.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tilestream.errors import SourceError
from tilestream.sources.classes import KNOWN
from tilestream.sources.files import File
from tilestream.sources.samples import unique_names
from tilestream.sources.scene import BandFile, LayerFile, Scene, find, folder_of, iso_time, not_there
from tilestream.sources.scenefacts import STAC_NAMES, scene_facts
from tilestream.types import Channel, ClassBand

REFLECTANCE_L2 = (2.75e-05, -0.2)
TEMPERATURE_L2 = (0.00341802, 149.0)
"""Factors of Landsat Collection 2 level 2."""

POLARISATIONS = frozenset({"vv", "vh", "hh", "hv"})

Json = Mapping[str, Any]  # Any: a JSON document of somebody else


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One asset that may be a band or a layer."""

    key: str
    """Its key in the item."""
    body: Json
    """What stands behind the key."""
    file: File | None
    """Its file; None when it is not there."""

    @property
    def bands(self) -> Sequence[Json]:
        """Return what is said of its bands."""
        return self.body.get("eo:bands") or self.body.get("bands") or []

    @property
    def is_spectral(self) -> bool:
        """Return whether it is said to be one spectral band, or one polarisation of a radar image."""
        if self.layer is not None:
            return False
        words = ("common_name", "eo:common_name", "center_wavelength", "eo:center_wavelength")
        is_optical = len(self.bands) == 1 and ("eo:bands" in self.body or any(word in self.bands[0] for word in words))
        return is_optical or self.polarisation != ""

    @property
    def polarisation(self) -> str:
        """Return the polarisation of a radar image by its key, empty for other images."""
        return self.key.lower() if self.key.lower() in POLARISATIONS and not self.bands else ""

    @property
    def raster(self) -> Json:
        """Return what is said of its samples."""
        found: Json = (self.body.get("raster:bands") or self.bands or [{}])[0]
        return {**self.body, **found}

    @property
    def wavelength_um(self) -> float | None:
        """Return the centre of its band."""
        band = self.bands[0] if self.bands else {}
        value = band.get("center_wavelength", band.get("eo:center_wavelength"))
        return float(value) if isinstance(value, int | float) else None

    @property
    def common_name(self) -> str:
        """Return the common name of its band, empty when it has none."""
        band = self.bands[0] if self.bands else {}
        return str(band.get("common_name") or band.get("eo:common_name") or self.polarisation)

    @property
    def band_name(self) -> str:
        """Return what is equal for one band in two formats or resolutions: its name, where it has a common one too.

        By itself a name means little: some tools call the band of each file `b1`.
        """
        band = self.bands[0] if self.bands else {}
        return str(band.get("name") or self.key) if self.common_name else self.key

    @property
    def gsd_m(self) -> float:
        """Return the size of its pixels as far as it is stated."""
        value = self.raster.get(
            "spatial_resolution", self.raster.get("raster:spatial_resolution", self.body.get("gsd"))
        )
        return float(value) if isinstance(value, int | float) else math.inf

    @property
    def layer(self) -> ClassBand | None:
        """Return what it is as a layer of classes, None when it is none."""
        fields = self.raster.get("classification:bitfields") or ()
        classes = self.raster.get("classification:classes") or ()
        known = KNOWN.get(self.key.casefold())
        if not fields and not classes and known is None:
            return None
        return ClassBand(
            name=self.key if known is None else known.name,
            values={int(one["value"]): str(one.get("name", one["value"])) for one in classes}
            or (known.values if known and not fields else {}),
            bits={str(one["name"]): (int(one["offset"]), int(one["length"])) for one in fields if "name" in one}
            or (known.bits if known and not classes else {}),
        )


def stac_scene(file: File, item: Json) -> Scene:
    """Return the scene that a STAC item describes.

    Parameters
    ----------
    file : File
        The item.
    item : Mapping
        What it says.

    Returns
    -------
    Scene
        Bands by common name, in order of wavelength where all state it.

    Raises
    ------
    SourceError
        When its assets break the format, or none is a band.
    """
    try:
        assets = _assets(file, item)
        return _scene(item, assets)
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError.of(
            f"`{file.url}`",
            got=f"a STAC item whose assets break the format ({type(error).__name__}: {error})",
            expected="assets as the specification describes them",
            do="Check the item with a validator.",
        ) from error


def _assets(file: File, item: Json) -> list[Asset]:
    """Return the images of an item. Where one lies beside it, it is a copy, and nothing is fetched from elsewhere."""
    folder = folder_of(file)
    images = {key: str(asset.get("href", "")) for key, asset in item["assets"].items() if _is_image(asset)}
    beside = {key: _beside(folder, href, file) for key, href in images.items()}
    if any(beside.values()):
        files = beside
    else:
        files = {key: _elsewhere(folder, href, file) for key, href in images.items()}
    seen: set[str] = set()
    assets = []
    for key, found in files.items():
        is_again = found is not None and found.url in seen
        assets.append(Asset(key=key, body=item["assets"][key], file=None if is_again else found))
        seen |= set() if found is None else {found.url}
    return assets


def has_copies(file: File, item: Json) -> bool:
    """Return whether an item's images lie beside it, at least one of them.

    Parameters
    ----------
    file : File
        The item.
    item : Mapping
        What it says.

    Returns
    -------
    bool
        False also where its assets break the format.
    """
    folder = folder_of(file)
    images = [asset for asset in item["assets"].values() if isinstance(asset, dict) and _is_image(asset)]
    return any(_beside(folder, str(asset.get("href", "")), file) for asset in images)


def _is_image(asset: Json) -> bool:
    """Return whether an asset is an image of the scene itself; pictures and metadata beside one make no copy of it."""
    roles = asset.get("roles") or ()
    is_other = any(role in ("thumbnail", "overview", "metadata") for role in roles)
    return str(asset.get("type", "image")).startswith("image") and not is_other


def _beside(folder: str, href: str, like: File) -> File | None:
    """Return the copy of an asset near the item: where its relative link points to, or under its name beside it."""
    name = _name_of(href)
    if not name:
        return None
    if "://" in href or href.startswith("/"):
        # A web server is not asked for files that nobody says it has.
        return find(folder, [name], like=like) if like.is_local else None
    return find(folder, [href, name], like=like)


def _name_of(href: str) -> str:
    return href.partition("?")[0].rpartition("/")[2]


def _elsewhere(folder: str, href: str, like: File) -> File | None:
    """Return the file that a link points to; whether it is there shows when it is opened."""
    for prefix, scheme in (("/vsis3/", "s3://"), ("/vsigs/", "gs://"), ("/vsicurl/", "")):
        if href.startswith(prefix):
            href = scheme + href.removeprefix(prefix)
    if "://" not in href and not href.startswith("/"):
        return None  # looked for already
    return File(url=href, options=like.options) if href else None


def _scene(item: Json, assets: list[Asset]) -> Scene:
    properties = item.get("properties") or {}
    spectral = _spectral(assets)
    there = _finest([asset for asset in spectral if asset.file is not None])
    names = _names(spectral)
    if all(asset.wavelength_um is not None for asset in there):
        there.sort(key=lambda asset: asset.wavelength_um or 0.0)
    labels = unique_names([names[asset.key] for asset in there])
    factors = [_factors(properties, asset) for asset in there]
    odd = [names[a.key] for a, (scale, offset, _) in zip(there, factors, strict=True) if not _is_factor(scale, offset)]
    if odd:
        raise ValueError(f"scale or offset of {', '.join(odd)}")
    served = {asset.band_name for asset in there}
    missing = {asset.band_name: names[asset.key] for asset in reversed(spectral) if asset.band_name not in served}
    layers, missing_layers = _layers(assets)
    return Scene(
        format="stac-bands",
        bands=tuple(
            BandFile(
                file=asset.file,
                channel=Channel(name=label, scale=scale, offset=offset),
                nodata=_nodata(properties, asset),
            )
            for asset, label, (scale, offset, _) in zip(there, labels, factors, strict=True)
            if asset.file is not None
        ),
        layers=layers,
        absent=not_there([*reversed(missing.values()), *missing_layers]),
        left_out=tuple(
            asset.key for asset in assets if asset.file is not None and asset not in there and asset.layer is None
        ),
        datetime=iso_time(properties.get("datetime") or properties.get("start_datetime")),
        named=frozenset(_name_of(str(asset.get("href", ""))) for asset in item["assets"].values()),
        facts=scene_facts(properties.items(), STAC_NAMES),
        notes=tuple(dict.fromkeys(note for *_, note in factors if note)),
    )


def _spectral(assets: list[Asset]) -> list[Asset]:
    """Return the bands: those that say so, else every image that is said to hold one band (a terrain model)."""
    found = [asset for asset in assets if asset.is_spectral]
    return found or [asset for asset in assets if len(asset.bands) == 1 and asset.layer is None]


def _finest(there: list[Asset]) -> list[Asset]:
    """Return each band once: at its finest resolution, and in the format that comes first."""
    best: dict[str, Asset] = {}
    for asset in there:
        known = best.setdefault(asset.band_name, asset)
        if asset.gsd_m < known.gsd_m:
            best[asset.band_name] = asset
    return [asset for asset in there if best[asset.band_name] is asset]


def _layers(assets: list[Asset]) -> tuple[tuple[LayerFile, ...], list[str]]:
    """Return the class layers, and the names of those that are not there."""
    found: dict[str, LayerFile] = {}
    missing: dict[str, None] = {}
    for asset in assets:
        band = asset.layer
        if band is None:
            continue
        if asset.file is None:
            missing[band.name] = None
        else:
            found.setdefault(band.name, LayerFile(file=asset.file, band=band))
    return tuple(found.values()), [name for name in missing if name not in found]


def _names(spectral: list[Asset]) -> dict[str, str]:
    """Return the channel of each asset: its common name where no other band has it, else its key.

    Bands whose files are not there count too, so that a name does not depend on what was downloaded.
    """
    bands: dict[str, set[str]] = {}
    for asset in spectral:
        bands.setdefault(asset.common_name, set()).add(asset.band_name)
    return {
        asset.key: asset.common_name if asset.common_name and len(bands[asset.common_name]) == 1 else asset.key
        for asset in spectral
    }


def _is_sentinel2(properties: Json) -> bool:
    words = (properties.get("constellation"), properties.get("platform"), *(properties.get("instruments") or ()))
    return any(str(word).lower().startswith("sentinel-2") for word in words)


def _is_landsat_l2(properties: Json) -> bool:
    is_l2 = str(properties.get("landsat:correction", "")).startswith("L2")
    return is_l2 and str(properties.get("landsat:collection_number", "02")) == "02"


def _nodata(properties: Json, asset: Asset) -> float | None:
    value = asset.raster.get("nodata")
    if isinstance(value, int | float):
        return float(value)
    return 0.0 if _is_sentinel2(properties) or _is_landsat_l2(properties) else None


def _is_factor(scale: float, offset: float) -> bool:
    return math.isfinite(scale) and scale != 0 and math.isfinite(offset)


def _factors(properties: Json, asset: Asset) -> tuple[float, float, str]:
    """Return scale and offset of a band, and a note."""
    raster = asset.raster
    scale, offset = raster.get("scale", raster.get("raster:scale")), raster.get("offset", raster.get("raster:offset"))
    if _is_sentinel2(properties):
        return _sentinel2_factors(properties, scale, offset)
    if scale is None and offset is None and _is_landsat_l2(properties):
        is_heat = asset.common_name.startswith("lwir")
        return *(TEMPERATURE_L2 if is_heat else REFLECTANCE_L2), "factors are those of Landsat Collection 2 level 2"
    return float(1 if scale is None else scale), float(offset or 0), ""


def _sentinel2_factors(properties: Json, scale: object, offset: object) -> tuple[float, float, str]:
    baseline, applied = _baseline(properties), _applied(properties)
    is_new = baseline is not None and baseline >= 4
    stated = None if offset is None else float(str(offset))
    size = 1e-4 if scale is None else float(str(scale))
    if scale is None and baseline is None:
        return 1.0, 0.0, "values are as stored: the item states neither factors nor a processing baseline"
    if applied:
        return size, 0.0, "the item says that the offset was taken out of the pixels" if stated or is_new else ""
    if is_new and not stated and (stated is None or applied is False):
        return size, -0.1, "offset -0.1 by the processing baseline: the item states none"
    note = "reflectances below 0 would show that the item is wrong in saying that the offset is still in the pixels"
    return size, stated or 0.0, note if stated and applied is False else ""


def _applied(properties: Json) -> bool | None:
    value = properties.get("earthsearch:boa_offset_applied", properties.get("sentinel:boa_offset_applied"))
    return value if isinstance(value, bool) else None


def _baseline(properties: Json) -> float | None:
    for name in ("s2:processing_baseline", "sentinel:processing_baseline", "processing:version"):
        try:
            return float(properties[name])
        except (KeyError, TypeError, ValueError):
            continue
    match = re.search(r"_N(\d\d)(\d\d)_", str(properties.get("s2:product_uri", "")))
    return float(f"{match[1]}.{match[2]}") if match else None
