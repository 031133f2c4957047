"""How an image shows itself in a notebook: a thumbnail beside what is known of it."""

from __future__ import annotations

import base64
from html import escape

import imagecodecs
import numpy as np

from tilestream.pyramid.display import display_pixels
from tilestream.types import PlanLevel
from tilestream.xr.pictures import region_of, stored_px
from tilestream.xr.place import place_of
from tilestream.xr.subject import Subject

PICTURE_PX = 320
"""Longest edge of the picture."""
MOST_STORED_PX = 1 << 26
"""Stored pixels read for a picture at most, about a second of decoding; a larger image shows none unasked."""
MOST_CHANNELS = 8
_QUALITY = 85

_STYLE = """
.tiles-card{display:flex;gap:16px;align-items:flex-start;font:13px/1.45 system-ui,sans-serif;margin:4px 0}
.tiles-card figure{margin:0;flex:none;max-width:320px}
.tiles-card img{display:block;max-width:100%;height:auto;border:1px solid rgba(128,128,128,.5)}
.tiles-card figcaption{opacity:.7;padding-top:3px}
.tiles-card table{border-collapse:collapse;margin:0 0 8px}
.tiles-card td,.tiles-card th{padding:1px 14px 1px 0;text-align:left;vertical-align:top;background:none;border:0}
.tiles-card th{font-weight:600;opacity:.7;white-space:nowrap}
.tiles-card td.n,.tiles-card th.n{text-align:right}
.tiles-card .here td{font-weight:600}
.tiles-card .note{max-width:60ch;opacity:.8;margin:2px 0}
"""


def card_text(subject: Subject) -> str:
    """Return a few lines of text.

    Parameters
    ----------
    subject : Subject
        What to show.

    Returns
    -------
    str
        For a terminal.
    """
    return "\n".join(f"{name:<10} {value}" for name, value in _facts(subject))


def card_html(subject: Subject) -> str:
    """Return the card of a notebook.

    Parameters
    ----------
    subject : Subject
        What to show.

    Returns
    -------
    str
        HTML that needs nothing from elsewhere. The picture is left out where it would take long, or would compute what
        was not asked for.
    """
    facts = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in _facts(subject))
    notes = "".join(f'<div class="note">{escape(note)}</div>' for note in subject.pyramid.info.notes)
    return (
        f'<style>{_STYLE}</style><div class="tiles-card">{_figure(subject)}'
        f"<div><table>{facts}</table>{_levels(subject)}{notes}</div></div>"
    )


def _figure(subject: Subject) -> str:
    if subject.is_chunked and not subject.is_stored:
        return _no_picture("computed when asked for: <code>.tiles.thumbnail()</code>")
    if stored_px(subject, PICTURE_PX) > MOST_STORED_PX:
        return _no_picture("no level is coarse enough for a quick picture: <code>.tiles.thumbnail()</code>")
    region = region_of(subject, PICTURE_PX)
    shown = np.ascontiguousarray(display_pixels(region, subject.pyramid.channels, kind=subject.pyramid.kind))
    picture = base64.b64encode(imagecodecs.jpeg8_encode(shown, level=_QUALITY)).decode()
    height, width = shown.shape[:2]
    caption = f"<figcaption>{_extent(subject)}</figcaption>"
    damage = f'<div class="note">{len(region.damage)} blocks are damaged</div>' if region.damage else ""
    return (
        f'<figure><img alt="thumbnail" width="{width}" height="{height}" src="data:image/jpeg;base64,{picture}">'
        f"{caption}{damage}</figure>"
    )


def _no_picture(why: str) -> str:
    return f'<figure><div class="note">{why}</div></figure>'


def _extent(subject: Subject) -> str:
    """Return the size of what is shown, in mm or km where that is known."""
    info, (rows, columns) = subject.pyramid.info, subject.bounds_yx
    height, width = rows[1] - rows[0], columns[1] - columns[0]
    if info.mpp_yx is not None:
        return f"{width * info.mpp_yx[1] / 1e3:.3g} × {height * info.mpp_yx[0] / 1e3:.3g} mm"
    if subject.pyramid.gsd_m is not None:
        gsd_km = subject.pyramid.gsd_m / 1e3
        return f"{width * gsd_km:.3g} × {height * gsd_km:.3g} km"
    return f"{width:,.0f} × {height:,.0f} px of level 0"


def _facts(subject: Subject) -> list[tuple[str, str]]:
    pyramid, info = subject.pyramid, subject.pyramid.info
    names = [channel.name for channel in pyramid.channels]
    more = f" and {len(names) - MOST_CHANNELS} more" if len(names) > MOST_CHANNELS else ""
    box, shape = subject.box, subject.level.shape
    part = f"rows {box.y:,} to {box.y_stop:,}, columns {box.x:,} to {box.x_stop:,} of {shape.x:,} × {shape.y:,} px"
    facts = [
        ("source", pyramid.address),
        ("format", f"{info.format}, {info.modality}" if info.modality != "unknown" else info.format),
        ("size", f"{box.width:,} × {box.height:,} px, {info.dtype}"),
        ("part", "" if subject.is_whole else part),
        ("channels", ", ".join(names[:MOST_CHANNELS]) + more),
        ("pixel", _pixel(subject)),
        ("crs", _crs(info.crs)),
        ("nodata", "" if info.nodata is None else f"{info.nodata:g}"),
        ("chosen", ", ".join(f"{axis}={index} of {info.axes[axis]}" for axis, index in info.selection.items())),
        ("also", ", ".join(info.associated)),
    ]
    return [(name, value) for name, value in facts if value]


def _pixel(subject: Subject) -> str:
    scale = max(subject.level.scale_yx)
    if subject.pyramid.mpp is not None:
        return f"{subject.pyramid.mpp * scale:.4g} µm"
    if subject.pyramid.gsd_m is not None:
        return f"{subject.pyramid.gsd_m * scale:.4g} m"
    place = place_of(subject.pyramid.info, subject.level)
    if place.grid_mapping is None or place.x is None:
        return ""
    unit = place.x_attrs.get("units", "units of the CRS").partition("_")[0]  # degrees_east
    return f"{abs(place.x.step):.4g} {unit}"


def _crs(crs: str | None) -> str:
    return "" if crs is None else crs if len(crs) <= 24 else f"{crs[:24]}…"


def _levels(subject: Subject) -> str:
    rows = []
    for level in subject.pyramid.levels:
        here = ' class="here"' if _is_at(subject.level, level.index) else ""
        cells = f"{level.index}", f"{level.shape.x:,} × {level.shape.y:,}", f"{max(level.scale_yx):.4g}"
        rows.append(f"<tr{here}>" + "".join(f'<td class="n">{cell}</td>' for cell in cells) + "</tr>")
    head = "".join(f'<th class="n">{name}</th>' for name in ("level", "px", "scale"))
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _is_at(level: PlanLevel, index: int) -> bool:
    return level.is_stored and level.stored == index
