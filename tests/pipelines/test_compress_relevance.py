"""`compress --relevance`: bytes go where a map says, and everywhere alike without one."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import imagecodecs
import numpy as np
import pytest
from typer.testing import CliRunner

import tilestream as ts
from tests.codecs.exactfield import NAME, PATH
from tilestream.cli import app
from tilestream.cli.compressing import coded_words
from tilestream.codecs.tilecodec import FieldCodec
from tilestream.errors import ConfigError
from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.compress import CompressConfig, run_compress
from tilestream.pipelines.compress_relevance import EMPHASIS_DB, RelevanceChoice
from tilestream.registry import CODECS

TILE, EDGE = 64, 256
STEPS = 1, 16
"""Of samples whose errors count much, and of the others."""


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """Keeps samples by steps that are coarse where errors count little; its settings are those of a field."""

    exact: FieldCodec = field(default_factory=lambda: FieldCodec(field=NAME))
    weighs = True

    @property
    def name(self):
        return self.exact.name

    @property
    def settings(self):
        return self.exact.settings

    def is_plain(self, pixels, valid=None, *, roi=None):
        return self.exact.is_plain(pixels, valid)

    def encode(self, pixels, valid=None, *, roi=None):
        if roi is None:
            return self.exact.encode(pixels, valid)
        assert (roi.shape, roi.dtype) == (pixels.shape[1:], np.float32)
        assert roi.min() > 0
        assert roi.max() <= 1
        step = np.where(roi > 0.2, *STEPS).astype(pixels.dtype)
        return self.exact.encode(pixels // step * step, valid)


@pytest.fixture
def rounding(monkeypatch):
    """The codec of every run, whatever is asked for."""
    monkeypatch.setitem(CODECS, NAME, PATH)
    monkeypatch.setattr(CompressConfig, "tile_codec", lambda self: Rounding())


@pytest.fixture(scope="module")
def picture(tmp_path_factory) -> tuple[np.ndarray, Path]:
    """Noise on the left, which has all the entropy, and a ramp on the right."""
    pixels = np.repeat(np.arange(EDGE, dtype=np.uint8)[:, None], EDGE, axis=1)
    pixels[:, : EDGE // 2] = np.random.default_rng(0).integers(0, 255, (EDGE, EDGE // 2))
    path = tmp_path_factory.mktemp("in") / "a.png"
    path.write_bytes(imagecodecs.png_encode(pixels))
    return pixels, path


@pytest.fixture
def outline(tmp_path) -> Path:
    """The right half as a region."""
    corners = [[EDGE // 2, 0], [EDGE, 0], [EDGE, EDGE], [EDGE // 2, EDGE], [EDGE // 2, 0]]
    path = tmp_path / "right.geojson"
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [corners]}))
    return path


def stored(picture: Path, out: Path, choice: RelevanceChoice | None):
    config = CompressConfig(out=out, codec=NAME, tile_px=TILE, relevance=choice)
    (row,) = run_compress(read_cohort([str(picture)]), config).rows
    assert row.status == "done", row.reason
    return ts.open_pyramid(str(out / "a.png.field.zarr")), row


@pytest.mark.usefixtures("rounding")
@pytest.mark.parametrize(("terms", "close"), [("entropy", "left"), ("mask", "right")])
def test_what_matters_is_close_and_the_rest_is_coarse(picture, outline, tmp_path, terms, close):
    pixels, path = picture
    choice = RelevanceChoice.of(f"mask:{outline}" if terms == "mask" else terms, None)
    assert choice is not None
    pyramid, row = stored(path, tmp_path / "out", choice)
    error = np.abs(pyramid.read(pyramid.levels[0].box)[0].astype(int) - pixels)
    left, right = error[:, : EDGE // 2 - TILE], error[:, EDGE // 2 + TILE :]
    fine, coarse = (left, right) if close == "left" else (right, left)
    assert coarse.max() == STEPS[1] - 1
    assert fine.mean() < 0.3 * coarse.mean()
    assert terms == "entropy" or fine.max() == 0
    record = json.loads((tmp_path / "out" / "a.png.field.zarr" / "zarr.json").read_text())["attributes"]["tilestream"]
    assert record["relevance"]["emphasis_db"] == EMPHASIS_DB
    assert record["relevance"]["terms"].keys() == {terms}
    plain, plain_row = stored(path, tmp_path / "plain", None)
    assert "relevance" not in json.dumps(plain.info.notes)
    np.testing.assert_array_equal(plain.read(plain.levels[0].box)[0], pixels)
    assert row.coded["bytes"] < plain_row.coded["bytes"]
    weights = choice.of_image(ts.open_pyramid(str(path))).weights(pyramid.levels[0].box).astype(np.float64)
    mean = np.average(error.astype(np.float64) ** 2, weights=weights)
    assert row.coded["psnr_weighed"] == pytest.approx(10 * np.log10(255**2 / mean), abs=1e-3)
    assert row.coded["psnr_weighed"] > row.coded["psnr"][0] + 1
    assert "psnr_weighed" not in plain_row.coded
    words = coded_words(row.coded, image_bytes=row.image_bytes, damaged=row.tiles_damaged, tiles=row.tiles)
    assert f"{row.coded['psnr_weighed']:.2f} where it matters" in words


@pytest.mark.usefixtures("rounding")
def test_another_map_is_another_recipe(picture, tmp_path):
    stored(picture[1], tmp_path, RelevanceChoice.of("entropy", 6))
    config = CompressConfig(out=tmp_path, codec=NAME, tile_px=TILE, relevance=RelevanceChoice.of("entropy", 9))
    (row,) = run_compress(read_cohort([str(picture[1])], out=tmp_path), config).rows
    assert (row.status, "emphasis_db 6" in row.reason) == ("failed", True), row.reason


@pytest.mark.usefixtures("rounding")
def test_a_map_of_nothing_is_told(tmp_path):
    path = tmp_path / "a.png"
    pixels = np.zeros((EDGE, EDGE), np.uint8)
    pixels[0, 0] = 1
    path.write_bytes(imagecodecs.png_encode(pixels))
    _, row = stored(path, tmp_path / "out", RelevanceChoice.of("gradient", None))
    assert any("nothing" in note for note in row.notes), row.notes


def test_a_choice_travels_to_workers(outline):
    choice = RelevanceChoice.of(f"entropy,mask:{outline}:2", 6)
    assert pickle.loads(pickle.dumps(choice)).recipe == choice.recipe
    assert replace(choice, db=9).recipe != choice.recipe


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--emphasis", "3"], "without --relevance"),
        (["--relevance", "nonsense"], "unknown name"),
        (["--relevance", "entropy", "--emphasis", "0"], "decibels above 0"),
        (["--relevance", "entropy"], "weighs errors: pyramid"),
        (["--relevance", "query:lymphocytes; -fat"], "text `lymphocytes` of a query: got words"),
        (["--relevance", "query:box=0,0,9,9;-fat"], "or draw what matters and give mask:FILE"),
        (["--relevance", "query"], "expected a place or a picture"),
    ],
)
def test_options_are_refused_before_anything_is_read(words, expected, tmp_path):
    done = CliRunner().invoke(app, ["compress", str(tmp_path / "none.png"), "--out", str(tmp_path / "out"), *words])
    assert done.exit_code == 2
    told = " ".join(done.stderr.split())
    assert expected in told
    assert "--encoder" not in told  # compress has none


def test_a_scorer_of_other_vectors_is_refused(tmp_path, monkeypatch):
    record = SimpleNamespace(takes="vectors", encoder="uni")
    monkeypatch.setattr("tilestream.pipelines.compress_relevance.record_of_scorer", lambda file: record)
    with pytest.raises(ConfigError, match="compress takes no other encoder"):
        RelevanceChoice.of("scorer:one.safetensors", None)


def test_a_field_takes_no_weights():
    tile = np.random.default_rng(0).integers(0, 255, (1, 8, 8), np.uint8)
    with pytest.raises(ConfigError, match="weights with the codec `hash`"):
        FieldCodec().encode(tile, roi=np.ones((8, 8), np.float32))
