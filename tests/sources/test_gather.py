"""Many ranges in few reads: each gets its own bytes, whatever lies beside it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sources.madetiff import opened, write_tiff
from tests.sources.test_encoded import PAGES
from tilestream.errors import DamagedError
from tilestream.metrics import collect
from tilestream.sources import gather as gathering
from tilestream.sources.encoded import archive_reason, read_encoded
from tilestream.sources.files import File
from tilestream.sources.gather import gather
from tilestream.sources.opening import open_source

BYTES = np.random.default_rng(3).integers(0, 256, 5000, np.uint8).tobytes()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[File]:
    folder = tmp_path_factory.mktemp("gather")
    for name in ("a", "b"):
        (folder / name).write_bytes(BYTES if name == "a" else BYTES[::-1])
    return [File(url=str(folder / name)) for name in ("a", "b")]


@given(
    ranges=st.lists(st.none() | st.tuples(st.integers(0, 1), st.integers(-10, 6000), st.integers(0, 900)), max_size=30),
    gap=st.sampled_from([0, 1, 300]),
    most=st.sampled_from([1, 500, 4000]),
)
def test_every_range_gets_its_bytes(files, ranges, gap, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathering, "GAP_BYTES", gap)
        patch.setattr(gathering, "MERGED_BYTES", most)
        found = gather([None if one is None else (files[one[0]], *one[1:]) for one in ranges])
    assert len(found) == len(ranges)
    for one, data in zip(ranges, found, strict=True):
        if one is None:
            assert data is None
        elif one[1] < 0 or one[1] + one[2] > len(BYTES):
            assert isinstance(data, DamagedError)
        else:
            assert data == (BYTES, BYTES[::-1])[one[0]][one[1] : one[1] + one[2]]


def test_neighbours_are_read_at_once_and_far_ranges_apart(tmp_path):
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    file = File(url=str(tmp_path / "a"))
    with collect() as meter:
        gather([(file, at, 1000) for at in range(0, 100_000, 1000)])
    assert meter.counts["bytes_read"] == 100_000
    with collect() as meter:
        gather([(file, 0, 1000), (file, 900_000, 1000)])
    assert meter.counts["bytes_read"] == 2000


def test_a_file_that_became_shorter_is_damage_where_it_is_missing(tmp_path):
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    file = File(url=str(tmp_path / "a"))
    assert file.size == 1 << 20
    os.truncate(tmp_path / "a", 1 << 19)
    near, far = gather([(file, 0, 100), (file, 1_000_000, 100)])
    assert near == bytes(100)
    assert isinstance(far, DamagedError)


def test_tiles_over_http_in_few_requests(tmp_path: Path, http_server):
    path = write_tiff(tmp_path / "served/a.tif", PAGES["ycbcr 420"]())
    near, far = opened(path), open_source(f"{http_server.url}/a.tif")
    assert archive_reason(far) is None
    cells = [(0, y, x) for y in range(3) for x in range(3)]
    http_server.log.requests.clear()
    assert read_encoded(far, 0, cells) == read_encoded(near, 0, cells)
    assert len(http_server.log.seen("GET")) <= 1
