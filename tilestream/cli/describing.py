"""What `tilestream info` prints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from tilestream.cli.lines import print_line

MOST_CHANNELS = 12


def print_image(facts: Mapping[str, Any], console: Console | None = None) -> None:
    """Print the description of one image.

    Parameters
    ----------
    facts : Mapping
        What `describe_image` returns.
    console : Console, optional
        Where to print; standard output by default.
    """
    console = console or Console(highlight=False)
    print_line(console, (facts["path"], "bold"))
    for name, value in _lines(facts):
        print_line(console, (f"{name:<16}", "dim"), value)
    console.print(_levels(facts["levels"], facts["coded"] or {}))
    for note in facts["notes"]:
        print_line(console, ("note ", "yellow"), note)


def _lines(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    height, width = facts["shape_yx"]
    lines = [
        ("format", facts["format"]),
        ("size", f"{width:,} × {height:,} px, {facts['dtype']}"),
        ("kind", f"{facts['kind']}, {facts['modality']}"),
        ("channels", _channels(facts["channels"])),
        ("pixel size", _pixel_size(facts)),
        ("axes", ", ".join(f"{axis} {size}" for axis, size in facts["axes"].items())),
        ("selection", ", ".join(f"{axis}={index}" for axis, index in facts["selection"].items())),
        ("crs", facts["crs"] or ""),
        ("affine", ", ".join(f"{value:.10g}" for value in facts["affine"] or ())),
        ("control points", f"{len(facts['gcps'])}" if facts["gcps"] else ""),
        ("taken", facts["datetime"] or ""),
        ("class layers", ", ".join(band["name"] for band in facts["classes"]) if facts["kind"] != "labels" else ""),
        ("classes", _classes(facts)),
        ("derived", ", ".join(facts["derived"])),
        ("nodata", "" if facts["nodata"] is None else f"{facts['nodata']}"),
        ("content", _box(facts["content_yxhw"])),
        ("associated", ", ".join(facts["associated"])),
        ("colour profile", _profile(facts["icc"])),
        *coded_lines(facts["coded"]),
        *_technical(facts),
        ("kept back", _kept_back(facts["kept_back"])),
        ("fingerprint", facts["fingerprint"]),
    ]
    return [(name, value) for name, value in lines if value]


def _profile(icc: Mapping[str, Any] | None) -> str:
    return "" if icc is None else f"ICC, {icc['bytes']:,} bytes, {icc['description'] or 'without a name'}"


def _technical(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the technical facts, some to a line, and those of channels behind their names."""
    technical = dict(facts["technical"])
    of_channels = technical.pop("channels", [])
    names = [channel["name"] for channel in facts["channels"]]
    lines = [("technical", ", ".join(_fact(name, value) for name, value in technical.items()))]
    for number, own in enumerate(of_channels[:MOST_CHANNELS]):
        of = names[number] if len(of_channels) == len(names) else f"path {number}"
        told = ", ".join(_fact(name, value) for name, value in own.items())
        lines.append(("", f"{of}: {told}" if told else ""))
    return lines


def _fact(name: str, value: Any) -> str:
    text = (
        " ".join(map(str, value)) if isinstance(value, list) else f"{value:g}" if type(value) is float else f"{value}"
    )
    return f"{name.replace('_', ' ')} {text}"


def _kept_back(kept: Mapping[str, Any]) -> str:
    fields = [f"header fields that may identify somebody ({kept['fields']})"] if kept["fields"] else []
    return ", ".join([*kept["images"], *fields])


def _channels(channels: Sequence[Mapping[str, Any]]) -> str:
    names = []
    for channel in channels[:MOST_CHANNELS]:
        factor = f" × {channel['scale']:g}" if channel["scale"] != 1 else ""
        offset = f" {'+' if channel['offset'] > 0 else '-'} {abs(channel['offset']):g}" if channel["offset"] else ""
        color = f" #{channel['color']}" if channel["color"] else ""
        names.append(channel["name"] + factor + offset + color)
    more = f" and {len(channels) - MOST_CHANNELS} more" if len(channels) > MOST_CHANNELS else ""
    return ", ".join(names) + more


def _classes(facts: Mapping[str, Any]) -> str:
    """Return what the numbers of a class layer mean, when the image is one."""
    if facts["kind"] != "labels" or len(facts["classes"]) != 1:
        return ""
    band = facts["classes"][0]
    values = [f"{value} {name}" for value, name in band["values"].items()]
    bits = [
        f"bit{first} {name}" if count == 1 else f"bits{first}-{first + count - 1} {name}"
        for name, (first, count) in band["bits"].items()
    ]
    return ", ".join([*values, *bits])


def _pixel_size(facts: Mapping[str, Any]) -> str:
    if facts["mpp_yx"] is not None:
        return _pair(facts["mpp_yx"], "µm/px")
    if facts["affine"] is None:
        return "as the control points say" if facts["gcps"] else "unknown"
    a, b, _, d, e, _ = facts["affine"]
    return _pair((math.hypot(b, e), math.hypot(a, d)), "units of the CRS")


def _pair(pair_yx: Sequence[float] | None, unit: str) -> str:
    if pair_yx is None:
        return ""
    y, x = (f"{value:.4g}" for value in pair_yx)
    return f"{x} {unit}" if x == y else f"{x} × {y} {unit}"


def _box(content_yxhw: Sequence[int] | None) -> str:
    if content_yxhw is None:
        return ""
    y, x, height, width = content_yxhw
    return f"{width:,} × {height:,} px at x={x:,}, y={y:,}"


def coded_lines(coded: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return how a store of fields is encoded, as names and words."""
    if coded is None:
        return []
    told = [str(coded["codec"]), *(_fact(name, n) for name, n in coded["settings"].items() if name != "codec")]
    bpp, nbytes = coded["bpp"], coded["bytes"]
    beside = f" of tiles, {coded['decoder_bytes']:,} of their decoder" if coded.get("decoder_bytes") else ""
    parts = [f"{name} {count:,}" for name, count in (coded["parameters"] or {}).items()]
    sizes = f"{', '.join(parts)} parameters" + (f" in {coded['tile_bytes']:,} bytes" if coded["tile_bytes"] else "")
    return [
        ("codec", f"{', '.join(told)}, tiles of {coded['tile_px']} px"),
        ("stored", "" if bpp is None or nbytes is None else f"{bpp:g} bits per pixel, {nbytes:,} bytes{beside}"),
        ("a tile", sizes if parts else ""),
    ]


def _levels(levels: Sequence[Mapping[str, Any]], coded: Mapping[str, Any]) -> Table:
    from tilestream.pipelines.report_words import psnr_words

    has_psnr = bool(coded.get("psnr"))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("level", justify="right")
    has_mpp = any(level["mpp_yx"] for level in levels)
    for name in ("size", "block", "scale", *(["µm/px"] if has_mpp else []), *(["PSNR dB"] if has_psnr else [])):
        table.add_column(name, justify="right", no_wrap=True)
    for level in levels:
        (height, width), (block_y, block_x) = level["shape_yx"], level["block_yx"]
        table.add_row(
            f"{level['level']}",
            f"{width:,} × {height:,}",
            f"{block_x:,} × {block_y:,}",
            _pair(level["scale_yx"], "").strip(),
            *([_pair(level["mpp_yx"], "").strip()] if has_mpp else []),
            *([psnr_words(coded, level["level"])] if has_psnr else []),
        )
    return table
