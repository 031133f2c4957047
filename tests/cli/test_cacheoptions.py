from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tilestream.cache.stack import DISK_BYTES, CacheConfig
from tilestream.cli.app import app
from tilestream.cli.cacheoptions import cache_fields, parse_disk_cache
from tilestream.cli.options import embed_config
from tilestream.testing.slide import write_slide
from tilestream.types import Shape


@pytest.mark.parametrize(
    ("text", "folder", "nbytes"),
    [
        ("/scratch/tiles", "/scratch/tiles", DISK_BYTES),
        ("/scratch/tiles:50GB", "/scratch/tiles", 50 * 10**9),
        ("/scratch/tiles:1.5 GiB", "/scratch/tiles", 3 << 29),
        ("/odd:name", "/odd:name", DISK_BYTES),
        ("/odd:name:1GB", "/odd:name", 10**9),
        ("tiles", str(Path("tiles").absolute()), DISK_BYTES),
    ],
)
def test_disk_caches(text, folder, nbytes):
    assert parse_disk_cache(text) == (folder, nbytes)


@pytest.mark.parametrize(("text", "match"), [("", "a folder"), (":1GB", "a folder"), ("/a:1MB", "at least 64 MiB")])
def test_no_disk_caches(text, match):
    with pytest.raises(typer.BadParameter, match=match):
        parse_disk_cache(text)


def test_options_become_what_caches_may_take():
    config = embed_config(out=Path("x"), **cache_fields(1 << 30, ("/scratch", 1 << 31)))
    assert config.caches == CacheConfig(host_bytes=1 << 30, disk="/scratch", disk_bytes=1 << 31)
    assert config.cache_bytes == 1 << 30
    assert embed_config(out=Path("x"), **cache_fields(None, None)).caches == CacheConfig()


def test_a_second_run_reuses_what_the_first_has_decoded(tmp_path):
    write_slide(tmp_path / "a.svs", Shape(y=512, x=512), tile_px=256)
    reports = []
    for out in ("one", "two"):
        command = ["embed", str(tmp_path / "a.svs"), "--out", str(tmp_path / out), "--where", "all", "--cache", "64MB"]
        result = CliRunner().invoke(app, [*command, "--cluster", "threads:1", "--json"])
        assert result.exit_code == 0, result.output
        reports.append(json.loads(result.stdout)["inputs"][0]["cache"]["decoded"])
    assert reports[0]["misses"] > 0
    assert reports[1]["misses"] == 0
    assert reports[1]["hits"] >= reports[0]["misses"]


def test_a_folder_of_slides_is_no_disk_cache(tmp_path):
    (tmp_path / "slides").mkdir()
    slide = write_slide(tmp_path / "slides" / "a.svs", Shape(y=512, x=512))
    command = ["embed", str(slide), "--out", str(tmp_path / "out"), "--disk-cache", str(slide.parent)]
    result = CliRunner().invoke(app, [*command, "--cluster", "threads:1"])
    assert result.exit_code == 2
    assert "a folder with other files (`a.svs`)" in " ".join(result.output.split())
    assert [path.name for path in slide.parent.iterdir()] == ["a.svs"]
