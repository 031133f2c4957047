"""Reading less of remote images: what the report says was read is what the server has sent."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.servers import HttpServer, sent_bytes
from tilestream.cache.blocks import forget_blocks
from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.embed import EmbedConfig, run_embed
from tilestream.pipelines.tokens import TokenChoice

KEYS = ("slide1.svs", "slide2.svs", "scene1.tif", "scene2.tif")


@pytest.mark.parametrize("is_progressive", [False, True])
def test_the_report_says_what_the_server_has_sent(
    is_progressive: bool, four_images: Path, http_server: HttpServer, tmp_path: Path
) -> None:
    for key in KEYS:
        shutil.copy(four_images / key, http_server.root / key)
    cohort = read_cohort([f"{http_server.url}/{key}" for key in KEYS])
    forget_blocks()
    http_server.log.clear()
    choice = TokenChoice(budget=80, is_progressive=is_progressive)
    config = EmbedConfig(out=tmp_path / "out", tile_px=32, super_tile_px=256, cluster="threads:2", tokens=choice)
    rows = run_embed(cohort, config).rows
    assert all(row.status == "done" for row in rows)
    assert {Path(row.path).name: row.bytes_read for row in rows} == sent_bytes(http_server)
