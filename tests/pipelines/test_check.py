"""The preflight: verdicts from headers alone, forecasts that bound what a run does."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from tilestream.errors import ConfigError
from tilestream.pipelines.calibrate import calibrate
from tilestream.pipelines.check import CheckOutcome, failed_first, run_check
from tilestream.pipelines.cohort import read_cohort
from tilestream.pipelines.describe import describe_image
from tilestream.pipelines.embed import EmbedConfig, run_embed
from tilestream.testing.slide import write_slide
from tilestream.types import Shape


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_slide(tmp_path_factory.mktemp("in") / "made.svs", Shape(y=1100, x=2100))


def check(*paths: Path, out: Path = Path("out"), manifest: Path | None = None, **options: object) -> CheckOutcome:
    cohort = read_cohort([str(path) for path in paths], manifest=None if manifest is None else str(manifest))
    config = EmbedConfig(out=out, **options)  # type: ignore[arg-type]
    return run_check(cohort, config)


def test_decodes_nothing(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("a pixel was read")

    rates = calibrate()  # reads tiles, but its own
    monkeypatch.setattr("tilestream.pipelines.check.calibrate", lambda: rates)
    monkeypatch.setattr("tilestream.pyramid.pyramid.Pyramid.read_into", forbidden)
    (row,) = check(slide, where="tissue").rows
    assert row.verdict == "ok", row.reason
    assert (row.format, row.shape_yx, row.levels, row.dtype) == ("aperio-svs", (1100, 2100), 2, "uint8")
    assert row.channels == ("R", "G", "B")
    assert row.mpp == pytest.approx(0.5)


def test_forecast_bounds_the_run(slide: Path, tmp_path: Path) -> None:
    forecast = check(slide).rows[0].forecast
    assert forecast is not None
    outcome = run_embed(read_cohort([str(slide)]), EmbedConfig(out=tmp_path))
    (row,) = outcome.rows
    assert 0 < row.tiles <= forecast.tiles == 5 * 9
    assert forecast.read_bytes is not None
    assert 0 < row.bytes_read <= forecast.read_bytes * 2.5  # tissue and thumbnail of one so small are of level 0 too
    assert forecast.units == 1
    assert forecast.seconds > 0


@pytest.mark.parametrize("name", ["text.svs", "cut.svs", "empty.png"])
def test_what_fails_is_a_row(slide: Path, tmp_path: Path, name: str) -> None:
    data = {"text.svs": b"letters" * 100, "cut.svs": slide.read_bytes()[:5000], "empty.png": b""}[name]
    (tmp_path / name).write_bytes(data)
    outcome = check(tmp_path / name, slide)
    assert [row.verdict for row in outcome.rows] == ["fails", "ok"]
    assert "got" in outcome.rows[0].reason
    assert outcome.exit_code == 3
    assert failed_first(outcome.rows[::-1])[0].path == name


def test_a_parser_that_breaks_is_a_row_too(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise IndexError("tag 7")

    monkeypatch.setattr("tilestream.pipelines.check.open_pyramid", broken)
    (row,) = check(slide).rows
    assert (row.verdict, row.reason) == ("fails", "IndexError: tag 7")


def test_mpp_and_mask_of_a_manifest(slide: Path, tmp_path: Path) -> None:
    table = tmp_path / "cohort.csv"
    table.write_text(f"path,mpp,mask\n{slide},0.25,\n")
    (row,) = check(slide, manifest=table).rows
    assert row.verdict == "ok with notes"
    assert any("0.25" in note for note in row.notes)
    assert row.forecast is not None
    assert row.forecast.tiles == 3 * 5
    table.write_text(f"path,mpp,mask\n{slide},,missing.geojson\n")
    (row,) = check(slide, manifest=table).rows
    assert row.verdict == "fails"
    assert "missing.geojson" in row.reason


def test_unknown_resolution_is_a_note(tmp_path: Path) -> None:
    import imagecodecs
    import numpy as np

    (tmp_path / "photo.png").write_bytes(imagecodecs.png_encode(np.zeros((300, 300, 3), np.uint8)))
    (row,) = check(tmp_path / "photo.png").rows
    assert row.verdict == "ok with notes"
    assert row.mpp is None
    assert any("unknown" in note for note in row.notes)


def test_memory_and_disk_that_do_not_suffice(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "memory" in check(slide, memory_bytes=1 << 20).rows[0].reason
    real = shutil.disk_usage

    def full(path: Path) -> object:
        return SimpleNamespace(total=real(path).total, used=0, free=100)

    monkeypatch.setattr("tilestream.pipelines.check.shutil.disk_usage", full)
    outcome = check(slide)
    assert outcome.exit_code == 3
    assert "100 bytes free" in outcome.problems[0]


def test_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="empty folder"):
        check(tmp_path)


def test_real_images(shared_data: Path) -> None:
    outcome = check(shared_data / "slides", shared_data / "satellite", shared_data / "zarr")
    assert not [row.reason for row in outcome.rows if row.verdict == "fails"]
    assert len(outcome.rows) > 30
    dicom = next(row for row in outcome.rows if row.path.startswith("dicom-cmu"))
    assert any("YCbCr" in note for note in dicom.notes)
    broken = check(shared_data / "broken")
    assert {row.path for row in broken.rows if row.verdict == "fails"} >= {"random-text.svs", "lfs-pointers.zarr"}
    assert next(row for row in broken.rows if row.path == "corrupt.tif").verdict != "fails"


def test_descriptions_of_real_slides_name_nobody(shared_data: Path) -> None:
    svs = describe_image(str(shared_data / "slides" / "CMU-1-Small-Region.svs"))
    assert not {"label", "macro"} & set(svs["associated"])
    dicom = describe_image(str(shared_data / "slides" / "camelyon-jpeg2000.dcm"))
    assert not [key for key in dicom if "patient" in key.lower() or "name" in key.lower()]


def test_calibration_is_quick_and_plausible() -> None:
    import time

    calibrate()
    start = time.process_time()
    rates = calibrate()
    assert time.process_time() - start < 3  # whatever else the machine does
    assert 1e6 < rates.decode_px_s < 1e11
    assert 1e6 < rates.stage_px_s < 1e11
