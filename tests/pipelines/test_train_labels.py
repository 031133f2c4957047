"""Tables of labels: how slides are named in them, and every mistake with its line."""

from __future__ import annotations

import pytest

from tilestream.errors import ConfigError
from tilestream.pipelines.train_labels import match_labels, read_labels

KEYS = ("a/one.svs", "a/two.svs", "b/two.svs", "three ü.tif", "d/TCGA-1.v2.svs")
IDS = ("", "case 2", "", "", "")


def read(tmp_path, text):
    path = tmp_path / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_labels(path)


def matched(tmp_path, *names):
    return match_labels(read(tmp_path, "slide,label\n" + "".join(f'"{name}",x\n' for name in names)), KEYS, IDS)


@pytest.mark.parametrize(
    "text",
    [
        "slide,label,patient,split\na/one.svs,1,p,train\n",
        b"\xef\xbb\xbfID;Label;CASE;Split\r\na/one.svs;1;p;Training\r\n",
        "split\tgroup\tlabel\tpath\n\ntrain\tp\t1\ta/one.svs\t\t\n",
    ],
)
def test_reads_what_spreadsheets_write(tmp_path, text):
    labels = read(tmp_path, text)
    (row,) = labels.rows
    assert (row.name, row.label, row.group, row.split) == ("a/one.svs", "1", "p", "train")
    assert labels.is_grouped
    assert labels.is_split


def test_what_means_nothing_is_told(tmp_path):
    assert read(tmp_path, "slide,label,age\na,1,61\n").notes == ("labels.csv: columns that mean nothing here: age",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "an empty file"),
        ("slide,label\n", "a header and no rows"),
        ("slide,class\na,1\n", r"line 1: got the header \['slide', 'class'\]"),
        ("label,age\n1,2\n", "`slide` \\(or `id`, `path`\\) and `label`"),
        ("slide,label,label\na,1,2\n", "no column twice"),
        ("slide,label\n,1\n", "line 2: got no `slide`"),
        ("slide,label,split\na,1,x\n", "line 2: got split `x`"),
        ("slide,label\na,1,2\n", "line 2: got 3 fields"),
        (b"slide,label\n\xff,1\n", "not UTF-8"),
    ],
)
def test_mistakes_are_named(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("a/one.svs", 0),
        ("one.svs", 0),
        ("./a/one.svs", 0),
        ("/data/slides/a/one.svs", 0),
        ("one", 0),
        ("case 2", 1),
        ("b/two", 2),
        ("three ü", 3),
        ("TCGA-1.v2", 4),
    ],
)
def test_slides_are_found_as_people_name_them(tmp_path, name, number):
    assert list(matched(tmp_path, name).rows) == [number]


def test_what_is_left_over_is_told_on_both_sides(tmp_path):
    labels = read(tmp_path, "slide,label\na/one.svs,x\nb/two.svs,\nnone.svs,y\nne.svs,y\n")
    found = match_labels(labels, KEYS, IDS)
    assert list(found.rows) == [0]
    assert found.featureless == ("none.svs", "ne.svs")
    assert found.unlabelled == KEYS[1:]


def test_a_name_of_two_slides_and_two_names_of_one_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"line 2: got `two.svs`, which fits 2 slides: a/two.svs, b/two.svs"):
        matched(tmp_path, "two.svs")
    with pytest.raises(ConfigError, match=r"line 3: got `one`, the same slide as line 2 \(`a/one.svs`\)"):
        matched(tmp_path, "one.svs", "one")
