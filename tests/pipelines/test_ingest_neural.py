"""`tilestream ingest --profile neural`: fitted tiles under the names of an ingest, open to any Zarr client."""

import json
import subprocess
import sys

import imagecodecs
import numpy as np
import pytest
import xarray as xr
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from typer.testing import CliRunner

import tilestream as ts
from tests.codecs.exactfield import NAME, PATH
from tilestream.cli import app
from tilestream.codecs.place import Place
from tilestream.errors import ConfigError
from tilestream.kernels.mip import mip
from tilestream.pipelines import compress
from tilestream.pipelines.ingest import IngestConfig, ingest_cohort, run_ingest
from tilestream.pipelines.ingest_neural import NeuralOptions
from tilestream.pyramid.reducing import Reducer
from tilestream.registry import CODECS


@pytest.fixture(scope="module")
def exact():
    """The codec that keeps tiles as they are, each level an array of its own as of the pyramid codec."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CODECS, NAME, PATH)
        patch.setitem(compress._LEVEL_STEP, NAME, 1)
        yield


@pytest.fixture(scope="module")
def stored(exact, tmp_path_factory):
    """The levels of a picture, the outcome of its ingest, and the store."""
    folder = tmp_path_factory.mktemp("neural")
    pixels = np.random.default_rng(4).integers(0, 255, (300, 270, 3)).astype(np.uint8)
    (folder / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    config = IngestConfig(out=Place.of(folder / "out"), profile="neural", neural=NeuralOptions(codec=NAME, tile_px=64))
    cohort = ingest_cohort([str(folder / "a.png")], manifest=None, config=config)
    (row,) = run_ingest(cohort, config)
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return [planes, *mip(planes, levels=3)], row, folder / "out/a.png.zarr"


def test_it_is_named_and_told_as_any_ingest(stored):
    _, row, path = stored
    assert (row.status, row.damaged, row.store) == ("done", (), str(path))
    assert row.summary["coded"]["exact"] == [0, 1, 2, 3]
    assert {one.name for one in path.parent.iterdir()} == {"a.png.zarr", "metrics.prom", "receipts"}
    config = IngestConfig(out=Place.of(path.parent), profile="neural", neural=NeuralOptions(codec=NAME, tile_px=64))
    again = ingest_cohort([str(path.parent.parent)], manifest=None, config=config)
    assert [entry.key for entry in again.entries] == ["a.png"]  # its own output is no input


def test_our_source_and_plain_zarr_read_every_level(stored):
    levels, _, path = stored
    pyramid, root = ts.open_pyramid(str(path)), zarr.open_group(path, mode="r")
    assert len(pyramid.levels) == len(levels)
    for level, expected in zip(pyramid.levels, levels, strict=True):
        np.testing.assert_array_equal(pyramid.read(level.box), expected)
        np.testing.assert_array_equal(root[f"{level.index}/image"][...], expected)


def test_xarray_and_the_reader_of_ome_zarr_see_every_level(stored):
    levels, _, path = stored
    with xr.open_datatree(path, engine="zarr") as tree:
        for number, expected in enumerate(levels):
            np.testing.assert_array_equal(tree[f"{number}/image"].values, expected)
    (node,) = list(Reader(parse_url(str(path)))())[:1]
    assert len(node.data) == len(levels)
    for array, expected in zip(node.data, levels, strict=True):
        np.testing.assert_array_equal(np.asarray(array), expected)


@pytest.mark.filterwarnings("ignore")  # napari's own; its plugin for pytest has them too: `-p no:napari -p no:npe2`
def test_the_reader_of_napari_makes_layers_of_every_level(stored):
    pytest.importorskip("napari", reason="needs napari, which brings a window system along")
    reader = pytest.importorskip("napari_ome_zarr", reason="needs napari-ome-zarr")
    levels, _, path = stored
    ((data, about, kind),) = reader.napari_get_reader(str(path))(str(path))
    assert (kind, about["channel_axis"], about["name"]) == ("image", 0, ["image: R", "image: G", "image: B"])
    assert len(data) == len(levels)
    for array, expected in zip(data, levels, strict=True):
        np.testing.assert_array_equal(np.asarray(array), expected)


def test_without_tilestream_the_message_names_what_is_missing(stored):
    _, _, path = stored
    code = (
        "import importlib.metadata as m\n"
        "found = m.distributions\n"
        "m.distributions = lambda **k: (one for one in found(**k) if one.metadata['Name'] != 'tilestream')\n"
        "import zarr\n"
        f"group = zarr.open_group({str(path)!r}, mode='r', use_consolidated=False)\n"
        "print(group.attrs['tilestream']['requires'])\n"
        f"zarr.open({str(path)!r}, mode='r')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "the Python package tilestream" in done.stdout
    assert "tilestream.neural" in done.stderr.splitlines()[-1]
    assert json.loads((path / "0/image/zarr.json").read_bytes())["codecs"][0]["name"] == "tilestream.neural"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"fill_levels": True}, "--fill-levels"),
        ({"jpegxl": True}, "--jpegxl"),
        ({"keep_identifying": True}, "--keep-identifying"),
        ({"reducer": Reducer.of("kaiser", light="stored")}, "--filter"),
        ({"out": Place.of("s3://bucket/folder")}, "a folder of this machine"),
        ({"profile": "portable", "neural": NeuralOptions()}, "alone fits anything"),
    ],
)
def test_options_that_do_not_go_together_are_named(options, named, tmp_path):
    with pytest.raises(ConfigError, match=named):
        IngestConfig(**{"out": Place.of(tmp_path), "profile": "neural", **options})


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--quality", "50"], "Give --profile neural"),
        (["--profile", "neural", "--quality", "0"], "expected a number of 1 to 100"),
        (["--profile", "neural", "--update", "0,0,8,8"], "Leave --update out"),
    ],
)
def test_the_command_refuses_before_it_writes(words, named, tmp_path, exact, monkeypatch):
    monkeypatch.setattr(NeuralOptions, "__init__", _with_exact(NeuralOptions.__init__))
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(np.zeros((9, 9, 3), np.uint8)))
    done = CliRunner().invoke(app, ["ingest", str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), *words])
    assert done.exit_code in (2, 3)
    assert named in " ".join((done.stdout + done.stderr).split())
    assert not list(tmp_path.rglob("zarr.json"))


def _with_exact(init):
    def begin(self, **fields):
        init(self, **{"codec": NAME, **fields})

    return begin


def test_the_command_tells_bytes_and_closeness(tmp_path, exact, monkeypatch):
    monkeypatch.setattr(NeuralOptions, "__init__", _with_exact(NeuralOptions.__init__))
    pixels = np.random.default_rng(4).integers(0, 255, (70, 70, 3)).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    words = ["ingest", str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--profile", "neural"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    assert "begin a.png: 1 tile" in done.stderr
    assert "stored a.png: " in done.stdout
    assert "PSNR in dB by level exact" in done.stdout
    assert "1 stored, 0 failed" in done.stdout
