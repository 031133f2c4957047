"""The rate-distortion panel: `make bench-rd`, or `python -m tests.bench.rd --help` for parts of it.

Results lie in `out/rd`, one small file each: a run goes on where the last one stopped, and a codec that was changed is
measured again. The table, its numbers and the plot go to `tests/bench/results`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.rd_bars import rows_of
from tests.bench.rd_fields import NAMES, contestants
from tests.bench.rd_pictures import CROPS, REPO, pictures
from tests.bench.rd_plot import plot
from tests.bench.rd_table import BETWEEN, markdown_of, summarise
from tests.bench.run import RESULTS, facts
from tests.bench.table import markdown
from tilestream.codecs import CONVENTIONAL, Contestant, Curve, PanelPicture, run_panel
from tilestream.registry import CODECS

POINTS = REPO / "out" / "rd"
EVERY_S = 20
PACKAGES = ("imagecodecs", "numpy", "scipy", "ssimulacra2", "torch", "constriction")
HEAD = """# Rate and distortion, {date}

Commit {commit}; {cpu}, {cores} cores; Python {python}; {versions}; {libraries}.

Real bytes of whole files, headers and networks counted; bits per pixel are those of all channels together. "Bits over
X" is the BD-rate by PSNR (Akima over log rate) where X spends {low:g} to {high:g} bits per pixel, mean over the
pictures on which both reach the same qualities; negative is fewer bits. PSNR is over all samples jointly; of more than
8 bits, from the least to the greatest sample of a channel. "Stains" is PSNR in optical density of hematoxylin and
eosin (on `os2` and DAB). JPEG XL and AVIF are tuned for the eye, not for PSNR. Neural codecs: {fields}.

![Quality over rate]({name}.png)

"""


def run(
    panel: Sequence[PanelPicture],
    codecs: Sequence[Contestant],
    fields: Sequence[tuple[Contestant, Sequence[str] | None]],
    *,
    folder: Path = POINTS,
    threads: int = 2,
) -> list[Curve]:
    """Return all curves: of codecs on all pictures, of each field on those named beside it, all where that is None."""
    curves = run_panel(panel, codecs, folder, threads=threads, progress=_Told())
    for field, names in fields:
        some = [picture for picture in panel if names is None or picture.name in names]
        curves += run_panel(some, [field], folder, progress=_Told())
    return curves


def write(curves: Sequence[Curve], panel: Sequence[PanelPicture], folder: Path, *, told: str, name: str = "rd") -> Path:
    """Write `<name>.md`, `.json` and `.png` and return the path of the first; `told` says how fields were fitted."""
    groups = {picture.name: picture.group for picture in panel}
    folder.mkdir(parents=True, exist_ok=True)
    rows, aims, about = summarise(curves, groups), rows_of(curves, groups), facts(PACKAGES)
    points = [
        {"picture": curve.picture, "codec": curve.codec, "setting": point.setting, "bpp": round(point.bpp, 5)}
        | {"bytes": point.size_bytes, "seconds": point.seconds}
        | {score: _number(point.scores[score]) for score in ("psnr", "ms_ssim") if score in point.scores}
        for curve in curves
        for point in curve.points
    ]
    plain = [row | {"value": None if math.isnan(row["value"]) else row["value"]} for row in aims]
    found = {"about": about, "fields": told, "rows": rows, "aims": plain, "points": points}
    (folder / f"{name}.json").write_text(json.dumps(found, indent=None).replace('{"picture"', '\n{"picture"') + "\n")
    plot(curves, groups, folder / f"{name}.png")
    told_of = {"versions": ", ".join(f"{one} {version}" for one, version in about["versions"].items())}
    told_of |= {"libraries": _libraries(), "fields": told, "name": name}
    head = HEAD.format(**about | told_of, low=BETWEEN[0], high=BETWEEN[1])
    path = folder / f"{name}.md"
    path.write_text(head + (f"## What is asked for\n\n{markdown(aims)}\n\n" if aims else "") + markdown_of(rows))
    return path


def _number(value: float) -> float | None:
    return round(value, 5) if value != float("inf") else None


def _libraries() -> str:
    """Return the versions of the libraries that imagecodecs brings."""
    import imagecodecs

    wanted = ("libjpeg_turbo", "openjpeg", "libjxl", "libwebp", "libavif")
    return ", ".join(one for one in str(imagecodecs.version()).split(", ") if one.startswith(wanted))


class _Told:
    """Says on the terminal how far it is, now and then."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self._last > EVERY_S or done == total:
            self._last = time.monotonic()
            print(f"{done} of {total} results", file=sys.stderr, flush=True)


def main() -> None:
    """Run the panel and write table and plot."""
    parser = argparse.ArgumentParser(description="Measure rate and distortion of codecs and fields on real images.")
    groups = list(dict.fromkeys(crop.group for crop in CROPS))
    parser.add_argument("--full", action="store_true", help="all pictures, three times as many")
    parser.add_argument("--groups", nargs="*", default=groups, choices=groups, metavar="GROUP", help="of pictures")
    parser.add_argument("--codecs", nargs="*", default=list(CONVENTIONAL), choices=list(CONVENTIONAL))
    parser.add_argument("--fields", nargs="*", default=list(NAMES), choices=NAMES, help="none to leave them out")
    parser.add_argument("--fit-all", action="store_true", help="fit fields to all pictures: a minute or more each")
    parser.add_argument("--steps", type=int, help="of each fit, instead of the usual ones")
    parser.add_argument("--points", type=Path, default=POINTS, help="folder of single results")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of table and plot")
    parser.add_argument("--name", default="rd", help="of table and plot: another for a part of the panel")
    parser.add_argument("--threads", type=int, default=2, help="pictures at a time")
    options: Any = parser.parse_args()
    panel = [picture for picture in pictures(is_full=options.full) if picture.group in options.groups]
    if not panel:
        parser.error("made of real images that are not here: set TILESTREAM_DATA")
    codecs = [Contestant.of(CONVENTIONAL[name]) for name in options.codecs]
    found = contestants(options.fields, networks=options.points / "networks", steps=options.steps)
    fields = [(one, None if options.fit_all and one.name in CODECS else names) for one, names in found]
    curves = run(panel, codecs, fields, folder=options.points, threads=options.threads)
    told = "; ".join(dict.fromkeys(f"{one.name} ({one.version})" for one, _ in fields)) or "none in this run"
    path = write(curves, panel, options.results, told=told, name=options.name)
    print(path.read_text() + f"\nwritten to {path}, and .json and .png beside it")


if __name__ == "__main__":
    main()
