"""Which facts of a header are known to be harmless: a whitelist of names, each with a check of its value.

A fact is kept when its name is in `KNOWN` and its value passes: a number in a plausible range, one of a few words, or a
text of a narrow pattern. No check lets free text through, and numbers are too small for a date of eight digits or most
barcodes. Everything else counts as identifying: serial numbers, names, dates of slides, file names, comments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

Check: TypeAlias = Callable[[Any], Any]
"""Returns the value as JSON, None when it is not known to be harmless."""

MOST_ENTRIES = 1024
"""Longest list of values: channels of one image."""


def number(low: float = -1e5, high: float = 1e5) -> Check:
    """Return the check for a number from `low` to `high`, also as text; whole numbers become int."""

    def check(value: Any) -> float | int | None:
        try:
            found = float(value)
        except (TypeError, ValueError):
            return None
        if isinstance(value, bool) or not low <= found <= high:
            return None
        return int(found) if found.is_integer() and not isinstance(value, float) else found

    return check


def words(*allowed: str) -> Check:
    """Return the check for one of a few words, in any case; they come out as they are written here."""
    known = {word.casefold(): word for word in allowed}

    def check(value: Any) -> str | None:
        return known.get(value.strip().casefold()) if isinstance(value, str) else None

    return check


def pattern(expression: str) -> Check:
    """Return the check for a text that matches an expression from end to end."""
    compiled = re.compile(expression, re.ASCII)

    def check(value: Any) -> str | None:
        text = value.strip() if isinstance(value, str) else ""
        return text if compiled.fullmatch(text) else None

    return check


def several(check: Check) -> Check:
    """Return the check for a list all of whose entries pass; one value is a list of one."""

    def check_all(values: Any) -> list[Any] | None:
        entries = list(values) if isinstance(values, (list, tuple)) else [values]
        found = [check(value) for value in entries[:MOST_ENTRIES]]
        return found if found and len(entries) <= MOST_ENTRIES and None not in found else None

    return check_all


def records(known: Mapping[str, Check]) -> Check:
    """Return the check for a list of mappings, of which the entries that pass are kept; None when none does."""
    check_all = several(lambda value: kept(value, known) if isinstance(value, Mapping) else None)

    def check(values: Any) -> list[Any] | None:
        found: list[Any] | None = check_all(values)
        return found if found and any(found) else None

    return check


def kept(facts: Mapping[str, Any], known: Mapping[str, Check]) -> dict[str, Any]:
    """Return the facts whose names are known and whose values pass.

    Parameters
    ----------
    facts : Mapping
        Values by name.
    known : Mapping
        Check by name.

    Returns
    -------
    dict
        JSON values in the order of `known`.
    """
    checked = {name: check(facts[name]) for name, check in known.items() if name in facts}
    return {name: value for name, value in checked.items() if value is not None}


_VERSION = r"v?\d{1,4}(?:\.\d{1,6}){1,4}(?:(?:a|b|rc|-beta|-alpha)\d{0,2})?"
_NO_DATE = r"(?!(?:19|20)\d\d\.\d\d?\.\d)(?!\d\d?\.\d\d?\.(?:19|20)\d\d$)(?!\d\d\.\d\d\.\d\d$)"
_PRODUCTS = (
    r"Aperio Image Library|Aperio Leica Biosystems GT450|ScanScope Console|NDP\.scan|NDP\.toolkit|NDP\.image|"
    r"OME Bio-Formats|QuPath|tifffile\.py|tifffile|ImageJ|GDAL|libvips|pix4dmapper|Philips DP|MedScan|"
    r"VectraScan|Vectra Polaris|PhenoImager|inForm|"
    r"ZEN (?:Blue )?(?:Slidescan|Desk|System)|CaseViewer|SlideConverter|PerkinElmer-QPI|bfconvert|Adobe Photoshop"
)
_MODELS = (
    r"C\d{4,5}-\d\d[A-Z]?|NanoZoomer(?:[ -](?:S\d{1,3}|XR|SQ|HT|RS|2\.0-HT|2\.0-RS))?(?: ?MD)?|"
    r"(?:Leica )?(?:Aperio )?(?:ScanScope )?(?:AT2|AT|AT Turbo|CS2?|CSO|XT|GL|FL|OS|LV1|VERSA \d{1,3}|GT450)(?: DX)?|"
    r"Leica SCN400F?(?:;Leica SCN)?|Leica SCN|UFS Scanner|SG(?:20|60|300) Scanner|"
    r"VENTANA (?:iScan (?:HT|Coreo)|DP ?(?:200|600))|iScan (?:HT|Coreo)|DP ?(?:200|600)|"
    r"Pann?oramic (?:250(?: Flash(?: I{1,3})?)?|1000|MIDI(?: II)?|SCAN(?: II)?|DESK(?: II)?|CONFOCAL)|"
    r"Axio Scan\.Z1|Axioscan 7|VS1[12]0|VS200|Vectra Polaris|PhenoImager HT|Vectra 3"
)
_IMMERSION = words("Oil", "Water", "WaterDipping", "Air", "Multi", "Glycerol")
_ILLUMINATION = words("brightfield", "fluorescence", "Transmitted", "Epifluorescence", "Oblique", "NonLinear")
_UM = number(-1e4, 1e4)

CHANNEL: Mapping[str, Check] = {
    "illumination": _ILLUMINATION,
    "excitation_nm": number(100, 2000),
    "emission_nm": number(100, 2000),
    "exposure_s": number(0, 3600),
    "gain": number(0, 1e4),
    "gamma": number(0, 10),
    "contrast": words("Brightfield", "Phase", "DIC", "HoffmanModulation", "ObliqueIllumination", "PolarizedLight",
                      "Darkfield", "Fluorescence"),
    "acquisition": words("WideField", "LaserScanningConfocalMicroscopy", "SpinningDiskConfocal", "SlitScanConfocal",
                         "MultiPhotonMicroscopy", "StructuredIllumination", "SinglePhoton", "TotalInternalReflection",
                         "FluorescenceLifetime", "SpectralImaging", "LightSheet", "BrightField"),
    "objective_power": number(0, 400),
    "objective_na": number(0, 2),
    "color_space": words("sRGB", "ADOBERGB", "ROMMRGB", "DISPLAYP3"),
}  # fmt: skip
"""Facts of one channel or optical path."""

_PRODUCT: Mapping[str, Check] = {
    "platform": pattern(r"(?i:sentinel-[1-6][a-d]?|landsat[-_][1-9]|terra|aqua|noaa-\d\d|worldview-\d|pleiades)"),
    "instruments": several(pattern(r"(?i:msi|oli|tirs|oli_tirs|etm\+?|tm|mss|c-sar|sar|olci|slstr|modis|viirs)")),
    "acquired": pattern(r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)?)?"),
    "processing_level": pattern(r"(?:Level-)?L?[0-4][A-Cp]{0,2}|L1TP|L1GT|L1GS|L1T|L2SP|L2SR"),
    "processing_baseline": pattern(r"\d\d\.\d\d"),
    "product_type": pattern(r"S2MSI[12][AC]p?|GRD|SLC|RTC|OCN|L[12][A-Z]{2}"),
    "sun_elevation_deg": number(-90, 90),
    "sun_azimuth_deg": number(-360, 360),
    "view_zenith_deg": number(0, 90),
    "cloud_cover_percent": number(0, 100),
    "orbit_direction": words("ascending", "descending"),
    "orbit_number": number(0, 1e6),
    "grid_square": pattern(r"(?:MGRS-)?\d{1,2}[C-HJ-NP-X][A-HJ-NP-Z]{2}|WRS2-\d{6}"),
    "polarisations": several(words("VV", "VH", "HH", "HV")),
}  # fmt: skip

KNOWN: Mapping[str, Check] = {
    "vendor": words(
        "Aperio", "Hamamatsu", "Leica", "Leica Biosystems", "Leica Microsystems", "Philips", "PHILIPS", "Ventana",
        "Roche", "Roche Diagnostics", "3DHISTECH", "MIRAX", "Trestle", "Sakura", "Olympus", "Evident", "Carl Zeiss",
        "Zeiss", "Nikon", "PerkinElmer", "Akoya Biosciences", "Huron", "Motic", "Grundium", "Pramana", "Google",
        "generic-tiff", "dicom",
    ),
    "model": pattern(_MODELS),
    "software": several(pattern(rf"(?:{_PRODUCTS})(?: {_VERSION})?|{_NO_DATE}{_VERSION}")),
    "objective_power": number(0, 400),
    "objective_na": number(0, 2),
    "objective_immersion": _IMMERSION,
    "objective_correction": words(
        "UV", "PlanApo", "PlanFluor", "SuperFluor", "VioletCorrected", "Achro", "Achromat", "Fluor", "Fl", "Fluar",
        "Neofluar", "Fluotar", "Apo", "PlanNeofluar",
    ),
    "illumination": _ILLUMINATION,
    "gamma": number(0, 10),
    "exposure_time": number(0),
    "exposure_scale": number(0, 10),
    "compression": words("JPEG", "JPEG 2000", "JPEG 2000 (RGB)", "JPEG 2000 (YCbCr)", "LZW", "deflate", "none",
                         "PackBits", "Zstandard", "WebP", "JPEG XL", "LZMA"),
    "compression_quality": number(0, 100),
    "lossy_compression": words("00", "01"),
    "lossy_ratio": several(number(0)),
    "lossy_method": several(words("ISO_10918_1", "ISO_14495_1", "ISO_15444_1", "ISO_13818_2", "ISO_14496_10",
                                  "ISO_18181_1")),
    "image_type": several(words("ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY", "VOLUME", "THUMBNAIL", "NONE",
                                "RESAMPLED")),
    "focus_method": words("AUTO", "MANUAL"),
    "extended_depth_of_field": words("YES", "NO"),
    "focal_planes": number(0, 1e4),
    "focal_plane_distance_um": _UM,
    "focus_offset": number(),
    "stripe_width_px": number(0),
    "scan_left_mm": number(-1e3, 1e3),
    "scan_top_mm": number(-1e3, 1e3),
    "line_camera_skew": number(-10, 10),
    "line_area_offset_yx": several(number(-10, 10)),
    "slide_centre_offset_yx_mm": several(number(-1e3, 1e3)),
    "original_shape_yx_px": several(number(0, 5e5)),
    "image_orientation": several(number(-1, 1)),
    "slice_thickness_um": _UM,
    "channels": records(CHANNEL),
    **_PRODUCT,
}  # fmt: skip
"""Names and checks of all technical facts."""


def sort_out(found: Iterable[tuple[str, Any]], names: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the facts of a header as technical ones and all others.

    Parameters
    ----------
    found : iterable of (str, object)
        Names of the format and their values.
    names : Mapping
        Technical name for each name of the format that has one; of two that share one the first counts.

    Returns
    -------
    dict, dict
        Technical facts by their names in `KNOWN`, and the rest by the names of the format.
    """
    technical: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, value in found:
        known = names.get(name)
        checked = None if known is None else KNOWN[known](value)
        if known is None or checked is None:
            others[name] = value
        else:
            technical.setdefault(known, checked)
    return {name: technical[name] for name in KNOWN if name in technical}, others
