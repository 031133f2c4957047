"""`tilestream attend`: stores in the place of their image, figures, the same bits anywhere, and what is refused."""

from __future__ import annotations

import json

import imagecodecs
import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

import tilestream as ts
from tests.pipelines.holed import holed
from tilestream.cli import app
from tilestream.pipelines.attend_figure import bar_px, recipe_of
from tilestream.testing.slide import write_slide
from tilestream.types import Shape, StageSpec

pytest.importorskip("torch")

from tests.models.attending import TILE_PX, TOKENS
from tests.models.test_attention import HALO, reference

HERE = "tests.models.attending"
REGION_PX = 128
STRIDE = TILE_PX // TOKENS


def run(*words):
    return CliRunner().invoke(app, ["attend", *map(str, words)], catch_exceptions=False)


def stored(place):
    pyramid = ts.open_pyramid(str(place))
    region = pyramid.read_region(pyramid.levels[0].box)
    scale = np.array([channel.scale for channel in pyramid.channels], "f4")[:, None, None]
    return pyramid, np.where(region.valid, region.pixels * scale, np.nan)


def files(folder):
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {name.as_posix(): path.read_bytes() for name, path in found.items() if "receipts" not in name.parts}


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    return write_slide(tmp_path_factory.mktemp("in") / "a.svs", Shape(y=300, x=420), mpp=0.5, tile_px=48)


@pytest.fixture(scope="module")
def made(slide, tmp_path_factory):
    """What one run with all maps of the whole slide has left."""
    out = tmp_path_factory.mktemp("out")
    words = ["--encoder", f"{HERE}:measured", "--region", REGION_PX, "--where", "all"]
    result = run(slide, "--out", out, *words)
    assert result.exit_code == 0, result.stderr
    return out


def test_the_store_holds_the_definition_region_by_region(slide, made):
    source = ts.open_pyramid(str(slide))
    image = source.read(source.levels[0].box)
    store, maps = stored(made / "a.svs.attention.zarr")
    assert maps.shape == (12, 75, 105)
    names = [channel.name for channel in store.channels]
    assert names[:7] == ["mean", "128_0", "128_1", "128_2", "16_0", "16_1", "128_0_16_0"]
    assert np.isfinite(maps).all()
    for y, x in ((0, 128), (256, 384)):
        expected = reference(image, y, x, REGION_PX)
        found = maps[:, y // STRIDE : (y + REGION_PX) // STRIDE, x // STRIDE : (x + REGION_PX) // STRIDE]
        inside = expected[:, : found.shape[1], : found.shape[2]]
        np.testing.assert_allclose(found, inside, atol=0.51 * 100 / 254 + 0.02)


def test_it_lies_where_the_image_does_at_one_token_a_pixel(made):
    store, _ = stored(made / "a.svs.attention.zarr")
    root = json.loads((made / "a.svs.attention.zarr" / "zarr.json").read_text())["attributes"]
    scale, translation = root["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    np.testing.assert_allclose(scale["scale"][1:], [STRIDE * 0.5] * 2)
    np.testing.assert_allclose(translation["translation"][1:], [(STRIDE - 1) / 2 * 0.5] * 2)  # of the first centre
    assert store.mpp == pytest.approx(STRIDE * 0.5)
    assert root["tilestream"]["map"]["stage"]["params"]["region_px"] == REGION_PX


def test_figures_show_something_and_are_drawn_once(slide, made):
    names = ["a.svs.attention.png", "a.svs.heads.attention.png"]
    (row,) = json.loads((made / "report.json").read_text())["inputs"]
    assert row["outputs"] == ["a.svs.attention.zarr", *names]
    store, _ = stored(made / "a.svs.attention.zarr")
    before = {}
    for name in names:
        pixels = imagecodecs.png_decode((made / name).read_bytes())[..., :3].astype("f4")
        assert min(pixels.shape[:2]) > 300
        assert pixels.std() > 20
        assert np.ptp(pixels, axis=2).max() > 100  # colours
        assert recipe_of(made / name) == store.fingerprint
        before[name] = (made / name).stat().st_mtime_ns
    words = ["--encoder", f"{HERE}:measured", "--region", REGION_PX, "--where", "all"]
    (made / names[1]).unlink()
    assert run(slide, "--out", made, *words).exit_code == 0
    assert (made / names[0]).stat().st_mtime_ns == before[names[0]]
    assert (made / names[1]).is_file()
    assert not [entry for entry in ts_inputs(made) if entry.endswith(".png")]


def ts_inputs(folder):
    from tilestream.pipelines.cohort import read_cohort

    return [entry.key for entry in read_cohort([str(folder)]).entries]


@pytest.mark.slow  # two processes that import torch
def test_processes_change_no_byte(slide, made, tmp_path):
    words = ["--encoder", f"{HERE}:measured", "--region", REGION_PX, "--where", "all", "--cluster", "local:2"]
    result = run(slide, "--out", tmp_path, *words)
    assert result.exit_code == 0, result.stderr
    assert files(tmp_path / "a.svs.attention.zarr") == files(made / "a.svs.attention.zarr")


def test_other_units_change_no_value(tmp_path):
    large = write_slide(tmp_path / "large.svs", Shape(y=1200, x=1200), mpp=0.5)
    corner = [[970, 970], [1080, 970], [1080, 1080], [970, 1080], [970, 970]]  # on all sides of a corner of units
    shape = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [corner]}}
    (tmp_path / "corner.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [shape]}))
    words = ["--encoder", f"{HERE}:measured", "--region", REGION_PX, "--where", tmp_path / "corner.geojson"]
    words += ["--maps", "region"]  # without a mean there is one figure less to draw
    units, maps = [], []
    for edge in (1024, 4096):
        result = run(large, "--out", tmp_path / str(edge), *words, "--super-tile", edge)
        assert result.exit_code == 0, result.stderr
        (row,) = json.loads((tmp_path / str(edge) / "report.json").read_text())["inputs"]
        units.append(row["supertiles"]["computed"])
        maps.append(stored(tmp_path / str(edge) / "large.svs.attention.zarr")[1])
    assert units == [4, 1]
    assert 0.03 < np.isfinite(maps[0]).mean() < 0.1
    np.testing.assert_array_equal(*maps)


def test_regions_are_whole_and_those_of_embed(slide, tmp_path):
    words = ["--encoder", f"{HERE}:measured", "--region", REGION_PX, "--maps", "mean"]
    assert run(slide, "--out", tmp_path, *words).exit_code == 0
    _, maps = stored(tmp_path / "a.svs.attention.zarr")
    plan = ts.plan_tiles(ts.open_pyramid(str(slide)), tile_px=TILE_PX, region_px=REGION_PX, whole_regions=True)
    wanted = np.kron(plan.wanted, np.ones((TOKENS, TOKENS), bool))[: maps.shape[1], : maps.shape[2]]
    assert 0 < wanted.mean() < 1
    np.testing.assert_array_equal(np.isfinite(maps[0]), wanted)
    assert not (tmp_path / "a.svs.heads.attention.png").exists()  # no head is stored


def test_a_region_that_cannot_be_decoded_is_masked_and_named(tmp_path):
    pixels = np.random.default_rng(2).integers(0, 256, (256, 384, 3), np.uint8)
    pyramid = holed(pixels, np.ones(pixels.shape[:2], bool), damaged=((0, 5),), block_px=64)
    plan = ts.plan_tiles(pyramid, tile_px=REGION_PX, halo_px=HALO, where="all")
    stage = StageSpec(target="attention", params={"encoder": f"{HERE}:pair", "region_px": REGION_PX})
    done = ts.map_tiles(pyramid, plan, stage, str(tmp_path / "a.zarr"))
    assert done.tiles == 6
    assert [rows for receipt in done.receipts for rows in receipt.damaged.values()]
    _, maps = stored(tmp_path / "a.zarr")
    lost = np.isnan(maps).any(axis=0)
    assert lost[:32, 64:].all()  # the region itself
    assert not lost[:, :32].any()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "They are published as HIPT_4K/Checkpoints/vit256_small_dino.pth"),
        (["--random-weights", "0", "--weights", "f.pth"], "one or the other"),
        (["--encoder", "handcrafted"], "none of which attention is known"),
        (["--encoder", f"{HERE}:without_attention"], "has no `forward_attention`"),
        (["--encoder", f"{HERE}:pair", "--region", "100"], "a multiple of 16 px"),
        (["--encoder", f"{HERE}:pair", "--maps", "mean,heads"], "some of mean, region, tile, pairs"),
    ],
)
def test_what_is_refused_before_an_image_is_opened(slide, tmp_path, words, told):
    result = run(slide, "--out", tmp_path / "out", *words)
    assert result.exit_code == 2
    assert told in result.stderr
    assert not (tmp_path / "out").exists()


def test_images_that_do_not_fit_are_rows_with_their_reason(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "unknown.png").write_bytes(imagecodecs.png_encode(rng.integers(0, 256, (70, 70, 3), np.uint8)))
    four = rng.integers(0, 256, (4, 70, 70), np.uint8)
    tifffile.imwrite(tmp_path / "four.tif", four, photometric="minisblack", planarconfig="separate")
    (tmp_path / "white.png").write_bytes(imagecodecs.png_encode(np.full((70, 70, 3), 255, np.uint8)))
    table = tmp_path / "m.csv"
    table.write_text("path,mpp\nunknown.png,\nfour.tif,0.5\nwhite.png,0.5\n")
    words = ["--encoder", f"{HERE}:measured", "--region", "64"]
    result = run("--manifest", table, "--out", tmp_path / "out", *words)
    assert result.exit_code == 3
    rows = {row["path"]: row for row in json.loads((tmp_path / "out" / "report.json").read_text())["inputs"]}
    assert "resolution of the image" in rows["unknown.png"]["reason"]
    assert "got 4 channels" in rows["four.tif"]["reason"]
    assert rows["white.png"]["status"] == "done"
    assert rows["white.png"]["tiles"] == 0


@pytest.mark.parametrize(
    ("width", "mpp", "expected"),
    [(2220, 0.5, (400, "200 µm")), (90000, 0.25, (8000, "2 mm")), (640, None, (100, "100 px"))],
)
def test_scale_bars_are_round(width, mpp, expected):
    assert bar_px(width, mpp) == expected
