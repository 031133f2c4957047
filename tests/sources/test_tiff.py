"""The TIFF source as a record: pickling, threads, change of the file, validity, levels, pages, pixel size, formats."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import psutil
import pytest
import tifffile

from tests.sources.assembled import whole_level
from tests.sources.madetiff import Page, image_tags, opened, photo, tiles_of, write_tiff
from tilestream.errors import ConfigError, SourceError
from tilestream.metrics import collect
from tilestream.sources.files import File
from tilestream.sources.tiff import needs_openslide, open_tiff

SVS = "slides/CMU-1-Small-Region.svs"
APERIO = "Aperio Image Library v11\r\n100x100 [0,0 100x100]|AppMag = 20|MPP = {mpp}|Filename = NAME"


def text(value: str) -> tuple[str, bytes]:
    return "s", value.encode() + b"\0"


def test_a_source_pickles_small_and_reads_the_same(shared_data):
    source = opened(shared_data / "satellite/cog_world.tif")
    data = pickle.dumps(source)
    assert len(data) < 500
    again = pickle.loads(data)
    assert again == source
    assert again.info == source.info
    np.testing.assert_array_equal(again.read_block(3, 1, 2).pixels, source.read_block(3, 1, 2).pixels)


def test_a_source_is_read_in_another_process(shared_data):
    source = opened(shared_data / SVS)
    expected = source.read_block(0, 3, 4).pixels.sum()
    code = "import pickle, sys; print(int(pickle.load(sys.stdin.buffer).read_block(0, 3, 4).pixels.sum()))"
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(source), capture_output=True, check=True, timeout=60
    )
    assert int(done.stdout) == expected


def test_a_source_survives_a_fork(shared_data):
    source = opened(shared_data / SVS)
    expected = int(source.read_block(0, 1, 1).pixels.sum())
    queue = multiprocessing.get_context("fork").SimpleQueue()
    child = os.fork()
    if child == 0:
        queue.put(int(source.read_block(0, 1, 1).pixels.sum()))
        os._exit(0)
    os.waitpid(child, 0)
    assert queue.get() == expected


def test_a_changed_file_is_refused(tmp_path):
    write_tiff(tmp_path / "a.tif", Page(tags=image_tags(8, 8), pieces=[bytes(64)], tiled=False))
    source = opened(tmp_path / "a.tif")
    data = pickle.dumps(source)
    write_tiff(tmp_path / "a.tif", Page(tags=image_tags(8, 16), pieces=[bytes(128)], tiled=False))
    with pytest.raises(SourceError, match="changed meanwhile"):
        assert pickle.loads(data).info
    assert opened(tmp_path / "a.tif").info.fingerprint != source.fingerprint


def test_a_changed_file_without_the_chosen_page_is_refused(tmp_path):
    page = Page(tags=image_tags(8, 8), pieces=[bytes(64)], tiled=False)
    data = pickle.dumps(opened(write_tiff(tmp_path / "a.tif", page, page)).isel(page=1))
    write_tiff(tmp_path / "a.tif", page)
    with pytest.raises(SourceError, match="got 1 pages"):
        assert pickle.loads(data).info


def test_blocks_that_do_not_exist_are_refused(shared_data):
    source = opened(shared_data / SVS)
    for place in ((0, -1, 0), (0, 0, -1), (-1, 0, 0), (1, 0, 0), (0, 13, 0), (0, 0, 10)):
        with pytest.raises(IndexError):
            source.read_block(*place)
    strips = opened(shared_data / "satellite/RGB.byte.tif")
    for place in ((0, 3, 0), (0, 0, 1)):
        with pytest.raises(IndexError):
            strips.read_block(*place)


def test_the_fingerprint_ignores_name_and_time(tmp_path, shared_data):
    data = (shared_data / SVS).read_bytes()
    for name in ("a.svs", "b.svs"):
        (tmp_path / name).write_bytes(data)
    os.utime(tmp_path / "a.svs", (1, 1))
    assert opened(tmp_path / "a.svs").fingerprint == opened(tmp_path / "b.svs").fingerprint
    assert opened(tmp_path / "a.svs").fingerprint == opened(shared_data / SVS).fingerprint


def test_threads_read_the_same_pixels_through_one_descriptor(shared_data):
    source = opened(shared_data / SVS)
    places = [(iy, ix) for iy in range(6) for ix in range(6)] * 4
    expected = {place: source.read_block(0, *place).pixels for place in set(places)}
    before = psutil.Process().num_fds()
    with ThreadPoolExecutor(8) as pool:
        for place, block in zip(places, pool.map(lambda place: source.read_block(0, *place), places), strict=True):
            np.testing.assert_array_equal(block.pixels, expected[place])
        assert psutil.Process().num_fds() <= before


def test_bytes_and_time_are_counted(shared_data):
    source = opened(shared_data / SVS)
    source.read_block(0, 0, 0)
    with collect() as meter:
        source.read_block(0, 2, 3)
    assert meter.counts["bytes_read"] == int(source._image.levels[0].level.tables[0].counts[0, 2, 3])
    assert meter.seconds["decode"] > 0
    assert meter.seconds["read"] > 0


def test_opening_a_large_scene_reads_little(shared_data):
    path = shared_data / "satellite/cog_world.tif"
    with collect() as meter:
        opened(path)
    assert meter.counts.get("bytes_read", 0) < 500_000


def test_remote_files_are_read_by_ranges(tmp_path, shared_data):
    memory = fsspec.filesystem("memory")
    memory.pipe("/scene.tif", (shared_data / "satellite/cogeo.tif").read_bytes())
    remote, local = open_tiff(File(url="memory://scene.tif")), opened(shared_data / "satellite/cogeo.tif")
    assert remote.fingerprint == local.fingerprint
    np.testing.assert_array_equal(whole_level(remote, 1)[0], whole_level(local, 1)[0])


def aperio(path, *, extra: tuple[Page, ...] = (), mpp: str = "0.25") -> None:
    pages = []
    for size in (300, 75):
        tags = image_tags(size, size, piece=(64, 64), samples=3) | {270: text(APERIO.format(mpp=mpp))}
        pages.append(Page(tags=tags, pieces=[tile.tobytes() for tile in tiles_of(photo(size, size), (64, 64))]))
    thumbnail = image_tags(90, 90, samples=3) | {270: text(APERIO.format(mpp=mpp))}
    pages.insert(1, Page(tags=thumbnail, pieces=[photo(90, 90).tobytes()], tiled=False))
    write_tiff(path, *pages, *extra)


def test_aperio_levels_thumbnail_and_nothing_else(tmp_path):
    hidden = [
        Page(tags=image_tags(*size, samples=3, subfile=subfile) | {270: text(name)}, pieces=[bytes(90000)], tiled=False)
        for size, subfile, name in (((80, 60), 1, "Aperio\nlabel 60x80"), ((60, 90), 9, "Aperio"), ((75, 75), 9, "x"))
    ]
    aperio(tmp_path / "a.svs", extra=tuple(hidden))
    source = opened(tmp_path / "a.svs")
    assert [level.shape.yx for level in source.info.levels] == [(300, 300), (75, 75)]
    assert source.info.levels[1].scale_yx == (4.0, 4.0)
    assert source.info.associated == ("thumbnail",)
    assert "page" not in source.info.axes
    np.testing.assert_array_equal(source.read_associated("thumbnail"), photo(90, 90))


@pytest.mark.parametrize(("stated", "mpp"), [("0.25", 0.25), ("0,5", 0.5), ("0", None), ("unknown", None)])
def test_aperio_mpp_is_never_guessed(tmp_path, stated, mpp):
    aperio(tmp_path / "a.svs", mpp=stated)
    info = opened(tmp_path / "a.svs").info
    assert info.mpp == mpp
    assert any("mpp" in note for note in info.notes) == (mpp is None)


@pytest.mark.parametrize(
    ("unit", "per_unit", "mpp"), [(3, 40000, 0.25), (3, 28, None), (3, 0, None), (2, 72, None), (2, 100000, None)]
)
def test_resolution_tags_are_believed_only_where_they_are_a_microscope_s(tmp_path, unit, per_unit, mpp):
    tifffile.imwrite(tmp_path / "a.tif", photo(40, 40), resolution=(per_unit, per_unit), resolutionunit=unit)
    assert opened(tmp_path / "a.tif").info.mpp == mpp


@pytest.mark.parametrize("marked", [True, False])
def test_levels_of_plain_pyramids(tmp_path, marked):
    pixels = photo(300, 260)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for step in (1, 2, 4):
            part = np.ascontiguousarray(pixels[::step, ::step])
            kind = 1 if marked and step > 1 else 0
            writer.write(part, photometric="rgb", tile=(64, 64), subfiletype=kind, metadata=None)
        writer.write(np.ascontiguousarray(pixels[::8, ::8, 0]), subfiletype=int(marked), metadata=None)
    source = opened(tmp_path / "a.tif")
    assert [level.scale_yx[0] for level in source.info.levels] == [1.0, 2.0, 4.0]
    for level, step in enumerate((1, 2, 4)):
        np.testing.assert_array_equal(whole_level(source, level)[0], pixels[::step, ::step])
    if marked:
        assert any("another kind" in note for note in source.info.notes)
    else:
        assert source.info.axes["page"] == 2


def test_pages_are_an_axis(tmp_path):
    stack = np.stack([photo(40, 50, channels=1, seed=seed)[:, :, 0] for seed in range(3)])
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", metadata=None)
    source = opened(tmp_path / "a.tif")
    assert source.info.axes["page"] == 3
    assert any("axis page" in note for note in source.info.notes)
    for page in range(3):
        np.testing.assert_array_equal(whole_level(source.isel(page=page))[0][:, :, 0], stack[page])
    assert len({source.isel(page=page).fingerprint for page in range(3)}) == 3
    assert pickle.loads(pickle.dumps(source.isel(page=2))).info.selection == {"page": 2}
    with pytest.raises(ConfigError, match="0 to 2"):
        source.isel(page=3)


def test_what_is_seen_through_is_noted(tmp_path):
    tags = image_tags(8, 8) | {274: ("H", [6]), 270: text("ImageJ=1.53\nimages=100\nslices=100\n")}
    notes = opened(write_tiff(tmp_path / "a.tif", Page(tags=tags, pieces=[bytes(64)], tiled=False))).info.notes
    assert any("orientation 6" in note for note in notes)
    assert any("100 planes of which 1" in note for note in notes)


def scanner_page(**tags: object) -> Page:
    more = {int(code.lstrip("t")): value for code, value in tags.items()}
    return Page(tags=image_tags(8, 8) | more, pieces=[bytes(64)], tiled=False)


@pytest.mark.parametrize(
    "tags",
    [
        {"t65420": ("I", [1])},
        {"t305": text("Philips DP v1.0")},
        {"t305": text("MedScan")},
        {"t270": text('<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">')},
        {"t700": ("B", b'<Metadata><iScan Magnification="20"/></Metadata>')},
    ],
)
def test_formats_that_only_openslide_reads_are_known(tmp_path, tags):
    path = write_tiff(tmp_path / "a.tif", scanner_page(**tags))
    assert needs_openslide(File(url=str(path)))
    with pytest.raises(SourceError, match="OpenSlide"):
        opened(path)


def test_which_real_files_need_openslide(shared_data):
    assert needs_openslide(File(url=str(shared_data / "slides/test3-DAPI-2-387.ndpi")))
    for name in (SVS, "slides/OS-1-detail.ome.tif", "satellite/cogeo.tif", "broken/random-text.svs"):
        assert not needs_openslide(File(url=str(shared_data / name)))
