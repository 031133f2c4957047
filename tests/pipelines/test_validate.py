"""`tilestream info --validate`: what is right passes every validator, and whatever breaks is named where it broke."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.servers import S3, HttpServer
from tests.sinks.build import make_image, make_plan, make_sink, write_all
from tilestream.cli import app
from tilestream.codecs.shardmap import encode_shard_map
from tilestream.pipelines.ingest import build_pyramid
from tilestream.pipelines.validate import Validation, validate_image
from tilestream.sinks.layout import Profile
from tilestream.sinks.raster import build_raster
from tilestream.sources.files import File
from tilestream.sources.tiff import open_tiff
from tilestream.testing.slide import write_slide
from tilestream.types import Shape

CHECKS = {
    "headers", "metadata", "chunks", "tiles", "OME-Zarr by yaozarrs", "OME-Zarr by ome-zarr-models", "NGFF JSON schema",
    "GeoZarr JSON schemas",
}  # fmt: skip
UTM: dict[str, Any] = {"crs": "EPSG:32633", "affine": (10.0, 0.0, 5e5, 0.0, -10.0, 5e6)}
TURNED: dict[str, Any] = {"crs": "EPSG:32633", "affine": (8.0, 6.0, 5e5, 6.0, -8.0, 5e6)}


def make_raster(folder: Path, **image: Any) -> Path:
    """Four levels of one float channel: 525 x 375 cells and coarser ones, odd sizes among them."""
    info = make_image(height=8 * 525, width=8 * 375, **image)
    sink = make_sink(folder, image=info, plan=make_plan(info, tile_px=8, super_tile_px=512, region_px=512))
    sink.finish(write_all(sink))
    build_raster(sink.root, folder / "r.zarr")
    return folder / "r.zarr"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_raster(tmp_path_factory.mktemp("scene"), **UTM)


@pytest.fixture
def raster(scene: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(scene, tmp_path / "copy.zarr"))


def outcomes(validation: Validation) -> dict[str, str]:
    return {verdict.check: verdict.outcome for verdict in validation.verdicts}


def problems(validation: Validation, check: str) -> str:
    return "\n".join(text for verdict in validation.verdicts if verdict.check == check for text in verdict.problems)


@pytest.mark.parametrize("image", [{}, {"mpp": None}, UTM, TURNED], ids=["µm", "px", "UTM", "turned"])
def test_our_rasters_pass_every_validator(tmp_path: Path, image: dict[str, Any]) -> None:
    validation = validate_image(str(make_raster(tmp_path, **image)))
    assert outcomes(validation) == dict.fromkeys(CHECKS, "valid")
    told = [note for verdict in validation.verdicts for note in verdict.notes]
    assert not [note for note in told if "recommended" in note or "SHOULD" in note]


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("slides/dicom-cmu-1-small-region", "archive"),
        ("slides/CMU-1-Small-Region.svs", "portable"),
        ("satellite/pix4d_alpha_nodata.tif", "portable"),
        ("satellite/pix4d_alpha_nodata.tif", "gdal"),
    ],
)
def test_our_pyramids_pass_every_validator(shared_data: Path, tmp_path: Path, name: str, profile: Profile) -> None:
    build_pyramid(shared_data / name, tmp_path / "x.zarr", profile=profile)
    assert outcomes(validate_image(str(tmp_path / "x.zarr"))) == dict.fromkeys(CHECKS, "valid")


def test_real_stores_are_valid_and_their_missing_translation_is_told(shared_data: Path) -> None:
    for name in ("exemplar-001.crop.image.ome.zarr", "skimage-2dt.segmentation.ome.zarr"):
        validation = validate_image(str(shared_data / "zarr" / name))
        found = outcomes(validation)
        assert found.pop("GeoZarr JSON schemas") == "not applicable"
        assert set(found.values()) == {"valid"}
        (metadata,) = (verdict for verdict in validation.verdicts if verdict.check == "metadata")
        assert "level 1: its translation puts it beside level 0, along y by -0.5, x by -0.5" in metadata.notes[0]


Change = Callable[[dict[str, Any]], object]


def ome(attributes: dict[str, Any], level: int) -> list[dict[str, Any]]:
    return attributes["ome"]["multiscales"][0]["datasets"][level]["coordinateTransformations"]


def layout(attributes: dict[str, Any], level: int) -> dict[str, Any]:
    return attributes["multiscales"]["layout"][level]


@pytest.mark.parametrize(
    ("path", "change", "check", "message"),
    [
        ("", lambda a: ome(a, 1)[1]["translation"].__setitem__(2, 0.0), "metadata", "level 1: its translation .* x by"),
        ("", lambda a: ome(a, 1)[0]["scale"].__setitem__(1, 60.0), "metadata", "level 1: 263 pixels along y"),
        ("", lambda a: ome(a, 0)[0].update(type="identity"), "metadata", "level 0: `coordinateTransformations`"),
        ("", lambda a: ome(a, 0)[0]["scale"].pop(), "OME-Zarr by yaozarrs", "."),
        ("", lambda a: ome(a, 0)[0]["scale"].pop(), "OME-Zarr by ome-zarr-models", "."),
        ("", lambda a: a["ome"]["multiscales"][0].pop("axes"), "NGFF JSON schema", "/: ome/multiscales/0: 'axes'"),
        ("", lambda a: layout(a, 2)["spatial:shape"].__setitem__(0, 131), "metadata", r"`spatial:shape` \[131"),
        ("", lambda a: layout(a, 2)["spatial:transform"].__setitem__(2, 0.0), "metadata", "level 2: .* unlike level 0"),
        ("", lambda a: layout(a, 2)["spatial:transform"].__setitem__(0, 300.0), "metadata", "3.75 times by `spatial:"),
        ("", lambda a: layout(a, 2).update(asset="3"), "metadata", "level 2: asset `3`, the array is `2/image`"),
        ("", lambda a: a["spatial:bbox"].__setitem__(0, 0.0), "metadata", "`spatial:bbox`"),
        ("", lambda a: a["multiscales"]["layout"].pop(), "metadata", "of 2 levels, stored are 3"),
        ("", lambda a: a["zarr_conventions"].pop(), "GeoZarr JSON schemas", "`proj:`, which"),
        ("", lambda a: a.pop("spatial:dimensions"), "GeoZarr JSON schemas", "'spatial:dimensions' is a required"),
        ("", lambda a: layout(a, 1).update(asset="../1"), "GeoZarr JSON schemas", "multiscales/layout/1/asset"),
        ("", lambda a: a.update({"proj:wkt2": "x"}), "GeoZarr JSON schemas", "proj: .* valid under each of"),
        ("1", lambda a: a.update({"proj:code": "EPSG:4326"}), "metadata", "level 1: `proj:code` in `1` is another"),
        ("1/image", lambda a: a["spatial:transform"].__setitem__(2, 1.0), "metadata", "level 1: .* in `1/image`"),
    ],
)  # fmt: skip
def test_attributes_that_disagree_are_named(raster: Path, path: str, change: Change, check: str, message: str) -> None:
    file = raster / path / "zarr.json"
    document = json.loads(file.read_text())
    change(document["attributes"])
    file.write_text(json.dumps(document))
    validation = validate_image(str(raster))
    assert validation.exit_code == 3
    assert re.search(message, problems(validation, check)), outcomes(validation)


def document_of(path: Path) -> dict[str, Any]:
    return json.loads((path / "zarr.json").read_text())


def rename_axes(raster: Path) -> None:
    document = document_of(raster / "1/image")
    (raster / "1/image/zarr.json").write_text(json.dumps({**document, "dimension_names": ["c", "x", "y"]}))


def cut(path: Path, nbytes: int) -> None:
    path.write_bytes(path.read_bytes()[:-nbytes])


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


SHARD = "0/image/c/0/0/0"


@pytest.mark.parametrize(
    ("damage", "check", "message"),
    [
        (rename_axes, "metadata", r"level 1: `dimension_names` \['c', 'x', 'y'\], the axes are \['c', 'y', 'x'\]"),
        (lambda raster: shutil.rmtree(raster / "1"), "metadata", "level 1: .*1/image"),
        (lambda raster: (raster / "1/zarr.json").write_text("{"), "metadata", "1/zarr.json`: got 1 bytes that are no"),
        (lambda raster: flip(raster / SHARD, -1), "chunks", "level 0: damaged: `c/0/0/0` has an index that"),
        (lambda raster: cut(raster / SHARD, 9), "chunks", "level 0: damaged: `c/0/0/0` has an index"),
        (lambda raster: (raster / SHARD).write_bytes(b"x" * 9), "chunks", "has 9 bytes, its index alone takes"),
        (lambda raster: (raster / SHARD).write_bytes(b""), "chunks", "`c/0/0/0` is empty"),
        (lambda raster: flip(raster / SHARD, 20), "tiles", r"level 0, tile row 0, column 0: chunk \(0, 0, 0\) in"),
        (lambda raster: (raster / "0/image/c/0/0/7").write_bytes(b"x"), "chunks", "no chunk of this array: `c/0/0/7`"),
        (lambda raster: (raster / "0/image/notes.txt").write_bytes(b"x"), "chunks", "no chunk of .*: `notes.txt`"),
    ],
)  # fmt: skip
def test_damaged_files_are_named(raster: Path, damage: Callable[[Path], object], check: str, message: str) -> None:
    damage(raster)
    validation = validate_image(str(raster))
    assert validation.exit_code == 3
    assert re.search(message, problems(validation, check)), validation


def test_what_is_not_stored_is_counted_against_the_declared_shape(raster: Path) -> None:
    (raster / SHARD).unlink()
    validation = validate_image(str(raster))
    (chunks,) = (verdict for verdict in validation.verdicts if verdict.check == "chunks")
    assert chunks.notes[1] == "level 0: 1 of 1 shards are not stored and read as nan: 0/0/0"


def cut_tile(path: Path, *, level: int, iy: int, ix: int) -> None:
    """Cut the JPEG stream of one tile in its middle: what follows is zeros."""
    table = open_tiff(File(url=str(path)))._image.levels[level].level.tables[0]
    offset, nbytes = int(table.offsets[0, iy, ix]), int(table.counts[0, iy, ix])
    with path.open("r+b") as file:
        file.seek(offset + nbytes // 2)
        file.write(bytes(nbytes - nbytes // 2))


def test_a_cut_stream_in_a_slide_is_named_by_level_and_tile(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "a.svs", Shape(y=1200, x=1500))
    result = CliRunner().invoke(app, ["info", "--validate", str(slide)])
    assert result.exit_code == 0
    assert "39 tiles on 2 levels, 0 damaged" in result.stdout
    cut_tile(slide, level=0, iy=3, ix=1)
    cut_tile(slide, level=1, iy=0, ix=1)
    result = CliRunner().invoke(app, ["info", "--validate", str(slide)])
    assert result.exit_code == 3
    assert "level 0, tile row 3, column 1: JPEG" in result.stdout
    assert "level 1, tile row 0, column 1: JPEG" in result.stdout
    assert "2 damaged" in result.stdout


def test_more_damage_than_can_be_read_is_counted(tmp_path: Path) -> None:
    slide = write_slide(tmp_path / "a.svs", Shape(y=1200, x=1500))
    for iy in range(5):
        for ix in range(6):
            cut_tile(slide, level=0, iy=iy, ix=ix)
    (tiles,) = (verdict for verdict in validate_image(str(slide)).verdicts if verdict.check == "tiles")
    assert (len(tiles.problems), tiles.problems[-1]) == (21, "10 more")


def test_a_validator_that_is_not_there_is_named_with_what_installs_it(
    scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "ngff_zarr" else find(name, *a))
    result = CliRunner().invoke(app, ["info", "--validate", str(scene), "--json"])
    document = json.loads(result.stdout)
    found = {verdict["check"]: verdict for verdict in document["validation"]}
    assert (result.exit_code, document["exit_code"]) == (0, 0)
    assert found["NGFF JSON schema"]["outcome"] == "not installed"
    assert found["NGFF JSON schema"]["notes"] == ["pip install ngff-zarr"]


def test_what_cannot_be_opened_is_invalid_and_nothing_at_all_a_usage_error(shared_data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["info", "--validate", str(shared_data / "broken" / "lfs-pointers.zarr")])
    assert result.exit_code == 3
    assert "Git LFS pointer" in result.stdout
    result = CliRunner().invoke(app, ["info", "--validate", str(tmp_path / "nothing.svs")])
    assert result.exit_code == 2
    assert "nothing there" in result.stderr


def test_a_lost_shard_is_told_from_one_that_was_never_written(raster: Path) -> None:
    document = document_of(raster)
    for written, outcome in ((False, "valid"), (True, "invalid")):
        document["attributes"]["tilestream"]["shards"] = {"0": encode_shard_map(np.array([[written]]))}
        (raster / "zarr.json").write_text(json.dumps(document))
        (raster / SHARD).unlink(missing_ok=True)
        validation = validate_image(str(raster))
        assert outcomes(validation)["chunks"] == outcome
    assert problems(validation, "chunks") == "level 0: 1 shards were written and are gone: 0/0/0"


@pytest.mark.filterwarnings("default")  # of clients that validators leave open
def test_on_object_storage_as_on_disk(scene: Path, s3_environment: S3) -> None:
    validation = validate_image(s3_environment.upload(scene))
    assert outcomes(validation) == dict.fromkeys(CHECKS, "valid")


@pytest.mark.filterwarnings("default")
def test_a_server_that_lists_nothing_is_no_server_without_chunks(scene: Path, http_server: HttpServer) -> None:
    shutil.copytree(scene, http_server.root / "r.zarr")
    validation = validate_image(f"{http_server.url}/r.zarr")
    assert outcomes(validation) == dict.fromkeys(CHECKS, "valid")
    (chunks,) = (verdict for verdict in validation.verdicts if verdict.check == "chunks")
    assert chunks.notes[1] == "level 0: its server lists no files, so none were looked for"
