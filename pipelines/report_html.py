"""The report for people: pages that need nothing but themselves, no scripts, no fonts, no network."""

from __future__ import annotations

import base64
import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tilestream.pipelines.report_advice import Setting
from tilestream.pipelines.report_colours import stops
from tilestream.pipelines.report_html_time import cache_lines, run_view, time_split
from tilestream.pipelines.report_json import reason_list, totals
from tilestream.pipelines.report_picture import Picture
from tilestream.pipelines.report_rows import InputRow, RunFacts
from tilestream.pipelines.report_where import input_time
from tilestream.pipelines.report_words import format_bytes, format_rate, format_seconds, format_share, psnr_words

MAX_IGNORED = 200
"""Most ignored files listed; all are counted."""
PSNR_LABEL = "PSNR"
"""What the picture of a store of fields shows."""
MAX_REASONS = 10
"""Most reasons of missing tiles listed for the run as a whole; all are counted."""


def render_report(facts: RunFacts, rows: Sequence[InputRow], pages: Mapping[int, str]) -> str:
    """Return the main page: with all slides on it, or an index of their pages.

    Parameters
    ----------
    facts : RunFacts
        Figures of the run.
    rows : sequence of InputRow
        All inputs, ignored files included.
    pages : Mapping
        Address of the page of each row by its index; empty = everything on this page.

    Returns
    -------
    str
        HTML.
    """
    shown = [(index, row) for index, row in enumerate(rows) if row.status != "ignored"]
    ignored = [row for row in rows if row.status == "ignored"]
    summary = totals(facts, rows)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            facts=facts,
            totals=summary,
            time=run_view(facts),
            reasons=reason_lines(rows),
            worst=[{"row": row, "page": pages.get(index)} for index, row in sorted(shown, key=_badness)],
            troubled=[row for _, row in sorted(shown, key=_badness) if _is_troubled(row)],
            alone=len(shown) == 1,
            cards=[] if pages else [card(row, facts.setting) for _, row in shown if row.status == "done"],
            paged=bool(pages),
            ignored=ignored[:MAX_IGNORED],
            ignored_total=len(ignored),
            title=f"{summary['inputs']} image{'' if summary['inputs'] == 1 else 's'}",
        )
    )


def render_page(facts: RunFacts, row: InputRow) -> str:
    """Return the page of one input.

    Parameters
    ----------
    facts : RunFacts
        Figures of the run.
    row : InputRow
        The input.

    Returns
    -------
    str
        HTML.
    """
    page = _environment().get_template("page.html.j2")
    return page.render(facts=facts, card=card(row, facts.setting), title=row.path, root="../")


def page_name(number: int, row: InputRow) -> str:
    """Return the file name of the page of an input: its number, and as much of its name as any system takes.

    Parameters
    ----------
    number : int
        Position among the inputs.
    row : InputRow
        The input.

    Returns
    -------
    str
        Name of ASCII letters, digits and `-`.
    """
    plain = unicodedata.normalize("NFKD", PurePosixPath(row.path).name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-").lower()[:48].strip("-")
    return f"{number:05d}-{slug or 'image'}.html"


def card(row: InputRow, setting: Setting) -> dict[str, Any]:
    """Return what the template of one input shows.

    Parameters
    ----------
    row : InputRow
        The input.
    setting : Setting
        What of the run decides which knob there is.

    Returns
    -------
    dict
        Texts and numbers.
    """
    picture = Picture.load(row.picture) if isinstance(row.picture, Path) else row.picture
    return {
        "row": row,
        "facts": image_line(row),
        "picture": None if picture is None else picture_view(picture),
        "time": time_split(row.seconds),
        "cache": cache_lines(row.cache),
        "advice": input_time(row, setting)["advice"],
        "reasons": [reason_list(row.damaged), reason_list(row.failed)],
        "levels": token_lines(row),
        "coded": coded_lines(row),
    }


def token_lines(row: InputRow) -> list[dict[str, Any]]:
    """Return how many tokens of each size a budget was spent on, the finest first; none for tiles of one size.

    Parameters
    ----------
    row : InputRow
        The input.

    Returns
    -------
    list of dict
        `name` and `tokens` each.
    """
    return [
        {"name": "Finest" if level == "0" else f"{2 ** int(level)} × coarser", "tokens": tokens}
        for level, tokens in row.tokens.items()
    ]


def coded_lines(row: InputRow) -> list[tuple[str, str]]:
    """Return what a store of fields costs and how close it is, as names and values; nothing for all others.

    Parameters
    ----------
    row : InputRow
        The input.

    Returns
    -------
    list of tuple
        Finest level first.
    """
    coded = row.coded
    if "bytes" not in coded:
        return []
    decoder = coded.get("decoder_bytes", 0)
    lines = [("Codec", str(coded["codec"])), ("Stored in tiles", format_bytes(coded["bytes"]))]
    lines += [("Their decoder", format_bytes(decoder))] if decoder else []
    if row.image_bytes:
        lines.append(("Of the image's files", format_share((coded["bytes"] + decoder) / row.image_bytes)))
    lines.append(("Bits per pixel", f"{coded['bpp']:.3g}"))
    lines += [
        (f"PSNR, level {level}", psnr_words(coded, level) + (" dB" if psnr is not None else ""))
        for level, psnr in enumerate(coded.get("psnr", ()))
    ]
    if "fitted" in coded:
        lines += [("Tiles fitted", f"{coded['fitted']:,}"), ("Tiles of one colour", f"{coded['constant']:,}")]
    lines.append(("Largest tile", format_bytes(coded.get("largest_tile_bytes", 0))))
    return lines


def image_line(row: InputRow) -> list[str]:
    """Return what an image is in a few words each.

    Parameters
    ----------
    row : InputRow
        The input.

    Returns
    -------
    list of str
        Size, resolution, CRS, format, tiles.
    """
    line = []
    if row.shape_yx is not None:
        line.append(f"{row.shape_yx[1]:,} × {row.shape_yx[0]:,} px")
    if row.mpp is not None:
        line.append(resolution(row.mpp))
    elif row.crs is None and row.status == "done":
        line.append("pixel size unknown")
    if row.crs is not None:
        line.append(row.crs if len(row.crs) <= 40 else "CRS in the store")
    if row.datetime is not None:
        line.append(f"taken {row.datetime}")
    if row.format:
        line.append(row.format)
    if row.tile_px is not None:
        at = "" if row.plan_mpp is None else f" at {resolution(row.plan_mpp)}"
        coarser = " and coarser" if sum(n > 0 for n in row.tokens.values()) > 1 else ""
        line.append(f"tiles of {row.tile_px} px{at}{coarser}")
    return line


def resolution(mpp: float) -> str:
    """Return a pixel size as people say it: µm on slides, metres on scenes."""
    return f"{mpp:.3g} µm/px" if mpp < 1000 else f"{mpp / 1e6:.3g} m/px"


def picture_view(picture: Picture) -> dict[str, Any]:
    """Return a picture as the template draws it.

    Parameters
    ----------
    picture : Picture
        The picture.

    Returns
    -------
    dict
        Data URIs, an SVG path and a scale bar.
    """
    low, high = picture.heat_range
    return {
        "thumbnail": _data_uri(picture.thumbnail),
        "width": picture.width_px,
        "height": picture.height_px,
        "outline": "".join("M" + "L".join(f"{x:g} {y:g}" for x, y in ring) + "Z" for ring in picture.outline),
        "heat": _data_uri(picture.heat) if picture.heat else "",
        "heat_xywh": picture.heat_xywh,
        "caption": heat_caption(picture),
        "ticks": scale_ticks(low, high),
        "scale": scale_bar(picture.width_px, picture.um_per_px),
    }


def heat_caption(picture: Picture) -> str:
    """Return what the heat map of a picture shows, and where it is empty."""
    label, channels = picture.heat_label, picture.heat_channels
    if label == PSNR_LABEL:
        return "PSNR of each tile in dB: low where it is hardest to hold. Empty where it is exact, or nothing is valid."
    if not channels:
        return (
            f"{label[:1].upper()}{label[1:]} of each tile: low where little varies, high where much does. "
            "Empty where no tile was taken or none could be decoded."
        )
    which = "the only channel" if channels == 1 else f"the first of {channels:,} channels"
    return f"Map of {label}, {which}. Empty where it has no value."


def scale_ticks(low: float, high: float) -> list[str]:
    """Return five evenly spaced numbers of a colour scale, all with the same number of decimals."""
    width = high - low
    decimals = min(6, max(0, 1 - math.floor(math.log10(width)))) if width > 0 else 2
    return [f"{low + width * part:z.{decimals}f}" for part in (0, 0.25, 0.5, 0.75, 1)]


def scale_bar(width_px: int, um_per_px: float | None) -> dict[str, Any] | None:
    """Return a scale bar of a round length near a fifth of the width, None when the pixel size is unknown.

    Parameters
    ----------
    width_px : int
        Width of the picture.
    um_per_px : float, optional
        Micrometres per pixel of the picture.

    Returns
    -------
    dict or None
        `px` and `text`.
    """
    if um_per_px is None or um_per_px <= 0:
        return None
    wanted_um = width_px * um_per_px / 5
    power = 10.0 ** math.floor(math.log10(wanted_um))
    length_um = next(step * power for step in (5, 2, 1) if step * power <= wanted_um * 1.0001)
    for unit, size in (("km", 1e9), ("m", 1e6), ("mm", 1e3), ("µm", 1.0)):
        if length_um >= size:
            return {"px": length_um / um_per_px, "text": f"{length_um / size:g} {unit}"}
    return {"px": length_um / um_per_px, "text": f"{length_um:g} µm"}


def reason_lines(rows: Sequence[InputRow]) -> dict[str, Any]:
    """Return why tiles have no values, over all inputs, the most frequent reason first.

    Parameters
    ----------
    rows : sequence of InputRow
        The inputs.

    Returns
    -------
    dict
        `listed`: reason, tiles and images each; `more`: how many reasons are not listed.
    """
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        for reason, tiles in (*row.damaged.items(), *row.failed.items()):
            known = found.get(reason, (0, 0))
            found[reason] = known[0] + len(tiles), known[1] + 1
    ordered = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))
    listed = [{"reason": reason, "tiles": tiles, "images": images} for reason, (tiles, images) in ordered[:MAX_REASONS]]
    return {"listed": listed, "more": max(0, len(ordered) - MAX_REASONS)}


def _is_troubled(row: InputRow) -> bool:
    return row.status == "failed" or bool(row.tiles_damaged or row.tiles_failed)


def _badness(item: tuple[int, InputRow]) -> tuple[float, ...]:
    """Failed ones first, then by the share of bad tiles, then those with notes, then the slow ones."""
    index, row = item
    bad = (row.tiles_damaged + row.tiles_failed) / max(1, row.tiles)
    return (row.status != "failed", not row.is_lost, -bad, not row.notes, -row.wall_s, index)


def _data_uri(file: bytes) -> str:
    kind = "png" if file.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bytes": format_bytes,
        "seconds": format_seconds,
        "rate": format_rate,
        "share": format_share,
        "count": lambda value: f"{value:,}",
        "capitalised": lambda text: text[:1].upper() + text[1:],
    }
    environment.globals["scale_stops"] = stops()
    return environment
