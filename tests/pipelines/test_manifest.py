"""Manifests: every way a spreadsheet writes them, every mistake named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilestream.errors import ConfigError
from tilestream.pipelines.manifest import read_manifest


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_reads_every_column(tmp_path: Path) -> None:
    text = 'path,id,mpp,light,mask,label,bands\n"a, b.svs",case 1,0.25,Brightfield,m.geojson,tumour,"B04,B03;B02"\n'
    text += "c.tif,,,,,,\n"
    first, second = read_manifest(write(tmp_path / "cohort.csv", text)).rows
    assert (first.path, first.id, first.mpp, first.mask) == ("a, b.svs", "case 1", 0.25, "m.geojson")
    assert (first.label, first.bands, first.line) == ("tumour", ("B04", "B03", "B02"), 2)
    assert (second.path, second.id, second.mpp, second.mask, second.bands) == ("c.tif", None, None, None, ())
    assert (first.light, second.light) == ("brightfield", None)
    assert second.line == 3


@pytest.mark.parametrize(
    "data",
    [
        b"path,mpp\na.svs,0.5\n",
        b"\xef\xbb\xbfpath,mpp\r\na.svs,0.5\r\n",
        b"url;mpp\na.svs;0.5",
        b"Path\tMPP\n\na.svs\t0.5\n\n",
        b'"path","mpp"\n"a.svs"," 0.5 "\n',
        b"mpp,path,,\n0.5,a.svs,,\n".replace(b",,", b",note,more", 1),
    ],
    ids=["plain", "bom-crlf", "semicolon", "tab-blank-lines", "quoted", "trailing"],
)
def test_understands_what_spreadsheets_write(tmp_path: Path, data: bytes) -> None:
    (row,) = read_manifest(write(tmp_path / "cohort.csv", data)).rows
    assert (row.path, row.mpp) == ("a.svs", 0.5)


def test_keeps_unknown_columns_aside_and_says_so(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path / "cohort.csv", "path,Site,age\na.svs,Basel,61\n"))
    assert manifest.rows[0].extra == (("site", "Basel"), ("age", "61"))
    assert len(manifest.notes) == 1
    assert "Site, age" in manifest.notes[0]


def test_counts_lines_through_quoted_line_breaks(tmp_path: Path) -> None:
    text = 'path,label,mpp\na.svs,"two\nlines",0.5\nb.svs,,zero\n'
    with pytest.raises(ConfigError, match=r"line 4.*`zero`"):
        read_manifest(write(tmp_path / "cohort.csv", text))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("", ["an empty file", "a header"]),
        ("\n \n", ["an empty file"]),
        ("path,mpp\n", ["a header and no rows"]),
        ("slides/a.svs,0.5\nslides/b.svs,0.5\n", ["line 1", "path,id,mpp"]),
        ("path,url\na,b\n", ["line 1", "one column"]),
        ("path,mpp,mpp\na,1,2\n", ["line 1", "twice"]),
        ("path,mpp\na.svs,-0.5\n", ["line 2", "`-0.5`", "above 0"]),
        ("path,mpp\na.svs,0\n", ["line 2", "`0`"]),
        ("path,mpp\na.svs,nan\n", ["line 2", "`nan`"]),
        ("path,mpp\na.svs,inf\n", ["line 2", "`inf`"]),
        ("path,mpp\na.svs,0,5\n", ["line 2", "3 fields", "Quote"]),
        ("path,mpp\n,0.5\n", ["line 2", "no path"]),
        ("path,light\na.svs,candle\n", ["line 2", "`candle`", "brightfield, fluorescence"]),
        ("path\na.svs\nb.svs\na.svs\n", ["line 4", "`a.svs`", "line 2"]),
        ("path,id\na.svs,x\nb.svs,x\n", ["line 3", "`x`", "line 2"]),
        ('path\n"a.svs\n', ["line 2", "quotes"]),
        (b"path\n\xff\xfe.svs\n", ["UTF-8"]),
    ],
)
def test_names_file_line_and_remedy(tmp_path: Path, data: str | bytes, words: list[str]) -> None:
    path = write(tmp_path / "cohort.csv", data)
    with pytest.raises(ConfigError) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert str(path) in message
    assert all(word in message for word in [*words, "got", "expected"]), message


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_manifest(tmp_path / "cohort.csv")
    with pytest.raises(ConfigError, match="is a directory"):
        read_manifest(tmp_path)
