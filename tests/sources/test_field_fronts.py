"""Coarse levels of stores of pyramids read fronts of tiles: few bytes, the same pixels, and damage is told."""

import json
import re
import shutil
from dataclasses import dataclass

import google_crc32c
import numpy as np
import pytest

import tilestream as ts
from tests.codecs.pyramid.coarser import coarser
from tests.codecs.pyramid.made import made_grids, made_nets
from tests.servers import sent_bytes, serve_http
from tests.sources.assembled import whole_level
from tests.sources.madefields import save_fields
from tilestream.cache.fields import forget_fields
from tilestream.codecs.fields.picture import Picture
from tilestream.codecs.fronts import outline_of
from tilestream.codecs.pyramid.file import PyramidFile
from tilestream.codecs.pyramid.pyramidtile import PyramidTile
from tilestream.codecs.pyramid.residual import encode_residual
from tilestream.codecs.tilecodec import unpack_tile
from tilestream.fovea import Fovea
from tilestream.metrics import collect
from tilestream.pyramid.pyramid import open_pyramid
from tilestream.sources import fieldfronts
from tilestream.sources.opening import open_source
from tilestream.types import Shape

TILE, COUNT, SCALES, LEVELS = 64, 5, 4, 3
FOLDER = "0/image/c/0/0"
NETS = coarser(made_nets(2, scales=SCALES, levels=LEVELS, hidden=4, width=4), zeros=7)


@dataclass
class ByChance:
    """Tiles whose grids are by chance."""

    bounded: bool = False
    seed: int = 0
    name: str = "pyramid"
    settings = {"codec": "pyramid", "levels": LEVELS}  # noqa: RUF012

    def encode(self, tile, valid=None, *, roi=None):
        self.seed += 1
        shape = Shape(y=tile.shape[1], x=tile.shape[2])
        about = Picture(shape=shape, channels=3, dtype="uint8", low=(0,) * 3, high=(255,) * 3, levels=LEVELS)
        file = PyramidFile.of(about, NETS, made_grids(shape, SCALES, self.seed))
        base = PyramidTile(file).decode()
        residual = encode_residual(base ^ 1, base, 1) if self.bounded else None
        return PyramidFile(picture=about, nets=NETS, sections=file.sections, residual=residual).to_bytes()


def saved(path, *, tile=TILE, count=COUNT, **options):
    """Write a store of one row of tiles, one array for all levels, and return the tiles by name."""
    pixels = np.full((3, tile, count * tile), 9, np.uint8)
    save_fields(path, pixels, tile_px=tile, step=None, codec=ByChance(**options))
    return {file.name: file.read_bytes() for file in sorted((path / FOLDER).iterdir())}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store and its tiles."""
    path = tmp_path_factory.mktemp("fronts") / "a.zarr"
    return path, saved(path)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(fieldfronts, "FIRST_BYTES", 256)  # the tiles are small
    forget_fields()


@pytest.fixture
def store(made, tmp_path):
    """A store that a test may change, and its tiles."""
    path, tiles = made
    return shutil.copytree(path, tmp_path / "served/a.zarr"), tiles


@pytest.fixture
def server(store, tmp_path):
    with serve_http(tmp_path / "served") as found:
        yield found


def opened(server):
    pyramid = open_pyramid(f"{server.url}/a.zarr", cache_bytes=0)
    server.log.clear()
    return pyramid


def expected(tiles, level):
    """Return the level as whole tiles give it."""
    return np.concatenate([unpack_tile(data).decode(level=level) for data in tiles.values()], axis=2)


def tile_requests(log):
    return [request for request in log.seen("GET") if f"a.zarr/{FOLDER}/" in request.path]


def sent(server, tiles):
    """Return the bytes that were sent of tiles."""
    return sum(nbytes for name, nbytes in sent_bytes(server).items() if name in tiles)


@pytest.mark.parametrize("level", range(4))
def test_a_level_costs_the_bytes_of_its_grids(store, server, level):
    tiles = store[1]
    pyramid = opened(server)
    found = pyramid.read(pyramid.levels[level].box)
    np.testing.assert_array_equal(found, expected(tiles, level))
    outlines = [outline_of(data) for data in tiles.values()]
    lengths = [one.fronts[max(0, 2 - level)].nbytes if level else one.nbytes for one in outlines]
    # the first tiles are asked for twice; what is asked for at once later is what the longest front needs
    assert sum(lengths) <= sent(server, tiles) <= sum(lengths) + COUNT * (max(lengths) * 9 // 8 - min(lengths))
    assert len(tile_requests(server.log)) <= (2 if level else 1) * COUNT
    if level >= 2:
        assert sent(server, tiles) < 0.25 * sum(map(len, tiles.values()))


def test_later_tiles_are_one_request_each(store, server):
    source = open_source(f"{server.url}/a.zarr")
    for ix in range(COUNT):
        source.read_block(2, 0, ix)
    assert len(tile_requests(server.log)) == COUNT + 1


def test_a_finer_level_asks_for_the_rest_alone(store, server):
    tiles = store[1]
    pyramid = opened(server)
    for level in (3, 2, 1, 0, 2):
        np.testing.assert_array_equal(pyramid.read(pyramid.levels[level].box), expected(tiles, level))
    assert sent(server, tiles) == sum(map(len, tiles.values()))


def test_on_object_storage(store, s3):
    path, tiles = store
    pyramid = open_pyramid(s3.upload(path), options=s3.options, cache_bytes=0)
    s3.log.clear()
    np.testing.assert_array_equal(pyramid.read(pyramid.levels[2].box), expected(tiles, 2))
    asked = [re.fullmatch(r"bytes=(\d+)-(\d+)", request.range) for request in tile_requests(s3.log)]
    assert sum(int(span[2]) + 1 - int(span[1]) for span in asked) < 0.25 * sum(map(len, tiles.values()))
    np.testing.assert_array_equal(pyramid.read(pyramid.levels[0].box), expected(tiles, 0))


def test_where_somebody_looks_is_decoded_first_and_the_rest_as_a_front(store, server):
    path, tiles = store
    pyramid, kept = opened(server), open_pyramid(str(path), cache_bytes=0)
    seen, fovea = [], Fovea(fixations_yx=(32, 32), e0_px=16)
    for budget in (COUNT, COUNT + 6, COUNT + 20):
        plans = [ts.plan_tokens(one, budget=budget, fovea=fovea, max_level=2) for one in (pyramid, kept)]
        found, whole = (ts.read_tokens(one, plan) for one, plan in zip((pyramid, kept), plans, strict=True))
        np.testing.assert_array_equal(found.pixels, whole.pixels)
        seen.append([sent_bytes(server)[name] / len(tiles[name]) for name in tiles])
    coarse, looked_at, more = seen
    assert max(coarse) < 0.15
    assert looked_at == [1, *coarse[1:]]
    assert looked_at[1] < more[1] < 0.5
    assert more == [1, more[1], *coarse[2:]]


def in_one_shard(path, tiles):
    """Put all tiles of a store into one shard, as another writer might."""
    document = json.loads((path / "0/image/zarr.json").read_bytes())
    chunk = document["chunk_grid"]["configuration"]["chunk_shape"]
    index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    inner = {"chunk_shape": chunk, "codecs": document["codecs"], "index_codecs": index, "index_location": "end"}
    document["codecs"] = [{"name": "sharding_indexed", "configuration": inner}]
    document["chunk_grid"]["configuration"]["chunk_shape"] = [*chunk[:2], COUNT * TILE]
    (path / "0/image/zarr.json").write_text(json.dumps(document))
    shutil.rmtree(path / "0/image/c")
    (path / FOLDER).mkdir(parents=True)
    ends = np.cumsum([0, *map(len, tiles.values())])
    table = np.stack([ends[:-1], np.diff(ends)], axis=1).astype("<u8").tobytes()
    content = [*tiles.values(), table, google_crc32c.value(table).to_bytes(4, "little")]
    (path / FOLDER / "0").write_bytes(b"".join(content))
    root = json.loads((path / "zarr.json").read_bytes())
    del root["attributes"]["tilestream"]["shards"], root["consolidated_metadata"]
    (path / "zarr.json").write_text(json.dumps(root))


def test_fronts_of_tiles_in_a_shard(store):
    path, tiles = store
    in_one_shard(path, tiles)
    pyramid = open_pyramid(str(path), cache_bytes=0)
    with collect() as meter:
        np.testing.assert_array_equal(pyramid.read(pyramid.levels[2].box), expected(tiles, 2))
    assert 0 < meter.counts["bytes_read"] < 0.25 * sum(map(len, tiles.values()))
    np.testing.assert_array_equal(pyramid.read(pyramid.levels[0].box), expected(tiles, 0))


def test_files_of_a_disk_are_read_the_same(store):
    path, tiles = store
    pyramid = open_pyramid(str(path), cache_bytes=0)
    for level in (2, 0):
        np.testing.assert_array_equal(pyramid.read(pyramid.levels[level].box), expected(tiles, level))


@pytest.mark.parametrize("harm", ["in the front", "behind the front", "cut in the front", "cut behind the front"])
def test_what_is_damaged_is_told_on_the_levels_that_it_reaches(store, harm):
    path, tiles = store
    data = tiles["1"]
    at = outline_of(data).fronts[0].nbytes + (100 if "behind" in harm else -5)
    changed = b"" if "cut" in harm else bytes([data[at] ^ 64]) + data[at + 1 :]
    (path / FOLDER / "1").write_bytes(data[:at] + changed)
    source = open_source(str(path))
    for level in (3, 2, 1, 0):
        pixels, valid, damage = whole_level(source, level)
        reached = level < 2 or "in the" in harm
        assert set(damage) == ({(0, 1)} if reached else set())
        np.testing.assert_array_equal(pixels[valid].T, expected(tiles, level)[:, valid])


def test_a_tile_that_is_written_again_between_two_requests_is_one_or_the_other(store, server):
    path, tiles = store
    source = open_source(f"{server.url}/a.zarr")
    source.read_block(3, 0, 0)
    (path / FOLDER / "0").write_bytes(tiles["4"])
    np.testing.assert_array_equal(
        source.read_block(0, 0, 0).pixels, unpack_tile(tiles["4"]).decode().transpose(1, 2, 0)
    )


def test_tiles_of_bounded_error_are_read_whole(tmp_path):
    tiles = saved(tmp_path / "a.zarr", tile=16, count=2, bounded=True)
    pyramid = open_pyramid(str(tmp_path / "a.zarr"), cache_bytes=0)
    for level in (1, 0):
        np.testing.assert_array_equal(pyramid.read(pyramid.levels[level].box), expected(tiles, level))
