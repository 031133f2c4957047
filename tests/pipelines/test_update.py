"""An update gives the bits of a rebuild, wherever the image has changed."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

import tilestream as ts
from tests.sinks.build import tree_bytes
from tilestream.cluster.client import open_client
from tilestream.codecs.place import Place
from tilestream.errors import ConfigError, DamagedError, OutputError
from tilestream.pipelines.ingest import IngestConfig, build_pyramid, ingest_cohort, run_ingest
from tilestream.pipelines.patches import Patches
from tilestream.pipelines.update import update_pyramid
from tilestream.sinks import layout

SHAPE = (400, 611)
BOXES = {
    "one pixel": [(77, 333, 1, 1)],
    "over shards": [(250, 500, 20, 30)],
    "the last corner": [(395, 600, 100, 100)],
    "several": [(0, 0, 10, 10), (300, 400, 70, 20), (310, 10, 5, 5)],
    "all": [(0, 0, 400, 611)],
}


@pytest.fixture(autouse=True)
def _small_units(monkeypatch):
    """Chunks of 16 px: an image of a thousand pixels has many units and three tiers."""
    monkeypatch.setattr(layout, "CHUNK_PX", ((float("inf"), 16),))
    monkeypatch.setattr(layout, "LAST_PX", 4)


def _picture(channels=3, dtype="u1"):
    rng = np.random.default_rng(1)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    pixels = 120 + 60 * np.sin(y / 97) + 50 * np.cos(x / 61)
    return (np.repeat(pixels[..., None], channels, axis=2) + rng.integers(0, 9, (*SHAPE, channels))).astype(dtype)


def _changed(pixels, boxes, value=3):
    after = pixels.copy()
    for y, x, height, width in boxes:
        after[y : y + height, x : x + width] = value
    return after


def _save(path, pixels, **attributes):
    array = zarr.create_array(
        path,
        data=pixels.transpose(2, 0, 1),
        chunks=(pixels.shape[2], 100, 120),
        dimension_names=("c", "y", "x"),
        overwrite=True,
    )
    array.attrs.update(attributes)


def _boxes(boxes):
    return [ts.Box(y=y, x=x, height=height, width=width) for y, x, height, width in boxes]


@pytest.fixture(scope="module")
def client():
    with open_client("threads:2") as client:
        yield client


@pytest.fixture(params=["colours", "holes", "a band of floats", "classes"])
def images(request):
    """An image and its attributes: all valid, with nodata, with NaN, and of classes."""
    pixels = {
        "colours": lambda: _picture(),
        "holes": lambda: _changed(_picture(2, "u2"), [(100, 100, 150, 300)], 0),
        "a band of floats": lambda: _changed(_picture(1, "f4"), [(0, 0, 70, 900)], np.nan),
        "classes": lambda: _picture(1, "u1") // 16,
    }[request.param]()
    extra = {"holes": {"nodata": 0}, "classes": {"flag_values": list(range(16))}}.get(request.param, {})
    return pixels, extra


@pytest.mark.parametrize(("name", "profile"), [*((name, "portable") for name in BOXES), ("several", "gdal")])
def test_it_gives_the_bits_of_a_rebuild(tmp_path, images, name, profile, client):
    before, extra = images
    source, root = tmp_path / "image.zarr", tmp_path / "out" / "x.zarr"
    _save(source, before, **extra)
    build_pyramid(source, root, profile=profile, client=client)
    _save(source, _changed(before, BOXES[name]), **extra)
    update_pyramid(root, _boxes(BOXES[name]), src=source)
    build_pyramid(source, tmp_path / "again" / "x.zarr", profile=profile, client=client)
    assert tree_bytes(root) == tree_bytes(tmp_path / "again" / "x.zarr")


def _tiff(path, pixels):
    """Write a pyramid of JPEG tiles; a tile that has not changed gets the same bytes."""
    with tifffile.TiffWriter(path) as writer:
        for step in (1, 4):
            level = pixels[::step, ::step]
            writer.write(
                level, tile=(112, 112), photometric="rgb", compression="jpeg", subfiletype=0 if step == 1 else 1,
                compressionargs={"level": 90, "subsampling": (1, 1)},
            )  # fmt: skip


@pytest.mark.parametrize("fill_levels", [False, True])
@pytest.mark.parametrize("name", BOXES)
def test_an_archive_too(tmp_path, name, fill_levels, client):
    before, source, root = _picture(), tmp_path / "image.tif", tmp_path / "out" / "x.zarr"
    _tiff(source, before)
    build_pyramid(source, root, profile="archive", fill_levels=fill_levels, client=client)
    _tiff(source, _changed(before, BOXES[name]))
    update_pyramid(root, _boxes(BOXES[name]), src=source)
    build_pyramid(source, tmp_path / "again" / "x.zarr", profile="archive", fill_levels=fill_levels, client=client)
    assert tree_bytes(root) == tree_bytes(tmp_path / "again" / "x.zarr")


def test_a_mask_that_comes_and_goes(tmp_path, client):
    """Alpha is kept as a mask, which is only there as long as something is hidden."""
    before, source, root = _picture(4), tmp_path / "image.tif", tmp_path / "out" / "x.zarr"
    before[..., 3] = 255
    hidden = _changed(before, [(200, 200, 50, 400)], 0)

    def save(pixels):
        tifffile.imwrite(source, pixels, tile=(112, 112), photometric="rgb", extrasamples=["unassalpha"])

    for first, second in ((before, hidden), (hidden, before)):
        save(first)
        build_pyramid(source, root, resume=False, client=client)
        save(second)
        update_pyramid(root, _boxes([(200, 200, 50, 400)]), src=source)
        build_pyramid(source, tmp_path / "again" / "x.zarr", resume=False, client=client)
        assert tree_bytes(root) == tree_bytes(tmp_path / "again" / "x.zarr")
        assert (root / "labels").exists() == (second is hidden)


def test_an_update_that_was_killed_is_known_and_completed(tmp_path, monkeypatch, client):
    before, source, root = _picture(), tmp_path / "image.zarr", tmp_path / "out" / "x.zarr"
    _save(source, before)
    build_pyramid(source, root, client=client)
    _save(source, _changed(before, BOXES["several"]))
    with monkeypatch.context() as patched:
        patched.setattr(Patches, "_jobs", lambda self, tier: list(_jobs(self, tier))[:1] if not tier else _die())
        with pytest.raises(RuntimeError, match="killed"):
            update_pyramid(root, _boxes(BOXES["several"]), src=source)
    record = json.loads((root / "zarr.json").read_bytes())["attributes"]["tilestream"]
    assert record["updating"] == [list(box) for box in BOXES["several"]]
    assert any("update" in note for note in ts.open_pyramid(str(root)).info.notes)
    with pytest.raises(OutputError, match="update has not come to its end"):
        build_pyramid(source, root, client=client)
    # another one completes it: what was left undone is its business too
    update_pyramid(root, _boxes(BOXES["one pixel"]), src=source)
    build_pyramid(source, tmp_path / "again" / "x.zarr", client=client)
    assert tree_bytes(root) == tree_bytes(tmp_path / "again" / "x.zarr")


_jobs = Patches._jobs


def _die():
    raise RuntimeError("killed")


def test_the_choices_of_the_store_are_kept(tmp_path, client):
    """Bands and resolution that a manifest gave, which the image itself does not say."""
    before, source = _picture(), tmp_path / "image.zarr"
    _save(source, before)
    _save(tmp_path / "after.zarr", _changed(before, BOXES["several"]))
    manifest = tmp_path / "list.csv"

    def store(image, out):
        manifest.write_text(f"path,mpp,bands\n{image},0.25,G R\n")
        config = IngestConfig(out=Place.of(str(tmp_path / out)))
        cohort = ingest_cohort([], manifest=str(manifest), config=config)
        (row,) = run_ingest(cohort, config, client=client)
        assert row.status == "done", row.reason
        return Path(row.store)

    root, again = store(source, "out"), store(tmp_path / "after.zarr", "again")
    _save(source, _changed(before, BOXES["several"]))
    pyramid = update_pyramid(root, _boxes(BOXES["several"]), src=source)
    assert pyramid.mpp == 0.25
    assert [channel.name for channel in pyramid.channels] == ["G", "R"]
    assert tree_bytes(root / "0") == tree_bytes(again / "0")


def test_a_lost_shard_does_not_become_background(tmp_path, client):
    before, source, root = _picture(), tmp_path / "image.zarr", tmp_path / "out" / "x.zarr"
    _save(source, before)
    build_pyramid(source, root, client=client)
    (root / "1" / "image" / "c" / "0" / "0" / "0").unlink()
    _save(source, _changed(before, BOXES["one pixel"]))
    with pytest.raises(DamagedError, match="gone"):
        update_pyramid(root, _boxes([(20, 30, 1, 1)]), src=source)


def test_what_cannot_be_updated_is_refused(tmp_path, client):
    before, source, root = _picture(), tmp_path / "image.zarr", tmp_path / "out" / "x.zarr"
    _save(source, before)
    build_pyramid(source, root, client=client)
    stored = tree_bytes(root)
    with pytest.raises(OutputError, match="nothing there"):
        update_pyramid(tmp_path / "none.zarr", [], src=source)
    with pytest.raises(OutputError, match="has not written"):
        update_pyramid(source, [], src=source)
    for wrong, words in (((9000, 9000, 5, 5), "400 rows and 611 columns"), ((0, 0, 0, 9), "400 rows")):
        with pytest.raises(ConfigError, match=words):
            update_pyramid(root, _boxes([wrong]), src=source)
    with pytest.raises(ConfigError, match="boxes of level 0"):
        update_pyramid(root, [(1, 2, 3, 4)], src=source)
    with pytest.raises(ConfigError, match="level"):
        update_pyramid(root, [ts.Box(level=1, y=0, x=0, height=1, width=1)], src=source)
    _save(tmp_path / "small.zarr", before[:300])
    with pytest.raises(ConfigError, match="level"):
        update_pyramid(root, _boxes(BOXES["one pixel"]), src=tmp_path / "small.zarr")
    assert tree_bytes(root) == stored
