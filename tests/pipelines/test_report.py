import json
import os
import re
from html.parser import HTMLParser

import imagecodecs
import numpy as np
import pytest

from tilestream.errors import OutputError
from tilestream.pipelines.report import InputRow, Picture, RunFacts, make_picture, write_report
from tilestream.pipelines.report_colours import heat_rgba
from tilestream.pipelines.report_html import (
    format_bytes,
    format_rate,
    format_seconds,
    page_name,
    scale_bar,
    scale_ticks,
)
from tilestream.pipelines.report_html_time import time_split
from tilestream.types import Shape

EVIL = '<script>alert("x")</script>&\'"/切片 ü.svs'


def _picture(**more):
    thumbnail = np.full((48, 64, 3), 240, np.uint8)
    cells = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    cells[0, 0] = np.nan
    outline = [[(100, 100), (500, 100), (500, 400)]]
    return make_picture(thumbnail, cells, **{"shape": Shape(y=480, x=640), "outline": outline, "mpp": 0.5} | more)


def _row(path="a/slide.svs", **more):
    return InputRow(
        **{
            "path": path,
            "status": "done",
            "format": "aperio-svs",
            "shape_yx": (480, 640),
            "mpp": 0.5,
            "tile_px": 256,
            "tiles": 100,
            "bytes_read": 12_345_678,
            "seconds": {"decode": 6.0, "handcrafted": 3.0, "read": 1.0},
            "wall_s": 5.0,
            "supertiles_total": 4,
            "cache": {"decoded": {"hits": 30, "misses": 10, "bytes": 5, "evictions": 2}},
            "outputs": ("a/slide.svs.features.zarr",),
            "picture": _picture(),
        }
        | more
    )


def _failed(path="b.svs", reason="`b.svs`: got 3 bytes, expected a TIFF. Fetch it again."):
    return InputRow(path=path, status="failed", reason=reason)


def _write(out, rows, **facts):
    written = write_report(out, RunFacts.of(seconds=10.0, **facts), rows)
    document = json.loads(written.json.read_bytes())
    assert document == written.document
    return written.html.read_text(encoding="utf-8"), document


class _Audit(HTMLParser):
    """Collects what a page would load or run, its text, and whether tags nest."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.tags, self.handlers, self.words, self._open = [], set(), [], [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag not in ("meta", "br"):
            self._open.append(tag)
        self._look(attributes)

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)
        self._look(attributes)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def _look(self, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href", "action")]
        self.handlers += [name for name, _ in attributes if name.startswith("on")]


def test_json_says_what_became_of_every_input(tmp_path):
    rows = [
        _row(tiles_damaged=3, damaged={"no EOI": (1, 2), "offset": (9,)}, supertiles_reused=1, tiles_computed=75),
        _failed(),
        InputRow(path="notes.txt", status="ignored", reason="text"),
    ]
    _, document = _write(tmp_path, rows)
    done, failed, ignored = document["inputs"]
    for entry in document["inputs"]:
        assert {"path", "status", "reason", "tiles", "tiles_damaged", "bytes_read", "seconds"} <= set(entry)
    assert (done["path"], done["status"], done["tiles"], done["tiles_damaged"]) == ("a/slide.svs", "done", 100, 3)
    assert done["seconds"] == {"decode": 6.0, "handcrafted": 3.0, "read": 1.0}
    assert done["bottleneck"] == "decode"
    assert done["supertiles"] == {"total": 4, "reused": 1, "computed": 3}
    assert done["tiles_per_s"] == 15.0
    assert done["damaged"] == {
        "reasons": 2,
        "listed": [{"reason": "no EOI", "tiles": 2, "rows": [1, 2]}, {"reason": "offset", "tiles": 1, "rows": [9]}],
    }
    assert failed["reason"].startswith("`b.svs`")
    assert ignored["status"] == "ignored"
    totals = document["totals"]
    assert (totals["inputs"], totals["done"], totals["failed"], totals["ignored"]) == (2, 1, 1, 1)
    assert (totals["tiles"], totals["tiles_damaged"], totals["bytes_read"]) == (100, 3, 12_345_678)
    assert totals["tiles_per_s"] == 7.5
    assert totals["cache"] == {"decoded": {"hits": 30, "misses": 10, "bytes": 5, "evictions": 2}}
    assert document["machine"]["cores"] >= 1
    assert {"tilestream", "python", "numpy", "zarr"} <= set(document["versions"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", document["started"])


def test_long_lists_of_damage_are_cut_and_counted(tmp_path):
    damaged = {f"block {n}": tuple(range(n, n + 30)) for n in range(80)}
    text, document = _write(tmp_path, [_row(tiles=9999, tiles_damaged=2400, damaged=damaged)])
    found = document["inputs"][0]["damaged"]
    assert found["reasons"] == 80
    assert len(found["listed"]) == 50
    assert found["listed"][0]["tiles"] == 30
    assert len(found["listed"][0]["rows"]) == 20
    assert "30 more reasons." in text


def test_page_needs_nothing_but_itself(tmp_path):
    text, _ = _write(tmp_path, [_row(), _failed(), InputRow(path="x.txt", status="ignored", reason="text")])
    audit = _Audit(text)
    assert audit.tags.isdisjoint({"script", "link", "iframe", "object", "embed", "base", "form"})
    assert all(address.startswith("data:image/") for address in audit.addresses)
    assert len(audit.addresses) == 2
    assert audit.handlers == []
    assert "default-src 'none'" in text
    assert "url(" not in text
    assert "@import" not in text


def test_page_says_what_a_reader_looks_for(tmp_path):
    rows = [
        _row(notes=("plane 0 of z was taken",), tiles_damaged=2, damaged={"no EOI in block (1, 2)": (4, 5)}),
        _failed(),
        InputRow(path="notes.txt", status="ignored", reason="plain text"),
    ]
    words = " ".join(_Audit(_write(tmp_path, rows)[0]).words)
    for phrase in (
        "640 × 480 px", "0.5 µm/px", "plane 0 of z was taken", "no EOI in block (1, 2)", "2 of 100 tiles",
        "expected a TIFF", "notes.txt", "plain text", "75 % of 40 found", "a/slide.svs.features.zarr",
    ):  # fmt: skip
        assert phrase in words
    assert re.search(r"Decoding takes 60 % of the time: more cores, ", words)
    assert words.count("notes.txt") == 1


@pytest.mark.parametrize(("times", "pages"), [(1, 1), (30, 61)])
def test_hostile_names_stay_text(tmp_path, times, pages):
    rows = [
        _row(path=EVIL, notes=(EVIL,), outputs=(EVIL,), format=EVIL, crs=EVIL, tiles_damaged=1, damaged={EVIL: (1,)},
             seconds={EVIL: 1.0}, cache={EVIL: {"hits": 1, "misses": 1}}),
        _failed(path=EVIL, reason=EVIL),
        InputRow(path=EVIL, status="ignored", reason=EVIL),
    ]  # fmt: skip
    _write(tmp_path, rows * times, notes=(EVIL,))
    found = sorted(tmp_path.rglob("*.html"))
    assert len(found) == pages
    for page in found:
        audit = _Audit(page.read_text(encoding="utf-8"))
        assert "script" not in audit.tags
        assert EVIL in " ".join(audit.words)
        assert re.fullmatch(r"[a-z0-9.-]+", page.name)


def test_many_inputs_become_an_index_worst_first_with_a_page_each(tmp_path):
    rows = [_row(path=f"s{n:03d}.svs", tiles_damaged=int(n == 30) * 50, wall_s=1.0) for n in range(60)]
    rows[45] = _failed(path="bad.svs")
    text, document = _write(tmp_path, rows)
    audit = _Audit(text)
    assert len(audit.addresses) == 60
    assert "data:" not in "".join(audit.addresses)
    assert text.index("bad.svs") < text.index("s030.svs") < text.index("s000.svs") < text.index("s001.svs")
    assert [entry["page"] for entry in document["inputs"]] == sorted(audit.addresses)
    for address in audit.addresses:
        page = (tmp_path / address).read_text(encoding="utf-8")
        assert _Audit(page).addresses[0] == "../report.html"
    assert "expected a TIFF" in (tmp_path / document["inputs"][45]["page"]).read_text(encoding="utf-8")


def test_pages_of_an_earlier_run_go_and_files_of_others_stay(tmp_path):
    _write(tmp_path, [_row(path=f"{n}.svs", picture=None) for n in range(60)])
    (tmp_path / "report" / "mine.html").write_text("mine")
    _write(tmp_path, [_row(path=f"{n}.svs", picture=None) for n in range(55)])
    assert len(list((tmp_path / "report").iterdir())) == 56
    _write(tmp_path, [_row()])
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["mine.html"]
    (tmp_path / "report.json").write_text('{"inputs": [{"page": "../secret.html"}, {"page": "report/mine.html"}]}')
    (tmp_path.parent / "secret.html").write_text("mine")
    _write(tmp_path, [_row()])
    assert (tmp_path.parent / "secret.html").exists()
    assert (tmp_path / "report" / "mine.html").exists()


def test_pages_of_images_that_nothing_was_done_on_are_kept(tmp_path):
    _, before = _write(tmp_path, [_row(path=f"{n}.svs", receipts=f"{n}.svs", picture=None) for n in range(60)])
    pages = {entry["path"]: entry["page"] for entry in before["inputs"]}
    for page in pages.values():
        (tmp_path / page).write_text("as it was")
    rows = [
        _row(path=f"{n}.svs", receipts=f"{n}.svs", picture=None, tiles_computed=0, notes=("new",) * (n == 7))
        for n in reversed(range(60))
    ]
    rows[0] = _row(path="59.svs", receipts="59.svs", picture=None)
    text, after = _write(tmp_path, rows)
    now = {entry["path"]: entry["page"] for entry in after["inputs"]}
    changed = {path for path in now if (tmp_path / now[path]).read_text() != "as it was"}
    assert changed == {"59.svs", "7.svs"}
    assert all(now[path] == pages[path] for path in now if path not in changed)
    assert len(set(now.values())) == len(list((tmp_path / "report").iterdir())) == 60
    assert all(f'href="{page}"' in text for page in now.values())


def test_a_page_that_is_kept_is_not_written_over_by_another_of_its_name(tmp_path):
    _write(tmp_path, [_row(path=f"{n}/a.svs", receipts=f"{n}/a.svs", picture=None) for n in range(60)])
    rows = [_row(path=f"{n}/a.svs", receipts=f"{n}/a.svs", picture=None, tiles_computed=0) for n in range(60)]
    _, after = _write(tmp_path, [_row(path="new/a.svs", receipts="new/a.svs", picture=None), *rows])
    pages = [entry["page"] for entry in after["inputs"]]
    assert len(set(pages)) == 61
    assert pages[0] == "report/100000-a-svs.html"
    assert "new/a.svs" in (tmp_path / pages[0]).read_text(encoding="utf-8")


def test_a_run_without_any_result_is_reported_too(tmp_path):
    text, document = _write(tmp_path, [])
    assert document["totals"]["inputs"] == 0
    assert document["totals"]["tiles_per_s"] is None
    assert "0 images" in text


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OutputError, match="a full disk"):
        _write(tmp_path, [_row()])
    assert not (tmp_path / "report.html").exists()


def test_picture_survives_a_file(tmp_path):
    picture = _picture()
    picture.save(tmp_path / "a" / "picture.json")
    assert Picture.load(tmp_path / "a" / "picture.json") == picture
    assert Picture.load(tmp_path / "none.json") is None
    (tmp_path / "half.json").write_bytes((tmp_path / "a" / "picture.json").read_bytes()[:99])
    assert Picture.load(tmp_path / "half.json") is None
    text, _ = _write(tmp_path, [_row(picture=tmp_path / "a" / "picture.json")])
    assert len(_Audit(text).addresses) == 2


def test_picture_puts_outline_and_map_over_the_thumbnail():
    picture = _picture(cells_yxhw=(0.0, 0.0, 768.0, 1024.0))
    assert picture.outline == (((10.0, 10.0), (50.0, 10.0), (50.0, 40.0)),)
    assert picture.heat_xywh == pytest.approx((0.0, 0.0, 102.4, 76.8))
    assert picture.um_per_px == 5.0
    assert picture.heat_range == pytest.approx((1 / 11, 1.0))
    heat = imagecodecs.png_decode(picture.heat)
    assert heat.shape == (3, 4, 4)
    assert heat[..., 3].tolist() == [[0, 255, 255, 255]] + [[255] * 4] * 2
    assert heat[2, 3, :3].tolist() == [0xFD, 0xE7, 0x25]
    assert imagecodecs.jpeg8_decode(picture.thumbnail).shape == (48, 64, 3)


def test_a_map_of_nothing_and_a_huge_one():
    assert _mapped(np.full((2, 2), np.nan, np.float32)).heat == b""
    cells = np.full((1025, 3), np.nan, np.float32)
    cells[:3] = 1.0
    heat = imagecodecs.png_decode(_mapped(cells).heat)
    assert heat.shape[:2] == (342, 1)
    assert heat[0, 0, 3] == 255
    assert heat[1, 0, 3] == 0


def _mapped(cells):
    return make_picture(np.zeros((4, 4, 3), np.uint8), cells, shape=Shape(y=4, x=4))


def test_outlines_of_many_points_are_thinned():
    angle = np.linspace(0, 2 * np.pi, 300_000)
    ring = np.stack([320 + 300 * np.cos(angle), 240 + 200 * np.sin(angle)], axis=1)
    assert 1000 < sum(len(points) for points in _picture(outline=[ring]).outline) <= 20_000


def test_colours_rise_in_lightness():
    rgba = heat_rgba(np.linspace(0, 1, 32, dtype=np.float32)[None], 0.0, 1.0)
    assert (np.diff(rgba[0, :, :3] @ np.array([0.2126, 0.7152, 0.0722])) > 0).all()


def test_page_names_are_safe_and_unique_by_number():
    assert page_name(7, _row(path=EVIL)) == "00007-u-svs.html"
    assert page_name(7, _row(path="切片")) == "00007-image.html"
    assert len(page_name(7, _row(path="n" * 500))) < 70


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (99_950, "100 kB"), (1e9, "1.0 GB"), (999_950_000, "1.0 GB")],
)
def test_bytes_as_people_read_them(value, text):
    assert format_bytes(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 s"),
        (7e-5, "< 1 ms"),
        (0.123, "0.12 s"),
        (1.0, "1.0 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (3725, "1 h 02 min"),
    ],
)
def test_durations_as_people_read_them(value, text):
    assert format_seconds(value).replace("\N{NO-BREAK SPACE}", " ") == text


def test_rates_scales_and_bars():
    assert [format_rate(value) for value in (None, 0.1234, 99.4, 12345.6)] == ["–", "0.123", "99.4", "12,346"]
    assert scale_ticks(0.3314, 0.6912) == ["0.33", "0.42", "0.51", "0.60", "0.69"]
    assert scale_ticks(0.5, 0.5) == ["0.50"] * 5
    assert scale_ticks(-0.004, 1.0)[0] == "0.0"
    assert scale_bar(640, None) is None
    assert scale_bar(640, 37.5) == {"px": pytest.approx(2000 / 37.5), "text": "2 mm"}
    assert scale_bar(640, 1e7)["text"] == "1 km"
    assert scale_bar(100, 0.5) == {"px": 20.0, "text": "10 µm"}


def test_a_stage_keeps_its_colour_and_the_longest_is_named():
    one = time_split({"decode": 1.0, "read": 2.0, "vit": 3.0})
    two = time_split({"decode": 9.0, "read": 2.0, "other": 3.0, "write": 1.0})
    colours, others = ({part["name"]: part["colour"] for part in split["parts"]} for split in (one, two))
    assert colours["decode"] == others["decode"]
    assert colours["read"] == others["read"]
    assert colours["vit"] == others["other"]
    assert len({part["colour"] for part in two["parts"]}) == 4
    longest = one["parts"][0]
    assert (longest["name"], longest["what"], longest["share"]) == ("vit", "stage", 50.0)
    assert time_split({}) is None
    assert time_split({"read": 0.0}) is None
