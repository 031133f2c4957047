"""The panel from pictures to table and plot, on made pictures of 64 px; and what its pictures are."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from tests.bench import rd
from tests.bench.rd_fields import FIELDS
from tests.bench.rd_pictures import CROPS, read_crop
from tests.bench.rd_table import markdown_of, summarise
from tilestream.codecs import (
    CONVENTIONAL,
    H_AND_DAB,
    H_AND_E,
    Contestant,
    Curve,
    PanelPicture,
    Point,
    bd_rate,
)
from tilestream.registry import CODECS


def made(name: str, group: str, dtype: str = "uint8", channels: int = 3) -> PanelPicture:
    rng = np.random.default_rng(len(name))
    y, x = np.mgrid[:64, :64] / 64
    planes = [np.sin(12 * y + k) * np.cos(15 * x + k) + rng.normal(0, 0.05, (64, 64)) for k in range(channels)]
    pixels = np.clip(120 + 80 * np.stack(planes), 0, 255).astype(dtype)
    return PanelPicture(name=name, group=group, pixels=pixels, stains=H_AND_E if group == "tissue" else None)


PANEL = (made("a", "tissue"), made("bb", "tissue"), made("ccc", "bands", "uint16", 2))
SOME = tuple(Contestant.of(CONVENTIONAL[name]) for name in ("jpeg420", "jpegxl", "jpeg2000"))


def blocks(pixels: np.ndarray, setting: float) -> tuple[bytes, np.ndarray]:
    """Stands for a field: the mean of squares, coded losslessly."""
    edge = int(setting)
    small = pixels.reshape(len(pixels), 64 // edge, edge, 64 // edge, edge).mean(axis=(2, 4)).astype(pixels.dtype)
    return imagecodecs.zlib_encode(small.tobytes()), small.repeat(edge, axis=1).repeat(edge, axis=2)


BLOCKS = Contestant(name="blocks", settings=(16.0, 8.0, 4.0, 2.0, 1.0), run=blocks)


def test_a_panel_becomes_table_numbers_and_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))
    curves = rd.run(PANEL, SOME, [(BLOCKS, ("a",))], folder=tmp_path / "points", threads=2)
    path = rd.write(curves, PANEL, tmp_path, told="blocks of means")
    text = path.read_text()
    assert "## tissue: 2 pictures" in text
    assert "## bands: 1 pictures" in text
    assert "| JPEG XL |" in text
    assert "blocks of means" in text
    assert "libjxl" in text
    found = json.loads((tmp_path / "rd.json").read_text())
    rows = {(row["group"], row["codec"]): row for row in found["rows"]}
    assert set(rows) == {
        *(("tissue", name) for name in ("jpeg420", "jpegxl", "jpeg2000")),
        *(("tissue, `a` alone", name) for name in ("jpeg420", "jpegxl", "jpeg2000", "blocks")),
        *(("bands", name) for name in ("jpegxl", "jpeg2000")),
    }
    by_name = {(curve.picture, curve.codec): curve for curve in curves}
    both = [bd_rate(by_name[name, "jpeg420"], by_name[name, "jpegxl"], bpp=(0.4, 3)) for name in ("a", "bb")]
    told = rows["tissue", "jpegxl"]["bits"]["jpeg420"]
    assert told == {"mean": pytest.approx(np.mean(both), abs=1e-3), "pictures": 2}
    assert rows["tissue, `a` alone", "blocks"]["pictures"] == 1
    assert len(found["points"]) == sum(len(curve.points) for curve in curves)
    lossless = [p for p in found["points"] if p["codec"] == "blocks" and p["setting"] == 1]
    assert [point["psnr"] for point in lossless] == [None]
    picture = imagecodecs.png_decode((tmp_path / "rd.png").read_bytes())
    assert picture[..., :3].std() > 20


def test_means_are_over_the_pictures_that_have_the_value() -> None:
    def curve(picture: str, codec: str, factor: float) -> Curve:
        points = [
            Point(setting=k, size_bytes=1, bpp=factor * 2.0**k / 4, scores={"psnr": 24.0 + 4 * k}, seconds=0)
            for k in range(6)
        ]
        return Curve(codec=codec, picture=picture, points=tuple(points))

    curves = [curve("p", "jpeg420", 1), curve("q", "jpeg420", 1), curve("p", "mine", 0.5), curve("q", "mine", 4)]
    far = [replace(p, scores={"psnr": p.scores["psnr"] + 90}) for p in curves[3].points]
    rows = summarise([*curves[:3], replace(curves[3], points=tuple(far))], {"p": "g", "q": "g"})
    [mine] = [row for row in rows if row["codec"] == "mine"]
    assert mine["bits"]["jpeg420"] == {"mean": pytest.approx(-50), "pictures": 1}
    assert mine["bits"]["jpegxl"] is None
    assert mine["psnr"]["1"] == pytest.approx((36 + 114) / 2)
    assert mine["psnr"]["0.5"] is None  # the one of them begins at 1 bit
    assert mine["at_1_bpp"]["ms_ssim"] is None
    assert "| mine | -50 % (1 of 2) |" in markdown_of(rows)


def test_crops_have_names_of_their_own_and_every_group_is_in_the_short_panel() -> None:
    assert len({crop.name for crop in CROPS}) == len(CROPS)
    assert {field.name for field in FIELDS} == set(CODECS) - {"shared"}  # which needs a decoder
    fitted = {name for field in FIELDS for name in field.pictures}
    assert fitted <= {crop.name for crop in CROPS if not crop.is_extra}
    short = {crop.group for crop in CROPS if not crop.is_extra}
    assert {crop.group for crop in CROPS} - short == {"tissue 1024"}


@pytest.mark.parametrize("name", ["cmu-half-a", "os2-half-a", "s2-a", "dem-a", "dapi-a", "kodim01"])
def test_crops_are_read(name: str, shared_data: Path) -> None:
    [crop] = [one for one in CROPS if one.name == name]
    found = read_crop(crop, shared_data)
    shapes = {"s2-a": (4, 512, 512), "dem-a": (1, 512, 512), "kodim01": (3, 512, 768)}
    assert found.pixels.shape == shapes.get(name, (3, 512, 512))
    assert found.pixels.std() > 5
    assert found.stains == {"cmu-half-a": H_AND_E, "os2-half-a": H_AND_DAB}.get(name)
