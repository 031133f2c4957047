"""A panel goes on where it stopped, counts every byte and takes any callable."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tilestream.codecs.conventional import CONVENTIONAL
from tilestream.codecs.panel import Contestant, PanelPicture, run_panel, scores_of
from tilestream.codecs.quality import H_AND_DAB, H_AND_E, od_psnr, psnr
from tilestream.codecs.structure import ms_ssim
from tilestream.codecs.tilecodec import FieldCodec, unpack_tile
from tilestream.errors import ConfigError


def picture(name: str = "noise", dtype: str = "uint8", edge: int = 32) -> PanelPicture:
    pixels = (np.random.default_rng(0).uniform(0, 255, (3, edge, edge))).astype(dtype)
    return PanelPicture(name=name, group="g", pixels=pixels, stains=H_AND_E if dtype == "uint8" else None)


class Coarse:
    """Keeps every n-th code, and counts how often it was asked."""

    def __init__(self) -> None:
        self.calls: list[float] = []

    def __call__(self, pixels: np.ndarray, setting: float) -> tuple[bytes, np.ndarray]:
        self.calls.append(setting)
        return b"x" * int(4096 / setting), (pixels // int(setting) * int(setting)).astype(pixels.dtype)


def contestant(run: Coarse) -> Contestant:
    return Contestant(name="coarse", settings=(16.0, 4.0, 1.0), run=run, version="1")


def test_it_counts_bytes_and_scores(tmp_path: Path) -> None:
    one = picture()
    told: list[tuple[int, int]] = []
    [curve] = run_panel([one], [contestant(Coarse())], tmp_path, progress=lambda *told_: told.append(told_))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert (curve.codec, curve.picture) == ("coarse", "noise")
    assert [point.size_bytes for point in curve.points] == [256, 1024, 4096]
    assert [point.bpp for point in curve.points] == [2, 8, 32]
    assert curve.points[0].scores["psnr"] == psnr(one.pixels, one.pixels // 16 * 16)
    assert curve.points[2].scores["psnr"] == math.inf
    assert curve.points[0].scores["od_psnr"] == od_psnr(one.pixels, one.pixels // 16 * 16)
    assert set(curve.points[0].scores) == {"psnr", "ssim", "od_psnr", "ssimulacra2"}


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    run = Coarse()

    def interrupted(pixels: np.ndarray, setting: float) -> tuple[bytes, np.ndarray]:
        if setting == 1:
            raise KeyboardInterrupt
        return run(pixels, setting)

    one = contestant(run)
    with pytest.raises(KeyboardInterrupt):
        run_panel([picture()], [replace(one, run=interrupted)], tmp_path)
    first = run_panel([picture()], [one], tmp_path)
    assert run.calls == [16, 4, 1]
    assert run_panel([picture()], [one], tmp_path) == first  # infinite scores too
    assert run.calls == [16, 4, 1]


def test_other_pixels_versions_and_stains_are_measured_again(tmp_path: Path) -> None:
    run = Coarse()
    one = replace(contestant(run), settings=(4.0,))
    run_panel([picture()], [one], tmp_path)
    run_panel([replace(picture(), pixels=picture().pixels + 1)], [one], tmp_path)
    run_panel([picture()], [replace(one, version="2")], tmp_path)
    run_panel([replace(picture(), stains=H_AND_DAB)], [replace(one, version="2")], tmp_path)
    assert len(run.calls) == 4


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": 1}', None])
def test_a_spoilt_result_is_measured_again(text: str | None, tmp_path: Path) -> None:
    run = Coarse()
    one = replace(contestant(run), settings=(4.0,))
    [before] = run_panel([picture()], [one], tmp_path)
    [path] = tmp_path.rglob("*.json")
    record = json.loads(path.read_text())
    del record["point"]["bpp"]
    path.write_text(json.dumps(record) if text is None else text)
    [after] = run_panel([picture()], [one], tmp_path)
    assert run.calls == [4, 4]
    assert after.points[0].scores == before.points[0].scores


def test_threads_give_the_same_curves_in_order(tmp_path: Path) -> None:
    pictures = [picture(), picture("deep", "uint16"), picture("heights", "float32")]
    codecs = [replace(Contestant.of(codec), settings=codec.settings[3:5]) for codec in CONVENTIONAL.values()]
    serial = run_panel(pictures, codecs, tmp_path / "1")
    threaded = run_panel(pictures, codecs, tmp_path / "2", threads=2)
    assert [(c.codec, c.picture) for c in serial] == [(c.codec, c.picture) for c in threaded]
    assert [[p.scores for p in c.points] for c in serial] == [[p.scores for p in c.points] for c in threaded]
    held = {name: [c.picture for c in serial if c.codec == name] for name in CONVENTIONAL}
    assert held["jpegxl"] == held["jpeg2000"] == ["noise", "deep", "heights"]
    assert held["avif"] == held["jpeg420"] == ["noise"]


def test_samples_of_more_than_8_bits_count_by_the_range_of_their_channel() -> None:
    rng = np.random.default_rng(2)
    unit = rng.uniform(0, 1, (2, 176, 176)).astype(np.float32)
    noisy = unit + rng.normal(0, 0.01, unit.shape).astype(np.float32)
    low, high = (end(unit, axis=(1, 2), keepdims=True) for end in (np.min, np.max))
    scale, shift = np.array([1e4, 3.0]).reshape(2, 1, 1), np.array([-7.0, 1e3]).reshape(2, 1, 1)
    found = scores_of((unit * scale + shift), (noisy * scale + shift))
    expected = [(image.astype(float) - low) / (high.astype(float) - low) for image in (unit, noisy)]
    assert found["psnr"] == pytest.approx(psnr(*expected, high=1), abs=1e-5)
    assert found["ms_ssim"] == pytest.approx(ms_ssim(*expected, high=1), abs=1e-6)
    assert "od_psnr" not in found
    assert "ssimulacra2" not in found


def test_a_constant_channel_of_more_than_8_bits_has_scores() -> None:
    flat = np.full((1, 16, 16), 500, np.uint16)
    assert scores_of(flat, flat)["psnr"] == math.inf
    assert scores_of(flat, flat + 1)["psnr"] == 0


def test_codecs_of_tiles_give_what_a_chunk_of_a_store_holds() -> None:
    pytest.importorskip("torch")
    codec = FieldCodec(field="siren", quality=20.0, steps=2, levels=2)
    one = Contestant.of_tiles("mine", {20.0: codec}, version="v")
    assert (one.name, one.settings, one.version) == ("mine", (20.0,), "v")
    pixels = picture(edge=16).pixels
    data, decoded = one.run(pixels, 20.0)
    assert codec.encode(pixels) == data
    assert np.array_equal(unpack_tile(data).decode(), decoded)


def test_a_codec_that_was_given_something_else_is_measured_again_and_no_other(tmp_path: Path) -> None:
    def measured(**codecs: FieldCodec) -> list[str]:
        seen: list[str] = []
        one = Contestant.of_tiles("mine", {float(name[1:]): codec for name, codec in codecs.items()})
        told = replace(one, run=lambda pixels, setting: (seen.append(f"q{setting:g}"), (b"x", pixels))[1])
        run_panel([picture()], [told], tmp_path)
        return seen

    first, other = FieldCodec(steps=1), FieldCodec(steps=2)
    assert measured(q1=first, q2=first) == ["q1", "q2"]
    assert measured(q1=first, q2=other, q3=first) == ["q2", "q3"]


@pytest.mark.parametrize("names", [("a", "a"), ("a", "../b"), ("a", ""), ("a", "b/c"), ("a", ".b")])
def test_names_are_parts_of_paths(names: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names of the pictures"):
        run_panel([picture(name) for name in names], [], tmp_path)
    with pytest.raises(ConfigError, match="names of the codecs"):
        run_panel([], [replace(contestant(Coarse()), name=name) for name in names], tmp_path)
