"""Stores of hash fields: the same bits however many tasks fit them, and the PSNR they state is the one they have."""

import json
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from typer.testing import CliRunner

import tilestream as ts
from tilestream.cli import app
from tilestream.codecs.quality import psnr
from tilestream.kernels.mip import mip

pytest.importorskip("torch")
STEPS, TILE = 16, 64


def run(command, *words):
    result = CliRunner().invoke(app, [command, *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    return result


def files(folder: Path):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    y, x = np.mgrid[:64, :150]
    base = 128 + 60 * np.sin(y / 9) * np.cos(x / 13)
    pixels = np.stack([base, 255 - base, base / 2], axis=-1).astype("u1")
    pixels[:, 128:] = 200
    path = tmp_path_factory.mktemp("in") / "small.png"
    path.write_bytes(imagecodecs.png_encode(pixels))
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)), path


def test_bits_and_psnr(picture, tmp_path):
    pixels, path = picture
    stores = []
    for tasks in (1, 2):
        out = tmp_path / f"{tasks}"
        run("compress", path, "--out", out, "--tile", TILE, "--steps", STEPS, "--cluster", f"threads:{tasks}")
        stores.append(out / "small.png.field.zarr")
    assert files(stores[0]) == files(stores[1])
    pyramid = ts.open_pyramid(str(stores[0]))
    stated = json.loads((stores[0] / "zarr.json").read_text())["attributes"]["tilestream"]["quality"]
    levels = [pixels, *mip(pixels, levels=len(pyramid.levels) - 1)]
    assert len(stated["psnr"]) == len(levels)
    for level, expected, said in zip(pyramid.levels, levels, stated["psnr"], strict=True):
        assert said == pytest.approx(psnr(pyramid.read(level.box), expected), abs=1e-3)
    assert stated["psnr"][0] > 12
    written = sum(len(data) for name, data in files(stores[0]).items() if "/image/c/" in name)
    assert stated["bytes"] == written
    (row,) = json.loads((tmp_path / "1" / "report.json").read_text())["inputs"]
    assert (row["coded"]["fitted"], row["coded"]["constant"]) == (2, 1)


@pytest.mark.parametrize(("dtype", "levels"), [("uint16", 900), ("float32", 1)])
def test_samples_of_other_types_come_back_as_themselves(dtype, levels, tmp_path):
    import tifffile

    y, x = np.mgrid[:48, :48]
    pixels = (levels * (1.5 + np.sin(y / 9) * np.cos(x / 13))).astype(dtype)
    tifffile.imwrite(tmp_path / "one.tif", pixels)
    run("compress", tmp_path / "one.tif", "--out", tmp_path / "out", "--tile", TILE, "--steps", STEPS)
    pyramid = ts.open_pyramid(str(tmp_path / "out/one.tif.field.zarr"))
    assert pyramid.dtype == dtype
    found = pyramid.read(pyramid.levels[0].box)[0]
    assert psnr(found, pixels, high=float(np.ptp(pixels))) > 10
    run("decompress", tmp_path / "out", "--out", tmp_path / "tiff", "--to", "tiff")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "tiff/one.tif.field.ome.tif"), found)
