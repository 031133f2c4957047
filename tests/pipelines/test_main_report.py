"""The report of the main job over real images, for programs and for people."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import pytest

from tests.pipelines.conftest import Run

TYPES = {
    "path": str,
    "status": str,
    "reason": str,
    "tiles": int,
    "tiles_damaged": int,
    "bytes_read": int,
    "seconds": dict,
}
"""What DESIGN promises of each input."""
LOADING = {"src", "href", "xlink:href", "srcset", "data", "poster", "action", "background", "manifest"}


class Page(HTMLParser):
    """Tags, texts, and whatever a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loads: list[str] = []
        self.text = ""
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [value or "" for name, value in attrs if name in LOADING]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page(everything: Run) -> Page:
    parsed = Page()
    parsed.feed((everything.out / "report.html").read_text())
    return parsed


def test_inputs_have_the_promised_keys(everything: Run) -> None:
    for row in everything.report["inputs"]:
        assert {key: type(row[key]) for key in TYPES} == TYPES
        assert row["status"] in ("done", "failed", "ignored")
        assert bool(row["reason"]) == (row["status"] != "done")
        assert all(isinstance(value, float | int) and value >= 0 for value in row["seconds"].values())
        if row["status"] == "done":
            assert row["bytes_read"] > 0
            assert "plan" in row["seconds"]
            assert row["bottleneck"] in row["seconds"]
            assert row["seconds"][row["bottleneck"]] == max(row["seconds"].values())
        if row["tiles"]:
            assert {"plan", "gather", "handcrafted", "write"} <= set(row["seconds"])
    totals, inputs = everything.report["totals"], everything.report["inputs"]
    for key in ("tiles", "tiles_damaged", "bytes_read"):
        assert totals[key] == sum(row[key] for row in inputs)
    assert totals["inputs"] == totals["done"] + totals["failed"] == len(inputs) - totals["ignored"]
    assert {"started", "command", "machine", "versions"} <= set(everything.report)


def test_caches_are_counted(everything: Run) -> None:
    cache = everything.report["totals"]["cache"]
    assert sum(counts["misses"] for counts in cache.values()) > 0
    assert all(set(counts) == {"hits", "misses", "bytes", "evictions"} for counts in cache.values())


def test_the_bytes_read_of_a_file_are_no_guess(everything: Run) -> None:
    """All tiles of `cogeo.tif` and one coarse level are read: no less than level 0 holds, not twice the file."""
    assert 200_000 < everything.rows["cogeo.tif"]["bytes_read"] < 2 * 298_232


def test_the_page_is_self_contained(everything: Run, page: Page) -> None:
    assert page.loads
    assert all(value.startswith(("data:image/", "#")) for value in page.loads), "nothing is loaded"
    assert not page.tags & {"script", "iframe", "object", "embed", "link", "base", "form"}
    assert not page.handlers
    html = (everything.out / "report.html").read_text()
    assert not re.search(r"https?://|@import|javascript:|\burl\((?!#|data:|'data:|\"data:)", html)
    assert len(html) < 8_000_000


def test_the_page_names_every_failure_and_every_image(everything: Run, page: Page) -> None:
    text = " ".join(page.text.split())
    for path, row in everything.rows.items():
        assert path in text
        if row["status"] == "failed":
            assert " ".join(row["reason"].split()) in text
    assert "lie outside the file of 298232 bytes" in text
    for word in ("handcrafted", "entropy", "Cache, decoded"):
        assert word in text


def test_the_page_shows_thumbnails_outlines_and_heat_maps(everything: Run, page: Page) -> None:
    with_tiles = [row for row in everything.rows.values() if row["tiles"]]
    thumbnails = [value for value in page.loads if value.startswith("data:image/jpeg")]
    heat = [value for value in page.loads if value.startswith("data:image/png")]
    assert len(thumbnails) >= len(everything.paths("done"))
    assert len(heat) >= len(with_tiles) > 30
    assert {"path", "svg"} & page.tags
    for value in (*thumbnails, *heat):
        assert base64.b64decode(value.partition(",")[2])[:4] in (b"\xff\xd8\xff\xe0", b"\x89PNG")


def test_the_json_is_strict(everything: Run) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    json.loads((everything.out / "report.json").read_text(), parse_constant=refuse)
