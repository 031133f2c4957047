"""The report of a run: `report.json` for programs, `report.html` for people."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from tilestream import __version__
from tilestream.codecs.durable import explained, write_durable
from tilestream.codecs.place import Place
from tilestream.pipelines.report_earlier import RECEIPTS, with_earlier
from tilestream.pipelines.report_html import page_name, render_page, render_report
from tilestream.pipelines.report_json import report_document
from tilestream.pipelines.report_picture import Picture, make_picture
from tilestream.pipelines.report_rows import InputRow, RunFacts
from tilestream.stream.leasefiles import lease_file
from tilestream.stream.leases import alone

LEASE = ".report.lease"
"""Among the receipts: which process writes the report."""
HTML = "report.html"
JSON = "report.json"
PAGES = "report"
"""Folder of the pages of single inputs."""
MAX_ON_ONE_PAGE = 50
"""Most inputs shown on one page; with more the report is an index with one page each."""
_SAME = ("status", "tiles", "tiles_ok", "seconds", "cache", "damaged", "failed", "outputs", "notes")
"""What a page shows of an image is the same where these entries of the report are."""
_PAGE = re.compile(r"\d{5,}-[a-z0-9-]+\.html")

__all__ = ["InputRow", "Picture", "RunFacts", "make_picture", "reporting", "write_report"]


@dataclass(frozen=True, kw_only=True)
class Written:
    """A report that was written; another process may have replaced it since."""

    html: Path
    """`OUT/report.html`."""
    json: Path
    """`OUT/report.json`."""
    document: Mapping[str, Any]
    """What stands there."""


@contextmanager
def reporting(out: Path) -> Iterator[None]:
    """Keep other runs from writing the report of a folder inside the block: each would leave the other out.

    Parameters
    ----------
    out : Path
        Folder of all outputs; must be there.

    Yields
    ------
    None
        Nothing.
    """
    receipts = Place.of(out / RECEIPTS)
    receipts.prepare()
    with alone(lease_file(receipts, LEASE)):
        yield


def write_report(out: Path, facts: RunFacts, rows: Sequence[InputRow]) -> Written:
    """Write the report of a run over the one of an earlier run, whose images it lists too; to be called in `reporting`.

    Parameters
    ----------
    out : Path
        Folder of all outputs.
    facts : RunFacts
        Figures of the run.
    rows : sequence of InputRow
        All inputs of this run, ignored files included, in the order in which they are listed.

    Returns
    -------
    Written
        Where it is, and what it says.

    Raises
    ------
    OutputError
        When `out` cannot be written.

    Notes
    -----
    Memory is the main page and one page of an input; pictures given as paths are read one at a time.
    """
    old = _pages_of(out)
    rows = with_earlier(out, rows, out / JSON, command=facts.command)
    document = report_document(facts, rows)
    pages: dict[int, str] = {}
    if sum(row.status != "ignored" for row in rows) > MAX_ON_ONE_PAGE:
        pages = _kept_pages(out, rows, document, old)
        taken = set(pages.values())
        for index, row in enumerate(rows):
            if row.status != "ignored" and index not in pages:
                pages[index] = next(page for page in _names(index, row) if page not in taken)
                write_durable(out / pages[index], _utf8(render_page(facts, row)))
    for index, entry in enumerate(document["inputs"]):
        entry["page"] = pages.get(index)
    write_durable(out / HTML, _utf8(render_report(facts, rows, pages)))
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    write_durable(out / JSON, _utf8(text) + b"\n")
    _remove_pages(out, old.keys() - set(pages.values()))
    return Written(html=out / HTML, json=out / JSON, document=document)


def _kept_pages(
    out: Path, rows: Sequence[InputRow], document: Mapping[str, Any], old: Mapping[str, Mapping[str, Any]]
) -> dict[int, str]:
    """Return the pages of images that this run has done nothing on and that are as another run has left them.

    Array jobs of thousands of images end one after the other, and each writes the report; it should take seconds.
    """
    known = {entry["receipts"]: page for page, entry in old.items() if entry.get("receipts") and (out / page).exists()}
    kept = {}
    for index, (row, entry) in enumerate(zip(rows, document["inputs"], strict=True)):
        page = known.get(row.receipts)
        if page is None or row.status != "done" or row.tiles_computed != 0:
            continue
        if all(old[page].get(name) == entry[name] for name in _SAME):
            kept[index] = page
    return kept


def _names(index: int, row: InputRow) -> Iterator[str]:
    """Yield names for the page of an input; pages that are kept may have the first of them."""
    for number in count(index, 100_000):
        yield f"{PAGES}/{page_name(number, row)}"


def _utf8(text: str) -> bytes:
    """Return text as bytes; of a file name that is no UTF-8 the odd bytes as escapes, which JSON understands."""
    return text.encode("utf-8", "backslashreplace")


def _pages_of(out: Path) -> dict[str, Mapping[str, Any]]:
    """Return the pages that the report of an earlier run names as its own, with what it says of their images.

    What another version of tilestream has written is no page that could be kept.
    """
    try:
        document = json.loads((out / JSON).read_bytes())
        is_ours = document.get("versions", {}).get("tilestream") == __version__
        pages = {entry.get("page"): entry if is_ours else {} for entry in document["inputs"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {page: entry for page, entry in pages.items() if isinstance(page, str) and _is_page(page)}


def _is_page(page: str) -> bool:
    folder, _, name = page.partition("/")
    return folder == PAGES and _PAGE.fullmatch(name) is not None


def _remove_pages(out: Path, pages: Set[str]) -> None:
    with explained(out / PAGES):
        for page in sorted(pages):
            (out / page).unlink(missing_ok=True)
        folder = out / PAGES
        if pages and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
