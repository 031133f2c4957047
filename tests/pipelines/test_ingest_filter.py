"""Stores whose levels are filtered: those of the whole image in one piece, however it is cut, and after updates too."""

import json

import numpy as np
import pytest
import zarr
from numpy.testing import assert_array_equal

import tilestream as ts
from tests.codecs.downsamplers import untrained
from tests.sinks.build import tree_bytes
from tilestream.cluster.client import open_client
from tilestream.codecs.downsample.record import read_downsampler
from tilestream.codecs.downsample.smaller import Downsampler
from tilestream.codecs.place import Place
from tilestream.errors import ConfigError, OutputError, SourceError
from tilestream.kernels.mip import mip_levels
from tilestream.pipelines.ingest import IngestConfig, build_pyramid
from tilestream.pipelines.update import update_pyramid
from tilestream.pyramid.reducing import Reducer, recorded_reducer
from tilestream.sinks import layout
from tilestream.types import Box

SHAPE = (300, 531)
HOLE = (slice(90, 200), slice(200, 420))
CHANGES = (Box(y=77, x=333, height=1, width=1), Box(y=250, x=500, height=20, width=31))


@pytest.fixture(autouse=True)
def _small_units(monkeypatch):
    """Chunks of 16 px: a small image has several units and three tiers."""
    monkeypatch.setattr(layout, "CHUNK_PX", ((float("inf"), 16),))
    monkeypatch.setattr(layout, "LAST_PX", 4)


@pytest.fixture(scope="module")
def client():
    with open_client("threads:2") as client:
        yield client


def picture():
    """Return `(3, y, x)` of no value 0, but for a hole that is nodata."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    smooth = 120 + 60 * np.sin(y / 7) + 50 * np.cos(x / 5)
    pixels = (smooth + np.random.default_rng(1).integers(0, 9, (3, *SHAPE))).astype(np.uint8)
    pixels[:, *HOLE] = 0
    return pixels


def save(path, pixels):
    names = ("c", "y", "x")
    array = zarr.create_array(path, data=pixels, chunks=(3, 100, 120), dimension_names=names, overwrite=True)
    array.attrs["nodata"] = 0


def expected(pixels, how, light, levels):
    """Return the levels of the whole image in one piece."""
    valid = (pixels != 0).any(axis=0)
    if not how.endswith(".safetensors"):
        # what is stored is what the next four are made of: a pixel that became 0 in every channel is none
        return [level.pixels for level in mip_levels(pixels, valid, levels=levels, filter=how, light=light, nodata=0)]
    found, downsampler = [], Downsampler(file=read_downsampler(how))
    for level in range(1, levels + 1):
        pixels, valid = downsampler(pixels, valid, level=level)
        pixels = np.where(valid, pixels, np.uint8(0))
        found.append(pixels)
    return found


CASES = [("lanczos", "stored"), ("binomial", "linear"), ("box", "density"), ("learned", "stored")]


@pytest.mark.parametrize(("how", "light"), CASES, ids=[case[0] for case in CASES])
def test_levels_are_those_of_the_whole_image_and_updates_keep_them_so(tmp_path, client, how, light) -> None:
    if how == "learned":
        how = str(tmp_path / "mine.safetensors")
        untrained(tmp_path / "mine.safetensors")
    before, after = picture(), picture()
    for box in CHANGES:
        after[:, *box.slices_yx] = 3
    source, store = tmp_path / "image.zarr", tmp_path / "store.zarr"
    save(source, before)
    made = build_pyramid(source, store, filter=how, light=light, client=client)
    for level, wanted in enumerate(expected(before, how, light, len(made.levels) - 1), 1):
        assert_array_equal(zarr.open_array(store / f"{level}/image")[:], wanted, err_msg=f"level {level}")
    save(source, after)
    update_pyramid(store, CHANGES, src=source, filter=how if "/" in how else None)
    build_pyramid(source, tmp_path / "anew.zarr", filter=how, light=light, client=client)
    assert pixels_of(store) == pixels_of(tmp_path / "anew.zarr")


def pixels_of(store):
    return {name: data for name, data in tree_bytes(store).items() if "/c/" in name}


def test_the_store_says_how_its_levels_were_made(tmp_path, client) -> None:
    save(tmp_path / "image.zarr", picture()[:, :64, :64])
    file = untrained(tmp_path / "mine.safetensors")
    for name, filter in {"mean": "box", "filtered": "kaiser", "learned": str(tmp_path / "mine.safetensors")}.items():
        build_pyramid(tmp_path / "image.zarr", tmp_path / f"{name}.zarr", filter=filter, client=client)
    said = {
        name: json.loads((tmp_path / f"{name}.zarr/zarr.json").read_text())["attributes"]["tilestream"]["choices"]
        for name in ("mean", "filtered", "learned")
    }
    assert "filter" not in said["mean"]
    assert said["filtered"]["filter"] == {"name": "kaiser", "light": "stored"}
    assert said["learned"]["filter"] == {"name": "learned", "digest": file.digest, "levels": 2, "window_px": 6}
    with pytest.raises(OutputError, match="recipe"):  # other levels are another store
        build_pyramid(tmp_path / "image.zarr", tmp_path / "filtered.zarr", filter="lanczos", client=client)


def test_a_learned_store_is_updated_with_its_own_file_only(tmp_path, client) -> None:
    save(tmp_path / "image.zarr", picture()[:, :64, :64])
    for seed in (0, 1):
        untrained(tmp_path / f"{seed}.safetensors", seed=seed)
    build_pyramid(tmp_path / "image.zarr", tmp_path / "a.zarr", filter=str(tmp_path / "0.safetensors"), client=client)
    for filter in (None, str(tmp_path / "1.safetensors")):
        with pytest.raises(ConfigError, match=r"`filter`.*digest"):
            update_pyramid(tmp_path / "a.zarr", CHANGES[:0], src=tmp_path / "image.zarr", filter=filter)


def test_whoever_chooses_how_levels_are_made_wants_them_made(tmp_path) -> None:
    out, lanczos = Place.of(tmp_path), Reducer.of("lanczos")
    with pytest.raises(ConfigError, match=r"`filter`.*archive.*--fill-levels"):
        IngestConfig(out=out, profile="archive", reducer=lanczos)
    IngestConfig(out=out, profile="archive", fill_levels=True, reducer=lanczos)


def test_what_cannot_be_reduced_so_is_refused(tmp_path, client) -> None:
    (tmp_path / "none.txt").write_text("none")
    untrained(tmp_path / "mine.safetensors")
    mine = str(tmp_path / "mine.safetensors")
    for filter, light, error in (
        ("sinc", "stored", "no such file"),
        ("box", "gamma", "`light`"),
        (mine, "linear", "learned"),
    ):
        with pytest.raises(ConfigError, match=error):
            Reducer.of(filter, light=light)
    with pytest.raises(SourceError, match="no downsampler"):
        Reducer.of(str(tmp_path / "none.txt"))
    zarr.create_array(tmp_path / "band", data=np.zeros((1, 20, 20), np.uint16), dimension_names=("c", "y", "x"))
    for keywords in ({"filter": mine}, {"light": "linear"}):
        with pytest.raises(OutputError, match="uint16"):
            build_pyramid(tmp_path / "band", tmp_path / "band.zarr", client=client, **keywords)


def test_a_file_that_changes_during_a_run_ends_it(tmp_path) -> None:
    untrained(tmp_path / "mine.safetensors")
    reducer = Reducer.of(str(tmp_path / "mine.safetensors"))
    untrained(tmp_path / "mine.safetensors", seed=1)
    with pytest.raises(ConfigError, match="changed"):
        _ = reducer.downsampler


def test_stores_of_before_are_means() -> None:
    assert recorded_reducer(None, None).is_mean
    assert recorded_reducer({"name": "box", "light": "linear"}, None) == Reducer(light="linear")
    assert ts.Box(y=0, x=0, height=1, width=1) == Reducer().around(Box(y=0, x=0, height=1, width=1), 4)
