"""Manifests that are lists: text, JSON, STAC ItemCollections."""

from __future__ import annotations

import json

import pytest

from tilestream.errors import ConfigError
from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.manifest import read_manifest

URLS = ["s3://bucket/slides/a.svs", "https://host/b.tif#t=3", "c.svs"]


def item(name, *links):
    return {"type": "Feature", "stac_version": "1.0.0", "id": name, "links": list(links), "assets": {}}


def rows(path):
    return [(row.line, row.path) for row in read_manifest(path).rows]


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_url_a_line(tmp_path, ending):
    path = tmp_path / "list.txt"
    path.write_bytes(("\ufeff# my slides\n" + ending.join(URLS) + "\n\n").encode())
    assert rows(path) == [(2, URLS[0]), (3, URLS[1]), (4, URLS[2])]


def test_json_lists(tmp_path):
    path = tmp_path / "list.json"
    path.write_text(json.dumps(URLS))
    assert rows(path) == [(1, URLS[0]), (2, URLS[1]), (3, URLS[2])]
    path.write_text(
        json.dumps([{"URL": URLS[0], "mpp": 0.5, "bands": ["red", "nir"], "site": 3, "label": None}, {"path": "c.svs"}])
    )
    manifest = read_manifest(path)
    first, second = manifest.rows
    assert (first.path, first.mpp, first.bands, first.extra) == (URLS[0], 0.5, ("red", "nir"), (("site", "3"),))
    assert (second.path, second.mpp, second.bands) == ("c.svs", None, ())
    assert manifest.notes == ("list.json: columns kept aside, they mean nothing here: site",)


def test_a_stac_item_collection(tmp_path):
    path = tmp_path / "items.geojson"
    links = [{"rel": "root", "href": "https://api/"}, {"rel": "self", "href": "https://api/items/x"}]
    items = [item("x", *links), item("y", {"rel": "self", "href": "./y/item.json"})]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    assert [(row.path, row.id) for row in read_manifest(path).rows] == [
        ("https://api/items/x", "x"),
        ("./y/item.json", "y"),
    ]


def test_a_list_is_a_cohort(tmp_path):
    (tmp_path / "c.svs").write_bytes(b"")
    path = tmp_path / "list.txt"
    path.write_text("\n".join([*URLS, "none.svs"]))
    cohort = read_cohort([], manifest=str(path))
    assert [entry.url for entry in cohort.entries] == [URLS[0], URLS[1], str(tmp_path / "c.svs")]
    assert [entry.key for entry in cohort.entries] == ["bucket/slides/a.svs", "host/b.tif@t=3", "c.svs"]
    assert len(cohort.unmatched) == 1


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", "{", "expected JSON"),
        ("a.json", "{}", "got JSON of type dict, expected a list of URLs"),
        ("a.json", "[]", "a list of nothing"),
        ("a.json", '["a", 3]', "entry 2: got int"),
        ("a.json", '[{"id": "x"}]', "entry 1: got dict"),
        ("a.json", '["a", "a"]', r"line 2: got path `a`, also in line 1"),
        ("a.json", '[{"url": "a", "mpp": -1}]', "mpp `-1`"),
        ("a.json", '{"type": "FeatureCollection"}', "of type NoneType"),
        ("a.json", '{"type": "FeatureCollection", "features": [{"id": 1}]}', "without `stac_version`"),
        ("a.json", json.dumps({"type": "FeatureCollection", "features": [item("x")]}), "`x` without a link to itself"),
        ("a.txt", "# nothing\n", "a list of nothing"),
        ("a.txt", "", "an empty file"),
    ],
)
def test_lists_that_cannot_be_met(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_manifest(tmp_path / name)
